"""The placement engine: a pure library that books seats on workers over time, and explains itself.

No I/O, no clock of its own (callers pass `now`), deterministic: the same input gives the same output. Times are whole
minutes (`to_minute`, `from_minute`), spans half-open.

    calendar = Calendar([PoolPolicy("default")], [WorkerView("w-1", "default", 8, 32, 100)])
    decision = place(calendar, PlacementRequest("rsv-1", "default", Demand(cpu_cores=2), start, end, seats=2, now=now))
    if isinstance(decision, Placement):
        calendar.book_all(decision.bookings())

All questions (`place`, `earliest`, `extend`, `overrun`, `optimise`, `settle`, `retry`, `kept_for`) leave the calendar as it
is and answer with values; only `Calendar`'s own methods and `Replan.apply` change it. What-if questions are asked of a
`Calendar.copy`. It keeps no history, knows no quotas and writes nothing anywhere.
"""

from . import audit
from .calendar import Calendar, Conflict
from .change import Extension, Overrun, extend, leaving_room, overrun
from .duty import power_minutes, power_spans
from .earliest import HORIZON, earliest, place_earliest
from .model import (
    MAX_SEATS,
    Booking,
    Demand,
    Dimension,
    Explanation,
    Filter,
    Minute,
    NearestMiss,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Refusal,
    SeatChoice,
    SeatPlacement,
    Span,
    Spreading,
    WorkerView,
    from_minute,
    minute_ceil,
    minute_floor,
    to_minute,
)
from .moves import Move
from .optimise import Replan, optimise
from .place import place
from .recourse import Stir, around, settle
from .versions import parse_version
from .waitlist import Retried, Waiting, behind, kept_for, retry, retry_each, waiting_order

__all__ = [
    "HORIZON",
    "MAX_SEATS",
    "Booking",
    "Calendar",
    "Conflict",
    "Demand",
    "Dimension",
    "Explanation",
    "Extension",
    "Filter",
    "Minute",
    "Move",
    "NearestMiss",
    "Overrun",
    "Placement",
    "PlacementRequest",
    "PoolPolicy",
    "Refusal",
    "Replan",
    "Retried",
    "SeatChoice",
    "SeatPlacement",
    "Span",
    "Spreading",
    "Stir",
    "Waiting",
    "WorkerView",
    "around",
    "audit",
    "behind",
    "earliest",
    "extend",
    "from_minute",
    "kept_for",
    "leaving_room",
    "minute_ceil",
    "minute_floor",
    "optimise",
    "overrun",
    "parse_version",
    "place",
    "place_earliest",
    "power_minutes",
    "power_spans",
    "retry",
    "retry_each",
    "settle",
    "to_minute",
    "waiting_order",
]
