"""One ask under its key: known again when it is repeated, and let in as a Request in one transaction.

A repeated key is answered before anything else is checked, so that a retry gets the first answer even when the slot has
begun or the definition has changed since; and once more before it is refused, as the first try may have been let in
meanwhile, by another gateway, and be what has changed the state. What a change is meant for goes with it, for its owner to
compare once more. Not guaranteed: that a booking which is refused, as its slot has begun, is not followed by an earlier try
that was still on its way.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar, cast
from uuid import UUID, uuid4

from pydantic import ValidationError

from lablet_common.intents import INTENTS, Intent
from lablet_common.requests import KeyReused, build_request, digest_of, new_ids, request_key
from lablet_common.resources.kinds import REQUEST, Kind
from lablet_common.resources.model import Model
from lablet_common.resources.request import Request
from lablet_common.store import Get, KeyValue
from lablet_common.store.changes import decode
from lablet_common.telemetry.traces import current_trace_parent
from lablet_gateway import problems
from lablet_gateway.admission import Crowded
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts

_T = TypeVar("_T")
NO_SHARD = "-"


@dataclass(frozen=True, slots=True)
class Ask:
    """The envelope of one ask: under which key, from where, about which state."""

    route: str
    """What the key belongs to: `METHOD /path` or the events' door."""
    key: str | None = None
    """The caller's idempotency key; None: this ask stands for itself."""
    if_match: str | None = None
    correlation: str | None = None
    """The first request of a chain of causes, where the caller names one."""


def intent_of(kind: Kind, verb: str) -> Intent:
    return INTENTS[f"io.lablet.{kind.name}.{verb}.v1"]


class Asking:
    """For one caller and one ask; the doors for the kinds are its subclasses."""

    def __init__(self, parts: Parts, caller: Caller, ask: Ask) -> None:
        self._parts = parts
        self._caller = caller
        self._ask = ask
        self._meant_for: int | None = None
        """Revision that the ask rests on, once that has been looked at."""
        self.key: UUID = request_key(caller.tenant, caller.name, ask.route, ask.key or uuid4().hex)

    async def repeated(self, kind: Kind, digest: str) -> Request | None:
        """What the same key has brought before. Raises `KeyReused` when that was something else."""
        if self._ask.key is None:
            return None
        (earlier,) = await self._parts.lookups.ask((self.earlier(kind),))
        return same_ask(earlier[0], digest) if earlier else None

    async def unless_repeated(self, kind: Kind, digest: str, checks: Awaitable[_T]) -> _T | Request:
        """What the checks find; where they refuse, what the same key has brought since it was looked for, if it has."""
        try:
            return await checks
        except (problems.Refused, ValidationError):
            if (repeated := await self.repeated(kind, digest)) is None:
                raise
            return repeated

    def earlier(self, kind: Kind) -> Get:
        """Where the request stands that the same key has brought before, if it has."""
        request_id, _ = new_ids(kind, self.key)
        return Get(REQUEST.key(request_id, self._caller.tenant))

    async def accept(self, intent: Intent, resource_id: str, body: Model, shard: str, digest: str) -> Request:
        return await self.let_in(intent.kind, self.request(intent, resource_id, body, shard, digest))

    def request(self, intent: Intent, resource_id: str, body: Model, shard: str, digest: str) -> Request:
        request = build_request(
            intent,
            resource_id,
            body,
            key=self.key,
            tenant=self._caller.tenant,
            principal=self._caller.name,
            role=str(self._caller.principal.role),
            shard=shard,
            digest=digest,
            at=self._parts.clock.now(),
            trace_parent=current_trace_parent(),
            meant_for=self._meant_for,
        )
        if self._ask.correlation:
            metadata = request.metadata.model_copy(update={"correlation_id": self._ask.correlation})
            request = request.model_copy(update={"metadata": metadata})
        return request

    async def let_in(self, kind: Kind, request: Request) -> Request:
        try:
            return (await self._parts.acceptance.ask(request)).request
        except Crowded:  # what was let in before has its answer all the same
            if (earlier := await self.repeated(kind, request.spec.digest)) is None:
                raise
            return earlier


def digest_about(subject: str, body: Model) -> str:
    """By which the same ask is known again."""
    return digest_of({"subject": subject, "body": body.to_dict()})


def same_ask(found: KeyValue, digest: str) -> Request:
    """The request that the same key has brought before. Raises `KeyReused` when that asked for something else."""
    stored = cast("Request", decode(REQUEST, found))
    if stored.spec.digest != digest:
        raise KeyReused(stored)
    return stored
