"""A story is kept whole or dropped whole, whatever the trace ids of its parts are."""

from collections.abc import Callable

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lablet_common.settings import TelemetrySettings
from lablet_common.telemetry import spans
from lablet_common.telemetry.sampling import ByStory
from lablet_common.telemetry.traces import current_trace_parent

Told = Callable[[float], InMemorySpanExporter]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    def sampled(ratio: float) -> InMemorySpanExporter:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ByStory(ratio))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
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
    monkeypatch.setattr(trace, "get_tracer", lambda _: pytest.fail("a span is made"))
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
