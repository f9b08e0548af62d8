"""Spans around publishing and processing, by the OpenTelemetry messaging conventions.

The hop's context travels in the header `traceparent`; the event's extension of that name is the origin and is never
rewritten. Processing starts a trace of its own that links to both, for one message may lie in a stream for days. Where no
tracing is configured, none of this costs anything to speak of.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanKind

from lablet_common.bus.messages import Received
from lablet_common.events.derive import Outgoing
from lablet_common.telemetry.spans import tracing
from lablet_common.telemetry.traces import context_of, current_trace_parent

_SYSTEM = {"messaging.system": "nats"}


@contextmanager
def publishing(outgoing: Outgoing, destination: str) -> Iterator[str | None]:
    """A span around one publish; gives the `traceparent` for the message's header."""
    if not tracing():
        yield current_trace_parent()
        return
    event = outgoing.event
    attributes = _SYSTEM | {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "publish",
        "messaging.destination.name": outgoing.subject,
        "messaging.destination.template": destination,
        "messaging.message.id": outgoing.msg_id,
        "cloudevents.event_id": event.get_id(),
        "cloudevents.event_type": event.get_type(),
        "cloudevents.event_source": event.get_source(),
    }
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span(
        f"publish {destination}",
        kind=SpanKind.PRODUCER,
        attributes=attributes,
        links=_links(event.get_extension("traceparent")),
    ):
        yield current_trace_parent()


@contextmanager
def processing(message: Received, consumer: str) -> Iterator[None]:
    """A span around one handler, the root of a trace that links to the publish and to the origin."""
    if not tracing():
        yield
        return
    event = message.event
    attributes = _SYSTEM | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.subject,
        "messaging.consumer.group.name": consumer,
        "cloudevents.event_id": event.get_id(),
        "cloudevents.event_type": event.get_type(),
        "cloudevents.event_source": event.get_source(),
    }
    correlation = event.get_extension("correlationid")
    if correlation:
        attributes["messaging.message.conversation_id"] = str(correlation)
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span(
        f"process {consumer}",
        context=context.Context(),
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        links=_links(message.trace_parent, event.get_extension("traceparent")),
    ):
        yield


def _links(*trace_parents: str | None) -> list[Link]:
    found = (context_of(parent) for parent in dict.fromkeys(trace_parents))
    return [Link(one) for one in found if one is not None]
