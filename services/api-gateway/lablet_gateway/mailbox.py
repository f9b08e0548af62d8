"""Events from outside systems over NATS: each becomes a request of the tenant in its subject, by the doors of the routes.

Only the tenant's own NATS user may publish below `lablet.ingress.<tenant>.`, so the subject proves the tenant. What is
refused is answered on `lablet.ingress-result.<tenant>` to whoever listens at that moment; what is no event, and what makes
the gateway fail, is answered there too and kept among the dead letters. A dependency that is away is waited for, up to a
day. Not guaranteed: that a refusal is heard; the sender who is not listening finds no request for the event.
"""

import logging
from datetime import timedelta
from typing import Any
from uuid import uuid5

from cloudevents.core.v1.event import CloudEvent

from lablet_common.bus import INGRESS_STREAM, Bus, MemoryBus, RetryPolicy
from lablet_common.bus.connection import TooLarge
from lablet_common.bus.messages import DeadLetter, Received
from lablet_common.events import InvalidEvent
from lablet_common.events.binding import decode_value
from lablet_common.events.catalogue import IngressRefused, schema_url, type_of
from lablet_common.events.derive import MAX_OPTIONAL_LENGTH, Outgoing, message_id
from lablet_common.events.subjects import ingress_result_subject, unescape
from lablet_common.requests import request_key
from lablet_common.resources.request import Problem
from lablet_gateway import problems
from lablet_gateway.caller import Caller
from lablet_gateway.envelopes import Inbound
from lablet_gateway.faults import refusal_of
from lablet_gateway.identity import INGRESS, Principal, Role
from lablet_gateway.ingress import EventResult, take
from lablet_gateway.parts import Parts
from lablet_gateway.rights import Scope

_log = logging.getLogger(__name__)
DURABLE = "api-gateway"
_SUBJECT_TOKENS = 4
_DAY = int(timedelta(days=1) / timedelta(minutes=1))
PATIENCE = RetryPolicy(pauses=(0.5, 2.0, 8.0, 30.0, *(60.0,) * _DAY))
_DEFECT_TRIES = 3
"""An event at which the gateway itself fails is given up on after so many."""
_MOST_ERRORS = 20
_MEMBERS = frozenset(Problem.model_fields) | {"errors"}


class NatsIngress:
    """Takes the work queue while its replica owns the shard."""

    def __init__(self, parts: Parts, bus: Bus | MemoryBus, source: str) -> None:
        self._parts = parts
        self._bus = bus
        self._source = source

    async def run(self) -> None:
        """Until cancelled."""
        consumer = self._bus.consumer(
            INGRESS_STREAM, DURABLE, ["lablet.ingress.>"], self.handle, policy=PATIENCE, buried=self._given_up
        )
        await consumer.run()

    async def handle(self, message: Received) -> None:
        """One event. Raises what is tried again, and `InvalidEvent` for what never gets better."""
        tokens = message.subject.split(".")
        if len(tokens) != _SUBJECT_TOKENS:
            raise InvalidEvent(f"{message.subject} is not lablet.ingress.<tenant>.<kind>")
        tenant, event = unescape(tokens[2]), message.event
        caller = Caller(Principal(INGRESS, Role.MACHINE, tenant), Scope.ALL)
        known = {"tenant": tenant, "event": event.get_id(), "event_type": event.get_type()}
        try:
            result = await take(self._parts, caller, Inbound(event, None, event.get_id(), event.get_source()))
        except Exception as error:
            if refusal_of(error) is None and message.deliveries >= _DEFECT_TRIES:
                raise InvalidEvent(f"the gateway fails at it: {type(error).__name__}: {error}") from error
            raise
        if result.problem is None:
            _log.info("event taken", extra=known | {"result": result.result, "request": result.request})
            return
        _log.info("event refused", extra=known | {"detail": result.problem.get("detail")})
        await self._tell(self._refusal(tenant, event, result))

    async def _given_up(self, letter: DeadLetter) -> None:
        """Tells the sender, as far as anything can be read of who that is."""
        tokens = letter.subject.split(".")
        tenant = unescape(tokens[2]) if len(tokens) > 2 else ""
        headers = {name.lower(): value for name, value in letter.headers.items()}
        event_id, event_type = (_readable(headers.get(name, "")) for name in ("ce-id", "ce-type"))
        problem = problems.INVALID(letter.reason, deadLetter=letter.id).problem
        told = IngressRefused(event_id=_short(event_id), type=_short(event_type), problem=_bounded(problem))
        extra = {"tenant": tenant, "event": event_id, "reason": letter.reason}
        _log.info("what came in has been given up on", extra=extra)
        await self._tell(self._answer(tenant, told, letter.id))

    async def _tell(self, answer: Outgoing) -> None:
        """Raises `BusUnavailable`, upon which the event is handled again. One that never will get through is no reason for
        that: nobody was promised to hear it."""
        try:
            await self._bus.tell(answer)
        except TooLarge as error:
            _log.warning("a refusal cannot be told", extra={"cause": str(error)})

    def _refusal(self, tenant: str, event: CloudEvent, result: EventResult) -> Outgoing:
        body = dict(result.problem or {})
        more = {name: body.pop(name) for name in set(body) - _MEMBERS}
        problem = Problem.model_validate(body | ({"extensions": more} if more else {}))
        told = IngressRefused(event_id=_short(event.get_id()), type=_short(event.get_type()), problem=_bounded(problem))
        answer = f"{event.get_source()} {event.get_id()}"
        return self._answer(tenant, told, answer, event)

    def _answer(self, tenant: str, told: IngressRefused, answer: str, event: CloudEvent | None = None) -> Outgoing:
        refused = type_of("ingress", "refused")
        answer_id = str(uuid5(request_key(tenant, INGRESS, refused, answer), answer))
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": answer_id,
            "source": self._source,
            "type": refused,
            "subject": _short((event and event.get_subject()) or f"event/{told.event_id or 'unreadable'}"),
            "time": self._parts.clock.now(),
            "datacontenttype": "application/json",
            "dataschema": schema_url(refused),
            "tenant": tenant,
        }
        if told.event_id:
            attributes["causationid"] = told.event_id
        correlation = event.get_extension("correlationid") if event is not None else None
        if correlation:
            attributes["correlationid"] = _short(str(correlation))
        out = CloudEvent(attributes, told.to_json())
        return Outgoing(ingress_result_subject(tenant), out, message_id(tenant, self._source, answer_id))


def _readable(value: str) -> str:
    """A header's text; as it came, where it cannot be decoded."""
    try:
        return decode_value(value)
    except InvalidEvent:
        return value


def _short(text: str) -> str:
    """An answer repeats what the sender wrote, and must not become larger than a message may be."""
    return text if len(text) <= MAX_OPTIONAL_LENGTH else f"{text[: MAX_OPTIONAL_LENGTH - 1]}…"


def _bounded(problem: Problem) -> Problem:
    """The problem with as much of what the sender wrote as helps to find it."""
    errors = [{name: _short(text) for name, text in one.items()} for one in problem.errors[:_MOST_ERRORS]]
    if (left := len(problem.errors) - _MOST_ERRORS) > 0:
        errors.append(problems.field_error("errors", f"there are {left} more"))
    more = {name: _short(value) if isinstance(value, str) else value for name, value in problem.extensions.items()}
    return problem.model_copy(update={"detail": _short(problem.detail), "errors": tuple(errors), "extensions": more})
