"""Spans on their way to the collector.

The SDK's exporter sends them, tries again and reads the standard settings. Its encoder was half of what a kept span costs:
it makes two messages for each attribute and copies all of them several times. Plain spans are therefore filled in from plain
values, in less than half of the time; what has more to it (an exception, an attribute that is a list) the SDK encodes. A test
holds both ways to the same message.
"""

from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind

_KINDS = {
    SpanKind.INTERNAL: Encoded.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Encoded.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Encoded.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: Encoded.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: Encoded.SPAN_KIND_CONSUMER,
}
_VALUES = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
_HERE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_ELSEWHERE = _HERE | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class SpanSender(OTLPSpanExporter):
    """OTLP over HTTP, as the SDK's, with the encoder below."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends them; what cannot be sent is told in the log and lost."""
        sent = self._client.export(encoded(spans).SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def encoded(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """The message that carries the spans of one process: one resource, a group for each of its scopes."""
    message = ExportTraceServiceRequest()
    groups = dict[int, ScopeSpans]()
    for span in spans:
        scope = id(span.instrumentation_scope)
        group = groups.get(scope)
        if group is not None:
            group.spans.append(_plain(span) or _by_sdk(span).scope_spans[0].spans[0])
            continue
        if groups:
            message.resource_spans[0].scope_spans.extend(_by_sdk(span).scope_spans)
        else:
            message.resource_spans.append(_by_sdk(span))
        groups[scope] = message.resource_spans[0].scope_spans[-1]
    return message


def _by_sdk(span: ReadableSpan) -> ResourceSpans:
    """The span with its scope and resource."""
    (told,) = encode_spans([span]).resource_spans
    return told


def _plain(span: ReadableSpan) -> Encoded | None:
    """The span as a message; None where there is more to it."""
    context, status = span.context, span.status
    if context is None or context.trace_state or span.events or any(link.attributes for link in span.links):
        return None
    try:
        fields: dict[str, Any] = {
            "trace_id": context.trace_id.to_bytes(16, "big"),
            "span_id": context.span_id.to_bytes(8, "big"),
            "parent_span_id": span.parent.span_id.to_bytes(8, "big") if span.parent else None,
            "flags": _flags(span.parent),
            "name": span.name,
            "kind": _KINDS[span.kind],
            "start_time_unix_nano": span.start_time,
            "end_time_unix_nano": span.end_time,
            "attributes": [
                {"key": key, "value": {_VALUES[type(value)]: value}} for key, value in (span.attributes or {}).items()
            ],
            "links": [_link(one.context) for one in span.links],
            "status": {"code": status.status_code.value, "message": status.description},
            "dropped_attributes_count": span.dropped_attributes,
            "dropped_links_count": span.dropped_links,
        }
        return Encoded(**fields)
    except (KeyError, ValueError):  # a value that is no such plain one, or that no message can hold
        return None


def _link(context: SpanContext) -> dict[str, Any]:
    return {
        "trace_id": context.trace_id.to_bytes(16, "big"),
        "span_id": context.span_id.to_bytes(8, "big"),
        "flags": _flags(context),
    }


def _flags(context: SpanContext | None) -> int:
    return _ELSEWHERE if context is not None and context.is_remote else _HERE
