"""Spans: what continues a trace, what starts one and links, and that calls are told only below a recorded span."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from lablet_common.telemetry import spans

ORIGIN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = 0x0AF7651916CD43DD8448EB211C80319C


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def only(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = (span for span in exporter.get_finished_spans() if span.name == name)
    return found


def test_a_decision_is_part_of_the_requests_trace(told: InMemorySpanExporter) -> None:
    with spans.continuing("decide", ORIGIN, {"lablet.subject": "reservation/rsv-1"}):
        pass
    found = only(told, "decide")
    assert found.context is not None
    assert found.context.trace_id == TRACE
    assert found.parent is not None
    assert found.parent.span_id == 0xB7AD6B7169203331


def test_a_span_takes_the_name_of_what_it_turned_out_to_be(told: InMemorySpanExporter) -> None:
    spans.named("nobody", {})
    with spans.together("POST", [], {}):
        spans.named("POST /api/v1/reservations", {"http.route": "/api/v1/reservations"})
    found = only(told, "POST /api/v1/reservations")
    assert found.attributes is not None
    assert found.attributes["http.route"] == "/api/v1/reservations"


def test_a_batch_links_to_each_of_its_requests_once(told: InMemorySpanExporter) -> None:
    with spans.together("commit", [ORIGIN, None, ORIGIN], {}):
        pass
    found = only(told, "commit")
    assert found.context is not None
    assert found.context.trace_id != TRACE
    assert [link.context.trace_id for link in found.links] == [TRACE]


def test_calls_are_told_below_a_recorded_span_and_nowhere_else(told: InMemorySpanExporter) -> None:
    with spans.calling("Txn etcd", {}):
        pass
    assert not told.get_finished_spans()
    with pytest.raises(OSError, match="away"), spans.continuing("decide", ORIGIN, {}), spans.calling("Txn etcd", {}):
        raise OSError("away")
    call = only(told, "Txn etcd")
    assert call.status.status_code is StatusCode.ERROR
    assert call.parent == only(told, "decide").context


def test_a_phase_is_one_span_over_all_its_steps_and_links_to_the_origin(told: InMemorySpanExporter) -> None:
    phases = spans.Phases()
    for _ in range(3):
        with phases.within("instance/ins-1", "Instantiating", [ORIGIN], {}), spans.calling("POST CML", {}):
            pass
    assert not [span for span in told.get_finished_spans() if span.name == "instance Instantiating"]
    phases.leave("instance/ins-1", "EveryPortAnswers")
    phase = only(told, "instance Instantiating")
    assert [link.context.trace_id for link in phase.links] == [TRACE]
    assert phase.attributes is not None
    assert phase.attributes["lablet.reason"] == "EveryPortAnswers"
    calls = [span for span in told.get_finished_spans() if span.name == "POST CML"]
    assert [call.parent for call in calls] == [phase.context] * 3


def test_a_phase_that_another_process_ended_ends_with_the_next(told: InMemorySpanExporter) -> None:
    phases = spans.Phases()
    for phase in ("Instantiating", "Running"):
        with phases.within("instance/ins-1", phase, [ORIGIN], {}):
            pass
    phases.leave("instance/ins-1", "gone", failed=True)
    assert only(told, "instance Instantiating").status.status_code is StatusCode.UNSET
    assert only(told, "instance Running").status.status_code is StatusCode.ERROR
    phases.leave("instance/ins-1")


def test_without_a_collector_nothing_is_kept() -> None:
    phases = spans.Phases()
    with phases.within("instance/ins-1", "Running", [ORIGIN], {}), spans.continuing("decide", ORIGIN, {}):
        assert not trace.get_current_span().is_recording()
    phases.leave_all()


def test_the_sdk_is_asked_once_for_what_makes_spans(
    told: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, provider = list[str](), trace.get_tracer_provider()
    by_sdk = provider.get_tracer

    def counted(name: str) -> trace.Tracer:
        asked.append(name)
        return by_sdk(name)

    monkeypatch.setattr(provider, "get_tracer", counted)
    for _ in range(3):
        with spans.together("commit", [ORIGIN], {}), spans.calling("Txn etcd", {}):
            pass
    assert len(told.get_finished_spans()) == 6
    assert asked == ["lablet"]
