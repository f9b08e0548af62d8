"""A story is kept whole or dropped whole, whatever the trace ids of its parts are."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lablet_common.settings import TelemetrySettings
from lablet_common.telemetry import spans, traces
from lablet_common.telemetry.sampling import ByStory
from lablet_common.telemetry.traces import are_dropped, context_of, current_trace_parent, links_to

Told = Callable[[float], InMemorySpanExporter]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    def sampled(ratio: float) -> InMemorySpanExporter:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ByStory(ratio))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        return exporter

    return sampled


def story() -> str:
    """One story: a call, the decision that continues it, a phase and a batch that link to it. Its `traceparent`."""
    with trace.get_tracer("t").start_as_current_span("call"):
        origin = current_trace_parent()
    assert origin is not None
    with spans.continuing("decide", origin, {}), spans.calling("Txn etcd", {}):
        pass
    with spans.together("commit", [origin], {}), spans.calling("Txn etcd", {}):
        pass
    phases = spans.Phases()
    with phases.within("instance/i", "Running", [origin], {}), spans.calling("GET CML", {}):
        pass
    phases.leave("instance/i")
    return origin


def test_what_continues_a_story_and_what_links_to_it_is_kept_or_dropped_with_it(told: Told) -> None:
    exporter = told(0.3)
    kept = [origin for origin in (story() for _ in range(300)) if origin.endswith(("1", "3"))]
    assert 50 < len(kept) < 130
    assert len(exporter.get_finished_spans()) == 7 * len(kept)


def test_what_belongs_to_a_dropped_story_costs_no_span_at_all(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told(0)
    origin = f"00-{'a' * 32}-{'b' * 16}-00"
    monkeypatch.setattr(spans, "tracer", lambda: pytest.fail("a span is made"))
    with spans.together("commit", [origin, origin], {}), spans.calling("Txn etcd", {}):
        pass
    with spans.continuing("decide", origin, {}):
        assert current_trace_parent() == origin
    phases = spans.Phases()
    with phases.within("instance/i", "Running", [origin], {}):
        pass
    phases.leave_all()


def test_a_batch_with_one_kept_story_in_it_is_kept(told: Told) -> None:
    exporter = told(0)
    dropped, kept = f"00-{'a' * 32}-{'b' * 16}-00", f"00-{'c' * 32}-{'d' * 16}-01"
    with spans.together("commit", [dropped], {}):
        pass
    assert not exporter.get_finished_spans()
    with spans.together("commit", [dropped, kept], {}):
        pass
    (batch,) = exporter.get_finished_spans()
    assert batch.attributes is not None
    assert batch.attributes["lablet.batch.size"] == 2
    assert [link.context.trace_id for link in batch.links] == [int("c" * 32, 16)], (
        "of the other there is nothing to find"
    )


@settings(deadline=None)
@given(
    st.from_regex(r"(00|01|ff)-([0-9a-f]{32}|0{32})-([0-9a-f]{16}|0{16})-[0-9a-f]{2}(-00| )?", fullmatch=True)
    | st.text()
)
def test_a_trace_parent_is_read_as_the_w3c_propagator_reads_it(trace_parent: str) -> None:
    read = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": trace_parent}))
    story = read.get_span_context()
    assert context_of(trace_parent) == (story if story.is_valid else None)
    assert are_dropped([trace_parent]) == (story.is_valid and not story.trace_flags.sampled)


def test_todays_version_is_read_without_the_propagator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_W3C", None)
    kept = context_of(f"00-{'7' * 32}-{'8' * 16}-01")
    assert kept is not None
    assert kept.is_remote


def test_of_a_dropped_story_no_more_is_read_than_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "context_of", lambda _: pytest.fail("it is read"))
    dropped = [f"00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("00", "02")]
    assert are_dropped(dropped)
    assert not links_to(dropped)


@pytest.mark.parametrize(
    ("sampler", "argument", "part"),
    [
        ("parentbased_always_on", 0.1, 1.0),
        ("always_on", 0.1, 1.0),
        ("parentbased_always_off", 0.1, 0.0),
        ("parentbased_traceidratio", 0.1, 0.1),
        ("traceidratio", 0.1, 0.1),
    ],
)
def test_the_standard_variables_choose_how_many(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: float, part: float
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", str(argument))
    assert TelemetrySettings().sampled == part
