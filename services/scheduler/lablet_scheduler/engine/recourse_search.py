"""A few seats moved so that power is saved: what comes off together, where it goes, and who makes way for it.

Power is saved when seats at the edge of a worker's duty leave it: the first or the last few, or some in a row whose rest
opens a gap. Each such set is taken off, the one that would save most first, and its seats are put elsewhere, the largest
first; where a seat has no room, one that is in its way may go on to a third worker (an ejection chain). The cheapest way
found is kept if it saves enough. That is repeated until the moves are used up or nothing more is saved, so power only
ever falls. Work is counted in seats tried on a worker; the same layout and the same budget give the same moves.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
    most: int
    """Seats that may move."""
    price: int
    """Minutes of power that each move has to save."""
    budget: int
    steps: int = 0
    """Seats tried on a worker so far."""
    _best: int = 0
    _found: Steps = ()
    _power: dict[int, int] = field(default_factory=dict)

    def run(self) -> None:
        """Moves seats in the layout until nothing more is to be had."""
        left = self.most
        while left > 0 and self.steps < self.budget and self._improve(left):
            for seat, worker in self._found:
                self._power.pop(self.layout.at[seat], None)
                self._power.pop(worker, None)
                self.layout.move(seat, worker)
            left = self.most - self.layout.moved

    def _improve(self, left: int) -> bool:
        """Finds the best way to move at most so many seats."""
        self._best, self._found = 0, ()
        layout = self.layout
        sets = sorted(
            (-saved, worker, seats)
            for worker in range(len(layout.workers))
            for saved, seats in self._edges(worker, min(left, TOGETHER))
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

    def _minutes(self, worker: int, lanes: Lanes) -> int:
        if worker in lanes:
            return minutes(lanes[worker], self.layout.kinds[worker])
        known = self._power.get(worker)
        if known is None:
            known = self._power[worker] = minutes(self.layout.entries[worker], self.layout.kinds[worker])
        return known

    def _edges(self, worker: int, most: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Sets of seats whose leaving saves power, with the minutes that it saves."""
        layout, lane = self.layout, self.layout.entries[worker]
        before, seen = self._minutes(worker, {}), set[tuple[int, ...]]()
        by_end = sorted(lane, key=lambda entry: (-entry[1], entry))
        for row in (lane, by_end):
            for first in range(len(row)):
                for count in range(1, most + 1):
                    run = row[first : first + count]
                    if len(run) < count or not layout.loads[run[-1][2]].movable:
                        break
                    likeness = tuple(sorted(entry[2] for entry in run))
                    if likeness in seen:
                        continue
                    seen.add(likeness)
                    self.steps += 1
                    gone = {entry[3] for entry in run}
                    saved = before - minutes([one for one in lane if one[3] not in gone], layout.kinds[worker])
                    if saved > self.price * count:
                        yield saved, tuple(sorted(gone))

    def _give(self, pending: Sequence[tuple[int, int]], lanes: Lanes, gain: int, left: int, done: Steps) -> None:
        """Puts the pending seats (each with the worker that it left) elsewhere; `left` more may move."""
        worth = gain - self.price * (len(pending) + len(done))
        if worth <= self._best:
            return
        if not pending:
            self._best, self._found = worth, done
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
            lane, kind = lanes.get(worker, layout.entries[worker]), layout.kinds[worker]
            if not lane:
                if kind in empty:
                    continue
                empty.add(kind)
            self.steps += 1
            before = self._minutes(worker, lanes)
            near = [one for one in lane if one[0] < load.hold and one[1] > load.start]
            if self._fits(near, load, kind):
                after = lane.copy()
                insort(after, entry)
                yield minutes(after, kind) - before, worker, after, -1
            elif left > 0:
                tried: set[int] = set()
                for other in near:
                    if other[2] in tried or not layout.loads[other[2]].movable:
                        continue
                    tried.add(other[2])
                    self.steps += 1
                    if self._fits([one for one in near if one is not other], load, kind):
                        after = [one for one in lane if one is not other]
                        insort(after, entry)
                        yield minutes(after, kind) - before, worker, after, other[3]

    def _fits(self, near: list[Entry], load: Load, kind: Kind) -> bool:
        loads = self.layout.loads
        others = [loads[one[2]] for one in near]
        for row, (most, need) in enumerate(zip(kind.capacity, load.amounts, strict=True)):
            if need + sum(other.amounts[row] for other in others) <= most:
                continue
            soft = row < SOFT
            close = load.until if soft else load.hold
            for at in {load.start, *(other.start for other in others if load.start < other.start < close)}:
                used = need
                for other in others:
                    if other.start <= at < (other.until if soft else other.hold):
                        used += other.amounts[row]
                if used > most:
                    return False
        return True


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
