"""When a worker has to be on, from its bookings."""

from __future__ import annotations

from .calendar import Calendar
from .model import Span
from .power import join_needs, powered


def power_spans(calendar: Calendar, worker: str) -> list[Span]:
    """The spans in which a worker must be on for its bookings: from boot and preparation before the first need to the
    end of the turnaround after the last, rests within the grace included. Raises LookupError for an unknown worker."""
    view = calendar.worker(worker)
    return powered(join_needs(calendar.holds(worker), calendar.bridge(view)), calendar.lead(view))


def power_minutes(calendar: Calendar) -> int:
    """Minutes of power that all bookings of the calendar need: what the score saves."""
    return sum(span.end - span.start for view in calendar.workers() for span in power_spans(calendar, view.name))
