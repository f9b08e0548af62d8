"""Spans around publishing and processing, by the OpenTelemetry messaging conventions.

A span is named by its operation and the template of its subject (`publish lablet.event.{tenant}.reservation.{pool}.{id}`).
The hop's context travels in the header `traceparent`; the event's extension of that name is the origin and is never
rewritten. Processing starts a trace of its own that links to both, for one message may lie in a stream for days. Where no
tracing is configured, none of this costs anything to speak of.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from cloudevents.core.v1.event import CloudEvent
from opentelemetry import context
from opentelemetry.trace import SpanKind

from lablet_common.bus.messages import Received
from lablet_common.events.derive import Outgoing
from lablet_common.events.subjects import template_of
from lablet_common.telemetry.spans import tracing, within_span
from lablet_common.telemetry.traces import are_dropped, current_trace_parent, links_to


@contextmanager
def publishing(outgoing: Outgoing) -> Iterator[str | None]:
    """A span around one publish; gives the `traceparent` for the message's header."""
    if not tracing():
        yield current_trace_parent()
        return
    event = outgoing.event
    origin = event.get_extension("traceparent")
    if are_dropped([origin]):
        yield origin
        return
    destination = template_of(outgoing.subject)
    attributes = _described(event, outgoing.subject, destination) | {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.message.id": outgoing.msg_id,
    }
    with within_span(f"publish {destination}", attributes, kind=SpanKind.PRODUCER, links=links_to([origin])):
        yield current_trace_parent()


@contextmanager
def processing(message: Received, consumer: str) -> Iterator[None]:
    """A span around one handler, the root of a trace that links to the publish and to the origin."""
    if not tracing():
        yield
        return
    event = message.event
    origins = (message.trace_parent, event.get_extension("traceparent"))
    if are_dropped(origins):
        yield
        return
    destination = template_of(message.subject)
    attributes = _described(event, message.subject, destination) | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": consumer,
    }
    with within_span(
        f"process {destination}",
        attributes,
        kind=SpanKind.CONSUMER,
        under=context.Context(),
        links=links_to(origins),
    ):
        yield


def _described(event: CloudEvent, subject: str, destination: str) -> dict[str, str]:
    """What sender and receiver say alike."""
    words = {
        "messaging.system": "nats",
        "messaging.destination.name": subject,
        "messaging.destination.template": destination,
        "cloudevents.event_id": event.get_id(),
        "cloudevents.event_type": event.get_type(),
        "cloudevents.event_source": event.get_source(),
    }
    correlation = event.get_extension("correlationid")
    return words | {"messaging.message.conversation_id": str(correlation)} if correlation else words
