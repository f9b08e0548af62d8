"""Events from outside systems over NATS: each becomes a request of the tenant in its subject, by the doors of the routes.

Only the tenant's own NATS user may publish below `lablet.ingress.<tenant>.`, so the subject proves the tenant. What is
refused is answered on `lablet.ingress-result.<tenant>` to whoever listens at that moment; what is no event, and what makes
the gateway fail, ends in the dead letters. A dependency that is away is waited for, up to a day. Not guaranteed: that a
refusal is heard; the sender who is not listening finds no request for the event.
"""

import logging
from datetime import timedelta
from typing import Any
from uuid import uuid5

from cloudevents.core.v1.event import CloudEvent

from lablet_common.bus import INGRESS_STREAM, Bus, MemoryBus, RetryPolicy
from lablet_common.bus.messages import Received
from lablet_common.events import InvalidEvent
from lablet_common.events.catalogue import IngressRefused, schema_url, type_of
from lablet_common.events.derive import Outgoing, message_id
from lablet_common.events.subjects import ingress_result_subject, unescape
from lablet_common.requests import request_key
from lablet_common.resources.request import Problem
from lablet_gateway.caller import Caller
from lablet_gateway.envelopes import Inbound
from lablet_gateway.faults import refusal_of
from lablet_gateway.identity import Principal, Role
from lablet_gateway.ingress import EventResult, take
from lablet_gateway.parts import Parts
from lablet_gateway.rights import Scope

_log = logging.getLogger(__name__)
NAME = "ingress"
"""Principal of what comes in here: owner of the reservations that are asked for."""
DURABLE = "api-gateway"
_SUBJECT_TOKENS = 4
_DAY = int(timedelta(days=1) / timedelta(minutes=1))
PATIENCE = RetryPolicy(pauses=(0.5, 2.0, 8.0, 30.0, *(60.0,) * _DAY))
_DEFECT_TRIES = 3
"""An event at which the gateway itself fails is given up on after so many."""
_MEMBERS = frozenset(Problem.model_fields) | {"errors"}


class NatsIngress:
    """Takes the work queue while its replica owns the shard."""

    def __init__(self, parts: Parts, bus: Bus | MemoryBus, source: str) -> None:
        self._parts = parts
        self._bus = bus
        self._source = source

    async def run(self) -> None:
        """Until cancelled."""
        consumer = self._bus.consumer(INGRESS_STREAM, DURABLE, ["lablet.ingress.>"], self.handle, policy=PATIENCE)
        await consumer.run()

    async def handle(self, message: Received) -> None:
        """One event. Raises what is tried again, and `InvalidEvent` for what never gets better."""
        tokens = message.subject.split(".")
        if len(tokens) != _SUBJECT_TOKENS:
            raise InvalidEvent(f"{message.subject} is not lablet.ingress.<tenant>.<kind>")
        tenant, event = unescape(tokens[2]), message.event
        caller = Caller(Principal(NAME, Role.MACHINE, tenant), Scope.ALL)
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
        await self._bus.tell(self._refusal(tenant, event, result))

    def _refusal(self, tenant: str, event: CloudEvent, result: EventResult) -> Outgoing:
        body = dict(result.problem or {})
        more = {name: body.pop(name) for name in set(body) - _MEMBERS}
        problem = Problem.model_validate(body | ({"extensions": more} if more else {}))
        told = IngressRefused(event_id=event.get_id(), type=event.get_type(), problem=problem)
        refused = type_of("ingress", "refused")
        answer = f"{event.get_source()} {event.get_id()}"
        answer_id = str(uuid5(request_key(tenant, NAME, refused, answer), answer))
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": answer_id,
            "source": self._source,
            "type": refused,
            "subject": event.get_subject() or f"event/{event.get_id()}",
            "time": self._parts.clock.now(),
            "datacontenttype": "application/json",
            "dataschema": schema_url(refused),
            "tenant": tenant,
            "causationid": event.get_id(),
        }
        correlation = event.get_extension("correlationid")
        if correlation:
            attributes["correlationid"] = str(correlation)
        out = CloudEvent(attributes, told.to_json())
        return Outgoing(ingress_result_subject(tenant), out, message_id(tenant, self._source, answer_id))
