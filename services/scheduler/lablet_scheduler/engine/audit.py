"""Whether a calendar is sound: its forms agree with each other, and nothing on it is over a limit.

What a worker's bookings use is laid anew on a calendar of that worker alone and compared. These are looks for a periodic
check, a worker at a time; `Calendar` keeps its forms in step by itself.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

from .calendar import DIMENSIONS, Calendar
from .model import Minute, Span
from .power import powered


def differs(calendar: Calendar, name: str) -> bool:
    """Whether what the arrays say of a worker, or its duties, is not what follows from its bookings."""
    view = calendar.worker(name)
    booked = calendar.on_worker(name, *_EVER)
    alone = Calendar([calendar.policy(view.pool)], [view])
    for _ in alone.load(booked):
        pass
    if calendar.duties(name) != alone.duties(name):
        return True
    if any(calendar.booking(*one.key) != one for one in booked):
        return True
    days = calendar.timeline.days_in_use() | alone.timeline.days_in_use()
    column, own = calendar.fleet.columns[name], alone.fleet.columns[name]
    return any(_steps(calendar, column, day) != _steps(alone, own, day) for day in days)


def over(calendar: Calendar, name: str) -> list[str]:
    """What a worker has too little of at some instant, by the names of its dimensions; `ports` also where two hold one."""
    view, column = calendar.worker(name), calendar.fleet.columns[name]
    days = list(calendar.timeline.days_in_use())
    peaks = [calendar.timeline.peak(column, day.start, day.end, day.end) for day in days]
    most = calendar.fleet.capacity[:, column].tolist()
    found = [str(what) for row, what in enumerate(DIMENSIONS) if any(peak[row] > most[row] for peak in peaks)]
    until: dict[int, Minute] = {}
    for booking in calendar.on_worker(name, *_EVER):  # in the order of their start
        for _, number in booking.ports:
            if until.get(number, booking.start) > booking.start or not view.port_start <= number <= view.port_end:
                return [*found, "ports"] if "ports" not in found else found
            until[number] = calendar.hold_end(booking)
    return found


def licences(calendar: Calendar) -> tuple[list[str], list[str]]:
    """The counted licence kinds whose count does not follow from the workers' duties, and those of which more are in use at
    some instant than there are."""
    wrong: list[str] = []
    beyond: list[str] = []
    for (pool, kind), limit in calendar.counted_licences().items():
        changes: Counter[Minute] = Counter()
        for view in calendar.workers():
            if (view.pool, view.licence) == (pool, kind):
                for span in powered(calendar.duties(view.name), calendar.lead(view)):
                    changes[span.start] += 1
                    changes[span.end] -= 1
        steps = sorted(minute for minute, change in changes.items() if change)
        counts = list(accumulate(changes[minute] for minute in steps))
        if calendar.licences_in_use(pool, kind) != list(zip(steps, counts, strict=True)):
            wrong.append(kind)
        if max(counts, default=0) > limit:
            beyond.append(kind)
    return wrong, beyond


_EVER = (-(2**40), 2**40)


def _steps(calendar: Calendar, column: int, day: Span) -> list[tuple[Minute, list[int]]]:
    """Where the use changes, and to what."""
    changes: list[tuple[Minute, list[int]]] = []
    for begin, _, used in calendar.timeline.steps(column, day.start, day.end):
        if not changes or changes[-1][1] != used:
            changes.append((begin, used))
    return changes
