"""The placement engine: a pure library that books seats on workers over time, and explains itself.

No I/O, no clock of its own (callers pass `now`), deterministic: the same input gives the same output. Times are whole
minutes (`to_minute`, `from_minute`), spans half-open.

    calendar = Calendar([PoolPolicy("default")], [WorkerView("w-1", "default", 8, 32, 100)])
    decision = place(calendar, PlacementRequest("rsv-1", "default", Demand(cpu_cores=2), start, end, seats=2, now=now))
    if isinstance(decision, Placement):
        calendar.book_all(decision.bookings())

All questions (`place`, `earliest`, `explain`, `extend`, `move`, `overrun`, `heal`, `vacate`, `relocate`, `optimise`,
`retry`, `kept_for`, `simulate`) leave the calendar as it is and answer with values; only `Calendar`'s own methods, `shorten`,
`Plan.apply`, `Replan.apply` and `Overrun.apply` change it. It keeps no history, knows no quotas and writes nothing anywhere.
"""

from .advice import explain, suggest
from .calendar import Calendar, Conflict
from .change import Extension, Overrun, extend, leaving_room, move, overrun, shorten
from .duty import power_minutes, power_spans
from .earliest import HORIZON, earliest, place_earliest
from .heal import Move, Plan, Stuck, heal, relocate, vacate
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
from .optimise import Replan, optimise
from .place import place, simulate
from .waitlist import Retried, Waiting, behind, kept_for, retry, waiting_order

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
    "Plan",
    "PoolPolicy",
    "Refusal",
    "Replan",
    "Retried",
    "SeatChoice",
    "SeatPlacement",
    "Span",
    "Spreading",
    "Stuck",
    "Waiting",
    "WorkerView",
    "behind",
    "earliest",
    "explain",
    "extend",
    "from_minute",
    "heal",
    "kept_for",
    "leaving_room",
    "minute_ceil",
    "minute_floor",
    "move",
    "optimise",
    "overrun",
    "place",
    "place_earliest",
    "power_minutes",
    "power_spans",
    "relocate",
    "retry",
    "shorten",
    "simulate",
    "suggest",
    "to_minute",
    "vacate",
    "waiting_order",
]
