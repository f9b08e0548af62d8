"""Traces: spans over OTLP when an endpoint is set, and the W3C context that travels in resources and events.

A reservation made today and run next week is not one trace: each phase starts its own and links to the span stored in
the resource (`metadata.traceParent`).
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lablet_common.settings import TelemetrySettings
from lablet_common.telemetry.sampling import ByStory
from lablet_common.version import __version__

_W3C = TraceContextTextMapPropagator()


def configure_tracing(settings: TelemetrySettings, service: str, replica: str) -> TracerProvider | None:
    """Exports spans to the collector named by `OTEL_EXPORTER_OTLP_ENDPOINT`; None where none is set (spans then cost
    next to nothing)."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(
        sampler=ByStory(settings.sampled),
        resource=Resource.create(
            {
                "service.name": service,
                "service.namespace": "lablet",
                "service.instance.id": replica,
                "service.version": __version__,
            }
        ),
    )
    endpoint = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    return provider


def current_trace_parent() -> str | None:
    """The W3C `traceparent` of the running span; None outside of one."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


@lru_cache(maxsize=4096)
def context_of(trace_parent: str | None) -> SpanContext | None:
    """The span that a `traceparent` names; None for one that is missing or malformed. The same few stories are asked for
    again and again."""
    if not trace_parent:
        return None
    carrier: Mapping[str, str] = {"traceparent": trace_parent}
    context = trace.get_current_span(_W3C.extract(carrier)).get_span_context()
    return context if context.is_valid else None


def are_dropped(trace_parents: Iterable[str | None]) -> bool:
    """Whether they name stories, and none that is kept: then what links to them is not kept either, and no span need be
    made to find that out."""
    named = [context for one in trace_parents if (context := context_of(one)) is not None]
    return bool(named) and not any(context.trace_flags.sampled for context in named)


def link_to(trace_parent: str | None) -> list[Link]:
    """A link to the span stored in a resource, for a phase that starts a trace of its own."""
    context = context_of(trace_parent)
    return [Link(context)] if context else []
