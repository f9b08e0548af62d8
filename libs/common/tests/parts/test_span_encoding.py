"""Our encoder says what the SDK's says, of every kind of span; plain spans it encodes itself."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from lablet_common.telemetry import export
from lablet_common.telemetry.export import encoded

_values = st.one_of(
    st.text(st.characters(), max_size=12),  # lone surrogates too, which no message holds
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=3), max_size=2),
)
_contexts = st.builds(
    SpanContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.just(TraceFlags(TraceFlags.SAMPLED)),
    trace_state=st.sampled_from([None, TraceState([("vendor", "x")])]),
)
_links = st.builds(Link, _contexts, st.sampled_from([None, {"why": "retry"}]))
_spans = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["lablet", "fastapi"]),
        "name": st.text(max_size=8),
        "kind": st.sampled_from(SpanKind),
        "parent": st.none() | _contexts,
        "attributes": st.dictionaries(st.text(min_size=1, max_size=6), _values, max_size=5),
        "links": st.lists(_links, max_size=4),
        "status": st.sampled_from([StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR]),
        "raises": st.booleans(),
    }
)


def told(wanted: Sequence[Mapping[str, Any]]) -> Sequence[ReadableSpan]:
    """The spans as the SDK hands them to an exporter; no more than three attributes and links of each."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "scheduler", "process.pid": 7}),
        span_limits=SpanLimits(max_span_attributes=3, max_links=3),
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for one in wanted:
        parent = one["parent"]
        under = trace.set_span_in_context(trace.NonRecordingSpan(parent)) if parent else None
        span = provider.get_tracer(one["scope"], schema_url="https://example.org/1").start_span(
            one["name"], under, one["kind"], one["attributes"], one["links"]
        )
        span.set_status(Status(one["status"], "no room" if one["status"] is StatusCode.ERROR else None))
        if one["raises"]:
            span.record_exception(ValueError("no"))
        span.end()
    provider.shutdown()
    return exporter.get_finished_spans()


@settings(deadline=None)
@given(st.lists(_spans, min_size=1, max_size=8))
def test_it_says_what_the_sdks_says(wanted: list[Mapping[str, Any]]) -> None:
    logging.disable(logging.CRITICAL)  # the SDK tells of what it leaves out
    try:
        spans = told(wanted)
        assert encoded(spans) == encode_spans(spans)
    finally:
        logging.disable(logging.NOTSET)


HERE = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1))
ELSEWHERE = SpanContext(9, 10, is_remote=True, trace_flags=TraceFlags(1))
PLAIN: Mapping[str, Any] = {
    "scope": "lablet", "name": "decide", "kind": SpanKind.INTERNAL, "parent": None, "status": StatusCode.UNSET,
    "raises": False, "attributes": {"lablet.pool": "default", "lablet.batch.size": 3}, "links": [Link(ELSEWHERE)],
}  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        {"scope": "fastapi"}, {"kind": SpanKind.CLIENT}, {"status": StatusCode.ERROR}, {"parent": HERE},
        {"parent": ELSEWHERE}, {"links": [Link(HERE)]}, {"links": [Link(HERE)] * 4},
        {"attributes": {name: name for name in "abcd"}}, {"attributes": {"a": True, "b": 1, "c": 1.0}},
        {"raises": True}, {"parent": SpanContext(1, 2, True, TraceFlags(1), TraceState([("vendor", "x")]))},
        {"links": [Link(HERE, {"why": "retry"})]}, {"attributes": {"a": ["x"]}}, {"attributes": {"a": "\ud800"}},
        {"attributes": {"a": 2**70}},
    ],
)  # fmt: skip
def test_it_says_all_that_a_span_may_have(more: Mapping[str, Any]) -> None:
    spans = told([PLAIN, {**PLAIN, **more}])
    assert encoded(spans) == encode_spans(spans)


def test_of_plain_spans_the_sdk_encodes_the_first_of_each_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = told([{**PLAIN, "scope": scope} for scope in ("lablet", "fastapi") * 20])
    by_sdk = list[ReadableSpan]()

    def counted(some: Sequence[ReadableSpan]) -> Any:
        by_sdk.extend(some)
        return encode_spans(some)

    monkeypatch.setattr(export, "encode_spans", counted)
    message = encoded(spans)
    assert by_sdk == list(spans[:2])
    assert [len(scope.spans) for scope in message.resource_spans[0].scope_spans] == [20, 20]
