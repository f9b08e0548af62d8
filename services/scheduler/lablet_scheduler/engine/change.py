"""Changing what is booked: longer, or later than it should have been.

A lab cannot leave its worker, so an extension is granted where the seats are or not at all; when it does not fit, the
answer is the longest end that would. All seats of a reservation are extended together. An overrun is no request but a
fact: it is booked whatever it displaces, and the seats that lose their room are listed, never a started one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .calendar import Calendar, Conflict
from .model import Booking, Filter, Minute, NearestMiss, from_minute


@dataclass(frozen=True, slots=True)
class Extension:
    """The answer to "may it end later?"."""

    reservation: str
    wanted: Minute
    granted: bool
    longest: Minute
    """The latest end up to the wanted one that fits; the present end when none does."""
    bookings: tuple[Booking, ...]
    """All seats with the new end when granted, unchanged otherwise."""
    miss: NearestMiss | None
    """What stands against the next minute after `longest`."""
    summary: str


@dataclass(frozen=True, slots=True)
class Overrun:
    """What follows from a seat that stays longer than its slot."""

    booking: Booking
    """The seat with its real end."""
    displaced: tuple[Booking, ...]
    """Seats that lose their room, soonest first."""


def extend(calendar: Calendar, reservation: str, new_end: Minute) -> Extension:
    """Whether all seats of a reservation can stay until `new_end`; the calendar is not changed.

    Raises LookupError for a reservation that is not booked, ValueError for an end that is not later.
    """
    seats = _booked(calendar, reservation)
    end = max(seat.end for seat in seats)
    if new_end <= end:
        raise ValueError(f"{reservation}: {new_end} is not later than the present end {end}")
    scratch = calendar.copy()
    scratch.release(reservation)
    miss = _miss_until(scratch, seats, new_end)
    if miss is None:
        longer = tuple(_ending(seat, new_end) for seat in seats)
        text = f"{reservation} may stay until {from_minute(new_end):%Y-%m-%d %H:%M} UTC."
        return Extension(reservation, new_end, True, new_end, longer, None, text)
    fits, fails = end, new_end
    while fails - fits > 1:
        middle = (fits + fails) // 2
        found = _miss_until(scratch, seats, middle)
        if found is None:
            fits = middle
        else:
            fails, miss = middle, found
    text = (
        f"{reservation} cannot stay until {from_minute(new_end):%Y-%m-%d %H:%M} UTC: {miss.worker} lacks"
        f" {miss.dimension} ({miss.free:g} of {miss.needed:g}) from {from_minute(fits):%Y-%m-%d %H:%M} UTC on,"
        " the latest end that fits."
    )
    return Extension(reservation, new_end, False, fits, seats, miss, text)


def leaving_room(answer: Extension, ahead: int) -> Extension:
    """The refusal of an extension that has room beyond `answer.longest`, were it not for those ahead who wait for it."""
    miss = answer.miss
    who = "a request that is ahead waits" if ahead == 1 else f"{ahead} requests that are ahead wait"
    text = (
        f"{answer.reservation} cannot stay until {from_minute(answer.wanted):%Y-%m-%d %H:%M} UTC: from"
        f" {from_minute(answer.longest):%Y-%m-%d %H:%M} UTC on {who} for the room:"
        " by priority, then by time of request."
    )
    waited = NearestMiss(None if miss is None else miss.worker, Filter.WAIT_LIST, answer.wanted - answer.longest, 0)
    return replace(answer, miss=waited, summary=text)


def overrun(calendar: Calendar, reservation: str, seat: int, until: Minute) -> Overrun:
    """Which seats lose their room when a seat stays until `until`, since its end, however long it has been booked beyond it
    already; the calendar is not changed.

    Raises LookupError when the seat is not booked.
    """
    booked = calendar.booking(reservation, seat)
    if booked is None:
        raise LookupError(f"{reservation}/{seat} is not booked")
    late = replace(booked, occupied_end=until)
    view = calendar.worker(late.worker)
    rivals = {
        rival.key: rival
        for rival in calendar.on_worker(late.worker, booked.end, calendar.hold_end(late))
        if not rival.started and rival.key != late.key
    }
    if not rivals and calendar.licence_limit(view) is None:
        return Overrun(late, ())  # as it is for most; a copy costs more the more there is on the calendar
    scratch = calendar.copy()
    scratch.replace(late, check=False)
    for span in scratch.licences_over(view):
        for other in scratch.workers():
            if (other.pool, other.licence) != (view.pool, view.licence):
                continue
            reach = scratch.bridge(other) + scratch.lead(other)
            for rival in scratch.on_worker(other.name, span.start - reach, span.end + reach):
                if not rival.started and rival.key != late.key:
                    rivals[rival.key] = rival
    return Overrun(late, _without_room(scratch, rivals.values()))


def _without_room(scratch: Calendar, rivals: Iterable[Booking]) -> tuple[Booking, ...]:
    """Takes rivals off and lets them back in, the most urgent first; returns those that no longer fit."""
    order = sorted(rivals, key=lambda rival: (-rival.priority, rival.start, rival.reservation, rival.seat))
    for rival in order:
        scratch.release(rival.reservation, rival.seat)
    displaced: list[Booking] = []
    for rival in order:
        try:
            scratch.book(rival)
        except Conflict:
            displaced.append(rival)
    return tuple(sorted(displaced, key=lambda rival: (rival.start, -rival.priority, rival.reservation, rival.seat)))


def _booked(calendar: Calendar, reservation: str) -> tuple[Booking, ...]:
    seats = calendar.of(reservation)
    if not seats:
        raise LookupError(f"{reservation} is not booked")
    return seats


def _ending(seat: Booking, end: Minute) -> Booking:
    later = seat.occupied_end if seat.occupied_end is not None and seat.occupied_end > end else None
    return replace(seat, end=end, occupied_end=later)


def _miss_until(scratch: Calendar, seats: tuple[Booking, ...], end: Minute) -> NearestMiss | None:
    try:
        scratch.book_all(_ending(seat, end) for seat in seats)
    except Conflict as conflict:
        return conflict.miss
    scratch.release(seats[0].reservation)
    return None
