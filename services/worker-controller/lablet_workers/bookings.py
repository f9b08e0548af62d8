"""The calendar by worker, kept as bookings come and go, so that one booking more costs the same among ten and ten thousand.

Not guaranteed: that a booking is still true. Each is entered as it was told last; whoever decides something that cannot be
undone (a power-off) reads the reservations anew.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from lablet_workers.needs import Need


class Bookings:
    """What each worker is needed for, from the seats of all reservations."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tuple[str, Need], ...]] = {}
        """Reservation → worker and need of each of its seats."""
        self._counts: dict[str, Counter[Need]] = {}
        self._needs: dict[str, list[Need]] = {}

    @property
    def needs(self) -> Mapping[str, Sequence[Need]]:
        """Worker → its needs, in order, each once. It changes with the bookings."""
        return self._needs

    @property
    def reservations(self) -> Set[str]:
        """Those that need a worker."""
        return self._entries.keys()

    def enter(self, reservation: str, seats: Iterable[tuple[str, Need]] = ()) -> set[str]:
        """The reservation needs these workers, and no others any more. Returns the workers whose needs are others now."""
        before, after = self._entries.pop(reservation, ()), tuple(seats)
        if after:
            self._entries[reservation] = after
        if before == after:
            return set()
        begun = {entry for entry in after if self._add(*entry)}
        ended = {entry for entry in before if self._remove(*entry)}
        return {worker for worker, _ in begun | ended}

    def _add(self, worker: str, need: Need) -> bool:
        """Whether it is the first seat there that needs it."""
        counts = self._counts.setdefault(worker, Counter())
        counts[need] += 1
        if counts[need] > 1:
            return False
        insort(self._needs.setdefault(worker, []), need)
        return True

    def _remove(self, worker: str, need: Need) -> bool:
        """Whether it was the last one."""
        counts = self._counts[worker]
        counts[need] -= 1
        if counts[need]:
            return False
        del counts[need]
        needs = self._needs[worker]
        del needs[bisect_left(needs, need)]
        return True
