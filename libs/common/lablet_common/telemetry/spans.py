"""Spans around what services do. Without tracing configured none of this costs anything to speak of.

A decision continues the trace of the request that it answers. What happens later (a phase of a lab, a machine that boots)
starts a trace of its own and links to the span stored in the resource, so that the story of a reservation is the trace of
its request and all traces that link to it. Calls to etcd, S3, providers and runtimes are told where a recorded span is
under way and nowhere else: polls of things at rest leave no trace.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

from opentelemetry import context, trace
from opentelemetry.trace import Link, ProxyTracerProvider, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from lablet_common.telemetry.traces import are_dropped, context_of, links_to

Attributes = Mapping[str, AttributeValue]
_TRACER = "lablet"
_NOTHING: AbstractContextManager[None] = nullcontext()
_CHOSEN_OUTSIDE = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


def tracing() -> bool:
    """Whether anybody collects spans. Asked several times for each event, and as long as nobody does, OpenTelemetry looks
    into the environment each time: so it is asked only where a provider has been set."""
    if getattr(trace, "_TRACER_PROVIDER", trace) is None and not _CHOSEN_OUTSIDE:
        return False
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def tracer() -> Tracer:
    """What makes our spans."""
    return _tracer_of(trace.get_tracer_provider())


@lru_cache(maxsize=1)
def _tracer_of(provider: TracerProvider) -> Tracer:
    """Kept, as the SDK enters a filter of warnings each time it is asked for one."""
    return provider.get_tracer(_TRACER)


def within_span(
    name: str,
    attributes: Attributes,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    under: context.Context | None = None,
    links: Sequence[Link] = (),
) -> AbstractContextManager[Span]:
    """A span that begins now and ends with the block, and is the one under way in it; an error marks it. `under`: whose part
    it is, None for the span under way."""
    span = tracer().start_span(name, under, kind, attributes, links)
    return trace.use_span(span, end_on_exit=True)


def calling(name: str, attributes: Attributes) -> AbstractContextManager[object]:
    """A call to something else, as part of the span under way; an error marks it."""
    if not trace.get_current_span().is_recording():
        return _NOTHING
    return within_span(name, attributes, kind=SpanKind.CLIENT)


def named(name: str, attributes: Attributes) -> None:
    """What the span under way turned out to be."""
    span = trace.get_current_span()
    if span.is_recording():
        span.update_name(name)
        span.set_attributes(dict(attributes))


def noted(attributes: Attributes) -> None:
    """What the span under way tells, instead of what it would."""
    trace.get_current_span().set_attributes(dict(attributes))


def continuing(name: str, trace_parent: str | None, attributes: Attributes) -> AbstractContextManager[None]:
    """Work that belongs to the span named by `trace_parent`, in another process or later."""
    return _continuing(name, trace_parent, attributes) if tracing() else _NOTHING


@contextmanager
def _continuing(name: str, trace_parent: str | None, attributes: Attributes) -> Iterator[None]:
    origin = context_of(trace_parent)
    if origin is not None and not origin.trace_flags.sampled:
        with trace.use_span(trace.NonRecordingSpan(origin)):
            yield
        return
    under = trace.set_span_in_context(trace.NonRecordingSpan(origin)) if origin else context.Context()
    with within_span(name, attributes, under=under):
        yield


def together(name: str, trace_parents: Iterable[str | None], attributes: Attributes) -> AbstractContextManager[None]:
    """Work for several at once: a trace of its own that links to each of them that is kept."""
    return _together(name, trace_parents, attributes) if tracing() else _NOTHING


@contextmanager
def _together(name: str, trace_parents: Iterable[str | None], attributes: Attributes) -> Iterator[None]:
    parents = dict.fromkeys(trace_parents)
    if are_dropped(parents):
        yield
        return
    words = {"lablet.batch.size": sum(map(bool, parents)), **attributes}
    with within_span(name, words, under=context.Context(), links=links_to(parents)):
        yield


class Phases:
    """One open span for each resource that is being brought from one phase to the next, as this process sees it. It begins
    when the phase is first worked on here and ends when the phase does; a crash takes the open ones along."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, Span]] = {}

    def within(
        self, key: str, phase: str, origins: Iterable[str | None], attributes: Attributes
    ) -> AbstractContextManager[None]:
        """A step of that phase: calls made in it are told below the phase's span, which links to `origins` (looked at only
        where the span begins)."""
        return self._within(key, phase, origins, attributes) if tracing() else _NOTHING

    @contextmanager
    def _within(self, key: str, phase: str, origins: Iterable[str | None], attributes: Attributes) -> Iterator[None]:
        known = self._open.get(key)
        if known is None or known[0] != phase:
            self.leave(key)
            known = self._open[key] = phase, _begun(f"{key.partition('/')[0]} {phase}", origins, attributes)
        with trace.use_span(known[1], end_on_exit=False, record_exception=True, set_status_on_exception=False):
            yield

    def leave(self, key: str, reason: str | None = None, *, failed: bool = False) -> None:
        """The phase is over."""
        _, span = self._open.pop(key, ("", None))
        if span is None:
            return
        if reason:
            span.set_attribute("lablet.reason", reason)
        if failed:
            span.set_status(Status(StatusCode.ERROR, reason))
        span.end()

    def leave_all(self) -> None:
        """This process no longer works on any of them."""
        for key in list(self._open):
            self.leave(key, "handed over")


def _begun(name: str, origins: Iterable[str | None], attributes: Attributes) -> Span:
    """A span that begins a trace and links to the origins; one that keeps nothing where they are dropped."""
    parents = dict.fromkeys(origins)
    if are_dropped(parents):
        return trace.INVALID_SPAN
    return tracer().start_span(name, context.Context(), attributes=attributes, links=links_to(parents))
