"""The hop's context in the header, the origin in the extension, and links between them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from lablet_common.bus import Received
from lablet_common.bus.messages import publishable, received
from lablet_common.bus.tracing import processing, publishing
from lablet_common.events import Outgoing

Make = Callable[..., Outgoing]
ORIGIN = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def through(out: Outgoing) -> Received:
    with publishing(out) as parent:
        headers, payload = publishable(out, parent)
    return received(out.subject, headers, payload)


def test_publish_and_process_are_linked_and_the_origin_is_kept(make: Make, spans: InMemorySpanExporter) -> None:
    message = through(make(traceparent=ORIGIN, correlationid="req-1"))
    with processing(message, "scheduler-east"):
        pass
    publish, process = spans.get_finished_spans()
    template = "lablet.intent.scheduler.{pool}.reservation.{id}"
    assert (publish.name, publish.kind) == (f"publish {template}", SpanKind.PRODUCER)
    assert (process.name, process.kind) == (f"process {template}", SpanKind.CONSUMER)
    assert message.event.get_extension("traceparent") == ORIGIN
    assert message.trace_parent is not None
    assert f"{publish.context.span_id:016x}" in message.trace_parent
    assert [f"{link.context.trace_id:032x}" for link in publish.links] == ["a" * 32]
    assert [link.context.span_id for link in process.links] == [publish.context.span_id, int("b" * 16, 16)]
    assert process.parent is None


def test_spans_say_what_the_messaging_conventions_ask_for(make: Make, spans: InMemorySpanExporter) -> None:
    out = make(correlationid="req-1")
    with processing(through(out), "scheduler-east"):
        pass
    publish, process = ({str(key): value for key, value in (span.attributes or {}).items()} for span in
                        spans.get_finished_spans())  # fmt: skip
    shared = {
        "messaging.system": "nats",
        "messaging.destination.name": "lablet.intent.scheduler.east.reservation.rsv-1",
        "messaging.destination.template": "lablet.intent.scheduler.{pool}.reservation.{id}",
        "messaging.message.conversation_id": "req-1",
        "cloudevents.event_id": "intent/rsv-1/1",
        "cloudevents.event_type": "io.lablet.reservation.cancel.requested.v1",
        "cloudevents.event_source": "/lablet/api-gateway",
    }
    assert publish == shared | {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.message.id": out.msg_id,
    }
    assert process == shared | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "scheduler-east",
    }


def test_a_failing_handler_marks_its_span(make: Make, spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"), processing(through(make()), "c"):
        raise ValueError("no")
    assert not spans.get_finished_spans()[-1].status.is_ok


def test_without_tracing_nothing_is_added(make: Make) -> None:
    message = through(make(traceparent=ORIGIN))
    assert message.trace_parent is None
    with processing(message, "c"):
        assert not trace.get_current_span().get_span_context().is_valid


def test_a_story_that_is_not_kept_travels_on_without_a_span(make: Make, spans: InMemorySpanExporter) -> None:
    dropped = ORIGIN[:-2] + "00"
    message = through(make(traceparent=dropped))
    assert message.trace_parent == dropped
    with processing(message, "c"):
        assert not trace.get_current_span().is_recording()
    assert not spans.get_finished_spans()


def test_malformed_contexts_are_passed_over(make: Make, spans: InMemorySpanExporter) -> None:
    message = through(make(traceparent="nonsense"))
    with processing(message, "c"):
        pass
    assert len(spans.get_finished_spans()[-1].links) == 1


async def test_spans_of_messages_handled_side_by_side_stay_apart(make: Make, spans: InMemorySpanExporter) -> None:
    async def one(name: str) -> Any:
        with processing(through(make(name)), "c"):
            await asyncio.sleep(0)
            return trace.get_current_span().attributes["cloudevents.event_id"]

    tasks: list[Awaitable[Any]] = [one("a"), one("b")]
    assert await asyncio.gather(*tasks) == ["intent/a/1", "intent/b/1"]
