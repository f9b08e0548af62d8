"""Traces: spans over OTLP when an endpoint is set, and the W3C context that travels in resources and events.

A reservation made today and run next week is not one trace: each phase starts its own and links to the span stored in
the resource (`metadata.traceParent`).
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lablet_common.settings import TelemetrySettings
from lablet_common.telemetry.sampling import ByStory
from lablet_common.version import __version__

_W3C = TraceContextTextMapPropagator()
_IDS = "00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-"
_LONGEST = 512
"""Characters of a `traceparent`, as the propagator takes them: strangers send it, and what was read is remembered."""
_VERSION_0 = re.compile(_IDS + "([0-9a-f]{2})").fullmatch
"""A `traceparent` as W3C defines it today (https://www.w3.org/TR/trace-context). Later versions are left to the propagator,
which takes twice as long."""
_NOT_SAMPLED = re.compile(_IDS + "[0-9a-f][02468ace]").fullmatch
"""One without the flag *sampled*. Most are such, and each is met once or twice: to look takes a quarter of reading it."""


def configure_tracing(settings: TelemetrySettings, service: str, replica: str) -> TracerProvider | None:
    """Exports spans to the collector named by `OTEL_EXPORTER_OTLP_ENDPOINT`; None where none is set (spans then cost
    next to nothing)."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from lablet_common.telemetry.export import SpanSender

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
    provider.add_span_processor(BatchSpanProcessor(SpanSender(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    return provider


def current_trace_parent() -> str | None:
    """The W3C `traceparent` of the running span; None outside of one."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def context_of(trace_parent: str | None) -> SpanContext | None:
    """The span that a `traceparent` names; None for one that is missing or malformed."""
    if not trace_parent or len(trace_parent) > _LONGEST:
        return None
    return _context_of(trace_parent)


@lru_cache(maxsize=4096)
def _context_of(trace_parent: str) -> SpanContext | None:
    """The same few stories are asked for again and again."""
    if found := _VERSION_0(trace_parent):
        trace_id, span_id, flags = (int(word, 16) for word in found.groups())
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    carrier: Mapping[str, str] = {"traceparent": trace_parent}
    context = trace.get_current_span(_W3C.extract(carrier)).get_span_context()
    return context if context.is_valid else None


def are_dropped(trace_parents: Iterable[str | None]) -> bool:
    """Whether they name stories, and none that is kept: then what links to them is not kept either, and no span need be
    made to find that out."""
    named = False
    for one in trace_parents:
        if one and _NOT_SAMPLED(one):
            named = True
        elif (context := context_of(one)) is not None:
            if context.trace_flags.sampled:
                return False
            named = True
    return named


def links_to(trace_parents: Iterable[str | None]) -> list[Link]:
    """A link to each of the stories that are kept, once, for what starts a trace of its own. Of the others there is no span
    to be found."""
    kept = (one for one in dict.fromkeys(trace_parents) if one and not _NOT_SAMPLED(one))
    return [Link(context) for one in kept if (context := context_of(one)) is not None and context.trace_flags.sampled]
