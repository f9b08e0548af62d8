"""What-ifs: reservations that nobody makes, resolved and checked as real ones are, then answered by the pool's owner.

The question is an intent like any other, and its answer stands in the request's outcome; no resource is written.
"""

from datetime import datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from lablet_common.intents import INTENTS, ReservationCreate, ReservationRequested, SimulateRequested, SimulationCreate
from lablet_common.recurrence import InvalidRecurrence, occurrences
from lablet_common.requests import digest_of, new_ids
from lablet_common.resources.kinds import POOL, RESERVATION, TEMPLATE
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.series import MAX_OCCURRENCES
from lablet_common.resources.worker import WorkerPool, WorkerTemplate
from lablet_common.terms import SeriesCreate
from lablet_gateway import answers, catalogue, problems, reads
from lablet_gateway.asking import Ask, Asking
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts
from lablet_gateway.problems import field_error
from lablet_gateway.reserving import DEFAULT_POOL

WAIT_SECONDS = 10.0
"""For how long the answer is waited for unless the caller says."""
_INTENT = INTENTS["io.lablet.reservation.simulate.requested.v1"]


async def ask(parts: Parts, caller: Caller, asked: Ask, body: SimulationCreate) -> Request:
    """Opens the request. Raises 422 for what is unknown, and for wishes that go to different pools."""
    wishes: tuple[ReservationCreate | SeriesCreate, ...] = (*body.reservations, *body.series)
    pools = {(wish.pools or (wish.pool or DEFAULT_POOL,))[0] for wish in wishes}
    if len(pools) > 1:
        raise problems.invalid("reservations", f"they go to {len(pools)} pools", "simulate one pool at a time")
    (pool_name,) = pools
    pool = await reads.get(parts, POOL, pool_name)
    if not isinstance(pool, WorkerPool):
        place = "reservations[0]" if body.reservations else "series[0]"
        field = "pools[0]" if wishes[0].pools else "pool"
        remedy = problems.nearest(pool_name, await reads.names(parts, POOL))
        raise problems.invalid(f"{place}.{field}", f"there is no pool {pool_name}", remedy)
    template = await reads.get(parts, TEMPLATE, body.template or pool.spec.template)
    if body.template and template is None:
        remedy = problems.nearest(body.template, await reads.names(parts, TEMPLATE))
        raise problems.invalid("template", f"there is no template {body.template}", remedy)
    shape = template.spec if isinstance(template, WorkerTemplate) else None
    data = SimulateRequested(
        wishes=await _wishes(parts, caller, body, pool_name),
        workers=body.workers,
        shape=shape if body.template else None,
        cost_per_hour_usd=shape.cost_per_hour_usd if shape is not None else 0.0,
    )
    return await put(parts, caller, asked, pool_name, data, digest_of(body.to_dict()))


async def put(parts: Parts, caller: Caller, asked: Ask, pool: str, data: SimulateRequested, digest: str) -> Request:
    """Puts the question to the owner of the pool."""
    asking = Asking(parts, caller, asked)
    _, reservation_id = new_ids(RESERVATION, asking.key)
    subject = f"what-if-{reservation_id.removeprefix('rsv-')}"
    return await asking.accept(_INTENT, subject, data, pool, digest)


async def answer_response(
    parts: Parts, request: Request, prefer: str | None, patience: float = WAIT_SECONDS
) -> Response:
    """The answer if it comes in time, else 202 with the request. Raises the owner's refusal."""
    wait = answers.wait_of(prefer, parts.settings.gateway_max_wait_seconds)
    if not request.is_final:
        most = parts.settings.gateway_max_wait_seconds
        seconds = min(patience, most) if wait is None else wait
        request = await parts.decisions.wait(request, seconds)
    if request.status.phase is RequestPhase.REFUSED:
        raise answers.refusal_in(request)
    if request.status.phase is RequestPhase.ACCEPTED:
        return answers.accepted_response(request)
    return JSONResponse(request.status.answer or {})


async def _wishes(parts: Parts, caller: Caller, body: SimulationCreate, pool: str) -> tuple[ReservationRequested, ...]:
    """The reservations, then every date of the series. Raises 422."""
    named: list[tuple[str, ReservationCreate | SeriesCreate]] = [
        *((f"reservations[{at}]", wish) for at, wish in enumerate(body.reservations)),
        *((f"series[{at}]", term) for at, term in enumerate(body.series)),
    ]
    known = {
        name: await catalogue.find(parts, caller.tenant, name)
        for name in dict.fromkeys(wish.definition for _, wish in named)
    }
    errors = [
        field_error(f"{path}.definition", f"there is no definition {wish.definition}")
        for path, wish in named
        if known[wish.definition] is None
    ]
    now = parts.clock.now().replace(second=0, microsecond=0)
    errors += [
        field_error(f"{path}.start", "has passed", "start later")
        for path, wish in named
        if wish.start is not None and wish.start < now
    ]
    dates: list[tuple[SeriesCreate, datetime]] = []
    for at, term in enumerate(body.series):
        try:
            dates += [(term, start) for start in occurrences(term.rule, term.timezone, term.start, term.except_dates)]
        except InvalidRecurrence as error:
            errors.append(field_error(f"series[{at}].{error.field}", str(error)))
    if len(body.reservations) + len(dates) > MAX_OCCURRENCES:
        said = f"{len(body.reservations) + len(dates)} dates; at most {MAX_OCCURRENCES} are simulated at once"
        errors.append(field_error("series", said, "simulate in parts"))
    if errors:
        raise problems.several(errors)

    def asked(number: int, wish: ReservationCreate | SeriesCreate, **slot: Any) -> ReservationRequested:
        definition = known[wish.definition]
        assert definition is not None
        return ReservationRequested(
            id=f"what-if-{number}",
            owner=caller.name,
            definition=definition.id,
            pools=(pool,),
            seats=wish.seats,
            duration_minutes=wish.minutes,
            priority=wish.priority,
            worker_selector=wish.worker_selector,
            **slot,
        )

    singles = [
        asked(number, wish, start=wish.start, end=wish.end, asap=wish.asap)
        for number, wish in enumerate(body.reservations, 1)
    ]
    of_series = [
        asked(number, term, start=start, end=start + timedelta(minutes=term.minutes))
        for number, (term, start) in enumerate(dates, len(singles) + 1)
    ]
    return (*singles, *of_series)
