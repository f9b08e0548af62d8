"""Which spans are kept: a story is told whole or not at all.

A call that begins a story is kept with the probability that the settings give, chosen by its trace id. What continues it
follows it. So does what links to it: a phase of a lab next week, a message that lay in a stream. By its own trace id each
of these would be kept or dropped for itself, and a tenth of the spans would be a tenth of every story.
"""

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

_DROP = SamplingResult(Decision.DROP)


class ByStory(Sampler):
    """`ratio`: the part of stories that is kept, 0 to 1."""

    def __init__(self, ratio: float) -> None:
        self._begin = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        if parent.is_valid:
            kept = parent.trace_flags.sampled
        elif links:
            kept = any(link.context.trace_flags.sampled for link in links)
        else:
            return self._begin.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state) if kept else _DROP

    def get_description(self) -> str:
        return f"ByStory({self._begin.rate})"
