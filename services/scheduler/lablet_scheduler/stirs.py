"""Where seats have come and gone: all that a decision leaves behind for a quiet moment (see `settling`)."""

from collections import deque

from lablet_common.resources.reservation import Reservation
from lablet_scheduler import engine

MOST_STIRS = 1000
"""Stirs that are kept."""


class Stirs:
    """Of one pool, for one term of ownership, the oldest first; when there are too many, the oldest are forgotten."""

    def __init__(self) -> None:
        self._commits: deque[tuple[Reservation | None, Reservation]] = deque(maxlen=MOST_STIRS)
        self._begun: list[engine.Stir] = []
        """What is left of the commit that was looked at last."""

    def __len__(self) -> int:
        """Commits that are left to be looked at."""
        return len(self._commits) + bool(self._begun)

    def note(self, old: Reservation | None, new: Reservation) -> None:
        """Remembers a commit if seats may have come or gone by it. It stands in the way of decisions, so it only looks
        whether anything is different; what it is, `take` finds out."""
        if (
            old is None
            or old.status.placement is not new.status.placement
            or old.slot != new.slot
            or old.holds_capacity != new.holds_capacity
        ):
            self._commits.append((old, new))

    def take(self) -> engine.Stir | None:
        """The oldest, which is not kept; None: no seat came or went by that commit."""
        if not self._begun:
            before, after = map(_places, self._commits.popleft())
            for changed in (after - before, before - after):
                if changed:
                    _, _, start, end = next(iter(changed))
                    workers = tuple(sorted({worker for _, worker, _, _ in changed}))
                    self._begun.append(engine.Stir(workers, start, end))
        return self._begun.pop() if self._begun else None

    def clear(self) -> None:
        """Forgets them all."""
        self._commits.clear()
        self._begun.clear()


def _places(reservation: Reservation | None) -> set[tuple[int, str, int, int]]:
    """Seat, worker, start and end of what is booked."""
    if reservation is None or reservation.slot is None or not reservation.holds_capacity:
        return set()
    start, end = engine.to_minute(reservation.slot.start), engine.to_minute(reservation.slot.end)
    return {(seat.seat, seat.worker, start, end) for seat in reservation.status.placement}
