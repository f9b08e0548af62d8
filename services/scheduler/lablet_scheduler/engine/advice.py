"""A refusal with a suggestion: everything `place` can say, and the first start from which it would fit."""

from __future__ import annotations

from dataclasses import replace

from .calendar import Calendar
from .earliest import HORIZON, earliest
from .model import Explanation, PlacementRequest, Refusal, from_minute
from .place import place


def explain(calendar: Calendar, request: PlacementRequest, horizon: int = HORIZON) -> Explanation:
    """Why the request would be placed where it would be, or why not and when instead (searched `horizon` minutes)."""
    decision = place(calendar, request)
    return suggest(calendar, decision, horizon).explanation if isinstance(decision, Refusal) else decision.explanation


def suggest(calendar: Calendar, refusal: Refusal, horizon: int = HORIZON) -> Refusal:
    """The same refusal with the earliest feasible start in its explanation; unchanged when it is permanent."""
    if refusal.permanent:
        return refusal
    request = refusal.request
    start = earliest(calendar, request, max(request.start, request.now), horizon)
    if start is None:
        text = f" Nothing fits within {horizon // 1440} days after it either."
    else:
        text = f" It would fit from {from_minute(start):%Y-%m-%d %H:%M} UTC."
    told = refusal.explanation
    return replace(refusal, explanation=replace(told, summary=told.summary + text, earliest=start))
