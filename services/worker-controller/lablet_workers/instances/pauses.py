"""Pauses after failed steps: what has just failed is not tried again at once, and each failure in a row doubles the wait.

A pause belongs to the circumstances in which the step failed. An instance that is asked for something else meanwhile (its
seat is cancelled, its slot changed, its place is another) is looked at at once, and begins anew with its failures.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablet_common.resources.instance import Instance
from lablet_common.resources.reservation import Reservation

FIRST, LONGEST = 4, 16
"""Polls after a failed step."""


@dataclass(frozen=True, slots=True)
class _Pause:
    until: datetime
    failures: int
    circumstances: Hashable


def circumstances(instance: Instance, reservation: Reservation | None) -> Hashable:
    """What a step of an instance is asked for, as far as others decide it: a change of it ends a pause."""
    own = (instance.phase, instance.status.attempt, instance.spec.worker, instance.spec.end)
    if reservation is None:
        return own, None
    seat = next((seat for seat in reservation.status.placement if seat.instance == instance.id), None)
    place = (seat.worker, seat.state, seat.attempt) if seat is not None else None
    return own, (reservation.status.phase, reservation.slot, place)


class Pauses:
    """Of all instances of a pool, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Pause] = {}

    def until(self, name: str, now: datetime, asked: Hashable) -> datetime | None:
        """Until when it is left alone, or None: it may be stepped."""
        pause = self._by_name.get(name)
        if pause is None:
            return None
        if pause.circumstances != asked:
            del self._by_name[name]
            return None
        return pause.until if now < pause.until else None

    def failed(self, name: str, now: datetime, poll: timedelta, asked: Hashable, end: datetime) -> datetime:
        """A step has failed. Gives until when it is left alone: not beyond its slot's end, which is looked at in time."""
        before = self._by_name.get(name)
        failures = 1 + (before.failures if before is not None and before.circumstances == asked else 0)
        until = now + poll * min(FIRST << min(failures - 1, 8), LONGEST)
        if now < end:
            until = min(until, end)
        self._by_name[name] = _Pause(until, failures, asked)
        return until

    def forget(self, name: str) -> None:
        """A step has led on, or the instance is no more."""
        self._by_name.pop(name, None)
