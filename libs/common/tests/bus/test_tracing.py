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
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    yield exporter
    provider.shutdown()


def through(out: Outgoing, destination: str) -> Received:
    with publishing(out, destination) as parent:
        headers, payload = publishable(out, parent)
    return received(out.subject, headers, payload)


def test_publish_and_process_are_linked_and_the_origin_is_kept(make: Make, spans: InMemorySpanExporter) -> None:
    message = through(make(traceparent=ORIGIN, correlationid="req-1"), "INTENTS_SCHEDULER")
    with processing(message, "scheduler-east"):
        pass
    publish, process = spans.get_finished_spans()
    assert (publish.name, publish.kind) == ("publish INTENTS_SCHEDULER", SpanKind.PRODUCER)
    assert (process.name, process.kind) == ("process scheduler-east", SpanKind.CONSUMER)
    assert message.event.get_extension("traceparent") == ORIGIN
    assert message.trace_parent is not None
    assert f"{publish.context.span_id:016x}" in message.trace_parent
    assert [f"{link.context.trace_id:032x}" for link in publish.links] == ["a" * 32]
    assert [link.context.span_id for link in process.links] == [publish.context.span_id, int("b" * 16, 16)]
    assert process.parent is None
    assert process.attributes["messaging.system"] == "nats"
    assert process.attributes["messaging.message.conversation_id"] == "req-1"


def test_a_failing_handler_marks_its_span(make: Make, spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"), processing(through(make(), "EVENTS"), "c"):
        raise ValueError("no")
    assert not spans.get_finished_spans()[-1].status.is_ok


def test_without_tracing_nothing_is_added(make: Make) -> None:
    message = through(make(traceparent=ORIGIN), "EVENTS")
    assert message.trace_parent is None
    with processing(message, "c"):
        assert not trace.get_current_span().get_span_context().is_valid


def test_malformed_contexts_are_passed_over(make: Make, spans: InMemorySpanExporter) -> None:
    message = through(make(traceparent="nonsense"), "EVENTS")
    with processing(message, "c"):
        pass
    assert len(spans.get_finished_spans()[-1].links) == 1


async def test_spans_of_messages_handled_side_by_side_stay_apart(make: Make, spans: InMemorySpanExporter) -> None:
    async def one(name: str) -> Any:
        with processing(through(make(name), "EVENTS"), name):
            await asyncio.sleep(0)
            return trace.get_current_span().name

    tasks: list[Awaitable[Any]] = [one("a"), one("b")]
    assert await asyncio.gather(*tasks) == ["process a", "process b"]
