"""The doors for series: a term of classes is asked for, changed and cancelled; see `asking`.

The rule is expanded here already, so that a mistake in it is told at once, with its field; the owner expands it again.
"""

from typing import Any, cast

from lablet_common.recurrence import InvalidRecurrence, occurrences
from lablet_common.requests import digest_of, new_ids
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import POOL, REQUEST, SERIES
from lablet_common.resources.model import Metadata, Model
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.reservation import ReservationSpec
from lablet_common.resources.series import Series, SeriesPhase, SeriesStatus
from lablet_common.store import Get
from lablet_common.terms import SeriesCancel, SeriesChange, SeriesCreate, SeriesRequested
from lablet_gateway import problems, reads
from lablet_gateway.answers import check_match
from lablet_gateway.asking import digest_about, intent_of
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts
from lablet_gateway.problems import field_error
from lablet_gateway.reads import Consistency
from lablet_gateway.reserving import DEFAULT_POOL, Reserving

_REQUESTED = f"io.lablet.{SERIES.name}.requested.v1"


def pools_of(body: SeriesCreate) -> tuple[str, ...]:
    return body.pools or (body.pool or DEFAULT_POOL,)


def rule_errors(body: SeriesCreate) -> list[dict[str, str]]:
    """What is wrong with rule, zone or exceptions."""
    try:
        occurrences(body.rule, body.timezone, body.start, body.except_dates)
    except InvalidRecurrence as error:
        return [field_error(error.field, str(error))]
    return []


class SeriesIntake(Reserving):
    """For one caller."""

    async def book(self, body: SeriesCreate) -> Request:
        """A new series. Raises 422 for an unknown definition or pool, a rule that gives no dates, a past start."""
        intent = intent_of(SERIES, "requested")
        digest = digest_of(body.to_dict())
        pools = pools_of(body)
        definition = await self._checked(body, digest)
        if isinstance(definition, Request):
            return definition
        _, series_id = new_ids(SERIES, self.key)
        data = SeriesRequested(
            id=series_id,
            owner=self._caller.name,
            rule=body.rule,
            timezone=body.timezone,
            first=body.start,
            except_dates=body.except_dates,
            mode=body.mode,
            labels=body.labels,
            template=ReservationSpec(
                definition=definition.id,
                pools=pools,
                seats=body.seats,
                duration_minutes=body.minutes,
                priority=body.priority,
                worker_selector=body.worker_selector,
                roster=body.roster,
            ),
        )
        return await self.accept(intent, series_id, data, pools[0], digest)

    async def check(self, body: SeriesCreate) -> Definition:
        """The definition meant, if the series could be asked for. Raises what `book` does."""
        found = await self._checked(body, digest_of(body.to_dict()))
        assert isinstance(found, Definition), "an ask without a key has no earlier request"
        return found

    async def _checked(self, body: SeriesCreate, digest: str) -> Definition | Request:
        errors = rule_errors(body) + self._slot_errors(body.start)
        return await self._resolve(SERIES, digest, body.definition, pools_of(body), errors, listed=bool(body.pools))

    async def alter(self, series_id: str, body: SeriesChange, *, must_match: bool = False) -> Request:
        """A change of some dates. Raises 404, 409, 412, 422 and 428."""
        digest = digest_about(series_id, body)
        if repeated := await self.repeated(SERIES, digest):
            return repeated
        named = await self.unless_repeated(SERIES, digest, self._definition_id(body.definition))
        if isinstance(named, Request):
            return named
        body = body.model_copy(update={"definition": named})
        return await self._about(series_id, "change.requested", body, digest, must_match=must_match)

    async def cancel(self, series_id: str, body: SeriesCancel) -> Request:
        """Gives some dates back, or all. Raises 404, 409 and 412."""
        digest = digest_about(series_id, body)
        if repeated := await self.repeated(SERIES, digest):
            return repeated
        return await self._about(series_id, "cancel.requested", body, digest)

    async def _about(self, series_id: str, verb: str, body: Model, digest: str, *, must_match: bool = False) -> Request:
        found = await self.unless_repeated(SERIES, digest, self._addressable(series_id, verb, must_match=must_match))
        if isinstance(found, Request):
            return found
        return await self.accept(intent_of(SERIES, verb), found.id, body, await self._shard(found), digest)

    async def _addressable(self, series_id: str, verb: str, *, must_match: bool) -> Series:
        series = await visible(self._parts, self._caller, series_id)
        self._caller.may_change(series)
        self._meant_for = check_match(self._ask.if_match, series, required=must_match)
        again = verb == "cancel.requested" and series.status.phase is SeriesPhase.CANCELLED
        if series.is_final and not again:
            words = f"series {series_id} is {series.phase}: nothing can be asked of it any more"
            raise problems.ILLEGAL_TRANSITION(words, phase=str(series.phase))
        return series

    async def _shard(self, series: Series) -> str:
        """The first of its pools that still exists."""
        pools = series.spec.template.pools
        found = (await self._parts.store.txn([], [Get(POOL.key(pool)) for pool in pools])).reads
        return next((pool for pool, kvs in zip(pools, found, strict=True) if kvs), pools[0])


async def visible(parts: Parts, caller: Caller, series_id: str, consistency: Consistency = "linearizable") -> Series:
    """The series as the caller may see it; Pending, from its request, while nobody has begun with it. Raises 404."""
    found = cast("Series | None", await reads.get(parts, SERIES, series_id, consistency=consistency))
    found = found or await _promised(parts, caller.tenant, series_id)
    if found is None or not caller.sees(found):
        raise problems.unknown(SERIES.name, series_id)
    return found


async def _promised(parts: Parts, tenant: str, series_id: str) -> Series | None:
    request_id = f"req-{series_id.removeprefix('ser-')}"
    request = cast("Request | None", await reads.get(parts, REQUEST, request_id, tenant))
    if request is None or request.spec.type != _REQUESTED:
        return None
    if request.status.phase is not RequestPhase.ACCEPTED:
        return cast("Series | None", await reads.get(parts, SERIES, series_id))
    asked = SeriesRequested.model_validate(request.spec.data)
    metadata = Metadata(
        id=asked.id,
        uid=request.metadata.uid,
        tenant=request.tenant,
        owner=asked.owner,
        labels=asked.labels,
        created_at=request.spec.received_at,
        resource_version=request.metadata.resource_version,
        correlation_id=request.metadata.correlation_id,
    )
    more: dict[str, Any] = {"reason": "Accepted", "message": "accepted, waits for the scheduler"}
    status = SeriesStatus(phase=SeriesPhase.PENDING, pool=request.spec.shard, **more)
    return Series(metadata=metadata, spec=asked.spec(), status=status)
