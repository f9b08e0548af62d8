"""A few seats moved so that power is saved: what comes off together, where it goes, and who makes way for it.

Power is saved when seats at the edge of a worker's duty leave it: the first or the last few, or some in a row whose rest
opens a gap. Each such set is taken off, the one that would save most first, and its seats are put elsewhere, the largest
first; where a seat has no room, one that is in its way may go on to a third worker (an ejection chain). The cheapest way
found is kept if it saves enough. That is repeated until the moves are used up or nothing more is saved, so power only
ever falls.

Work is counted in seats that are looked at beside the one that is tried, so that a crowded worker costs what it costs,
and none of it is begun once the budget is used. The same layout and the same budget give the same moves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .model import Minute
from .optimise_load import Entry, Layout
from .optimise_states import Kind, Load
from .timeline import SOFT

TOGETHER = 4
"""Seats that are taken off a worker at once, at most."""

Lanes = dict[int, list[Entry]]
"""Workers that differ from the layout → their seats."""

Steps = tuple[tuple[int, int], ...]
"""Seat → worker."""


@dataclass(slots=True)
class Recourse:
    """One search over one layout, which it changes."""

    layout: Layout
    centre: Minute
    """Sets of seats that begin near it come first."""
    most: int
    """Seats that may move."""
    price: int
    """Minutes of power that each move has to save."""
    budget: int
    steps: int = 0
    """Seats looked at so far."""
    saved: int = 0
    """Minutes of power."""
    _best: int = 0
    _gain: int = 0
    _found: Steps = ()

    def run(self) -> None:
        """Moves seats in the layout until nothing more is to be had."""
        left = self.most
        while left > 0 and self.steps < self.budget and self._improve(left):
            for seat, worker in self._found:
                self.layout.move(seat, worker)
            self.saved += self._gain
            left = self.most - self.layout.moved

    def _improve(self, left: int) -> bool:
        """Finds the best way to move at most so many seats. Looking for what to take off may use half of the budget that is
        left, each worker its share."""
        self._best, self._gain, self._found = 0, 0, ()
        layout = self.layout
        share = (self.budget - self.steps) // (2 * len(layout.workers))
        sets = sorted(
            (-saved, worker, seats)
            for worker in range(len(layout.workers))
            for saved, seats in self._edges(worker, min(left, TOGETHER), self.steps + share)
        )
        for minus_saved, worker, seats in sets:
            if self.steps >= self.budget:
                break
            if -minus_saved - self.price * len(seats) <= self._best:
                continue
            gone = set(seats)
            lanes = {worker: [entry for entry in layout.entries[worker] if entry[3] not in gone]}
            pending = sorted(((seat, worker) for seat in seats), key=self._size)
            self._give(pending, lanes, -minus_saved, left - len(seats), ())
        return bool(self._found)

    def _size(self, pending: tuple[int, int]) -> tuple[int, int]:
        load = self._load(pending[0])
        return -load.amounts[0] * (load.until - load.start), pending[0]

    def _load(self, seat: int) -> Load:
        return self.layout.loads[self.layout.load_of[seat]]

    def _near(self, lane: list[Entry], kind: Kind, start: Minute, end: Minute) -> list[Entry]:
        """The seats of a lane with whose power a change within `[start, end]` has to do."""
        reach = kind.bridge + 1
        first = bisect_left(lane, (start - reach - self.layout.longest,))
        last = bisect_left(lane, (end + reach + 1,))
        self.steps += last - first + 1
        return [entry for entry in lane[first:last] if entry[1] >= start - reach]

    def _edges(self, worker: int, most: int, until: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Sets of seats whose leaving saves power, with the minutes that it saves, as far as the steps reach `until`; those
        that begin near the centre first."""
        layout, lane, kind = self.layout, self.layout.entries[worker], self.layout.kinds[worker]
        rows = (lane, sorted(lane, key=lambda entry: (-entry[1], entry)))
        places = sorted(
            (abs(row[at][0] - self.centre), number, at) for number, row in enumerate(rows) for at in range(len(row))
        )
        seen = set[tuple[int, ...]]()
        for _, number, first in places:
            for count in range(1, most + 1):
                run = rows[number][first : first + count]
                if len(run) < count or not layout.loads[run[-1][2]].movable:
                    break
                likeness = tuple(sorted(entry[2] for entry in run))
                if likeness in seen:
                    continue
                seen.add(likeness)
                if self.steps >= until:
                    return
                near = self._near(lane, kind, min(entry[0] for entry in run), max(entry[1] for entry in run))
                gone = {entry[3] for entry in run}
                saved = minutes(near, kind) - minutes([one for one in near if one[3] not in gone], kind)
                if saved > self.price * count:
                    yield saved, tuple(sorted(gone))

    def _give(self, pending: Sequence[tuple[int, int]], lanes: Lanes, gain: int, left: int, done: Steps) -> None:
        """Puts the pending seats (each with the worker that it left) elsewhere; `left` more may move."""
        worth = gain - self.price * (len(pending) + len(done))
        if worth <= self._best:
            return
        if not pending:
            self._best, self._gain, self._found = worth, gain, done
            return
        (seat, origin), rest = pending[0], pending[1:]
        for added, worker, lane, ejected in sorted(self._options(seat, origin, lanes, left)):
            if worth - added <= self._best or self.steps >= self.budget:
                break
            more = rest if ejected < 0 else [*rest, (ejected, worker)]
            after = {**lanes, worker: lane}
            self._give(more, after, gain - added, left - (ejected >= 0), (*done, (seat, worker)))

    def _options(self, seat: int, origin: int, lanes: Lanes, left: int) -> Iterator[tuple[int, int, list[Entry], int]]:
        """Where a seat may go: minutes added, worker, what is on it then, and who has to leave it for that (−1: nobody)."""
        layout = self.layout
        number = layout.load_of[seat]
        load = layout.loads[number]
        entry = (load.start, load.hold, number, seat)
        empty: set[Kind] = set()
        for worker in layout.allowed[number]:
            if worker == origin:
                continue
            if self.steps >= self.budget:
                return
            lane, kind = lanes.get(worker, layout.entries[worker]), layout.kinds[worker]
            if not lane:
                if kind in empty:
                    continue
                empty.add(kind)
            near = self._near(lane, kind, load.start, load.hold)
            beside = [one for one in near if one[0] < load.hold and one[1] > load.start]
            if self._fits(beside, load, kind):
                yield self._added(near, kind, entry, None), worker, _changed(lane, entry, None), -1
            elif left > 0:
                tried: set[int] = set()
                for other in beside:
                    if other[2] in tried or not layout.loads[other[2]].movable:
                        continue
                    if self.steps >= self.budget:
                        return
                    tried.add(other[2])
                    self.steps += len(beside)
                    if self._fits([one for one in beside if one is not other], load, kind):
                        wide = self._near(lane, kind, min(load.start, other[0]), max(load.hold, other[1]))
                        yield self._added(wide, kind, entry, other), worker, _changed(lane, entry, other), other[3]

    def _added(self, near: list[Entry], kind: Kind, comes: Entry, goes: Entry | None) -> int:
        return minutes(_changed(near, comes, goes), kind) - minutes(near, kind)

    def _fits(self, near: list[Entry], load: Load, kind: Kind) -> bool:
        loads = self.layout.loads
        others = [loads[one[2]] for one in near]
        for row, (most, need) in enumerate(zip(kind.capacity, load.amounts, strict=True)):
            if need + sum(other.amounts[row] for other in others) <= most:
                continue
            soft = row < SOFT
            close = load.until if soft else load.hold
            for at in {load.start, *(other.start for other in others if load.start < other.start < close)}:
                self.steps += len(others)
                used = need
                for other in others:
                    if other.start <= at < (other.until if soft else other.hold):
                        used += other.amounts[row]
                if used > most:
                    return False
        return True


def _changed(lane: list[Entry], comes: Entry, goes: Entry | None) -> list[Entry]:
    after = lane.copy() if goes is None else [one for one in lane if one is not goes]
    insort(after, comes)
    return after


def minutes(lane: Sequence[Entry], kind: Kind) -> int:
    """Minutes of power that seats sorted by start need of a worker, as `power_minutes` counts them."""
    total = 0
    lead, bridge = kind.lead, kind.bridge
    end = None
    for start, close, _, _ in lane:
        if end is None or start - end > bridge:
            total += lead
        elif close <= end:
            continue
        else:
            start = end
        total += close - start
        end = close
    return total
