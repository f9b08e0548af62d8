"""Large neighbourhood search: take some seats off a few workers, give them out again as well as can be, keep what is
not worse.

A neighbourhood is a few workers and a stretch of time around a seat drawn at random; a sweep gives its movable seats
out anew, around everything that stays. Small pools are swept as a whole first. Where moves are capped, each move has a
price that falls from round to round, so that the moves that save most are made first. Nothing ever gets dearer, so the
search can be stopped at any time; with the same seed and the same number of steps it does the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .optimise_load import Entry, Layout
from .optimise_states import StateBook
from .optimise_sweep import MINUTE, Effort, Item, Swept, sweep

WHOLE = 600
"""Seats times workers up to which a pool is swept as a whole first."""

PRICES = (90, 45, 20, 8, 2, 0)
"""Minutes of power that a move has to save, round by round, where moves are capped."""

MOST_SNAPSHOTS = 24


@dataclass(slots=True)
class Search:
    """One run over one layout."""

    layout: Layout
    rng: random.Random
    budget: int
    expired: Callable[[], bool]
    max_moves: int | None
    effort: Effort = field(default_factory=Effort)
    proven: bool = False
    """True: no cheaper plan exists (a sweep over everything dropped nothing)."""
    snapshots: list[list[int]] = field(default_factory=list)
    """Where the seats were at each improvement, the latest last."""
    saved: int = 0
    """Minutes saved so far."""

    def run(self) -> None:
        """Searches until the budget is used, time has expired, or nothing better can exist."""
        layout = self.layout
        movable = [seat for seat, load in enumerate(layout.load_of) if layout.loads[load].movable]
        if not movable or len(layout.workers) < 2 or self.max_moves == 0:
            self.proven = not movable or len(layout.workers) < 2
            return
        self.effort.stop = self._over
        book = StateBook(layout.loads)
        prices = (0,) if self.max_moves is None else PRICES
        for round_number, price in enumerate(prices):
            self._round_ends = self.budget * (round_number + 1) // len(prices)
            first = True
            while not self._over():
                if book.full:
                    book = StateBook(layout.loads)
                workers, free = list(range(len(layout.workers))), set(movable)
                whole = first and len(movable) * len(workers) <= WHOLE
                width = 60
                if not whole:
                    workers, free, width = self._neighbourhood(movable)
                exact = self._improve(book, workers, free, width, price, wander=not whole and self.rng.random() < 0.5)
                if whole and exact and self.max_moves is None:
                    self.proven = True
                    return
                first = False

    _round_ends: int = 0

    def _over(self) -> bool:
        return self.effort.steps >= self._round_ends or self.expired()

    def _neighbourhood(self, movable: list[int]) -> tuple[list[int], set[int], int]:
        """Workers, movable seats on them, and how wide to sweep."""
        rng, layout = self.rng, self.layout
        seat = rng.choice(movable)
        load = layout.loads[layout.load_of[seat]]
        reach = rng.choice((120, 240, 480, 960, 2880))
        start, end = load.start - reach, load.hold + reach
        others = [one for one in layout.allowed[layout.load_of[seat]] if one != layout.at[seat]]
        if len(others) > 12:
            busy = [one for one in rng.sample(others, min(len(others), 60)) if layout.near(one, start, end)]
            idle = [one for one in rng.sample(others, min(len(others), 8)) if not layout.near(one, start, end)]
            others = busy + idle[:1]
        count = min(len(others), rng.choice((1, 2, 2, 3, 3, 4, 5, 7)))
        workers = [layout.at[seat], *rng.sample(others, count)]
        near: list[tuple[int, int]] = []
        for worker in workers:
            for begin, _, number, one in layout.near(worker, start, end):
                if start <= begin <= end and layout.loads[number].movable:
                    near.append((abs(begin - load.start), one))
        near.sort()
        free = {one for _, one in near[:80]}
        free.add(seat)
        width = rng.choice((20, 60, 60, 200)) if len(free) > 10 else 400
        return workers, free, width

    def _improve(
        self, book: StateBook, workers: list[int], free: set[int], width: int, price: int, *, wander: bool
    ) -> bool:
        """Gives the free seats out anew, if that is not worse; returns whether the sweep was exact."""
        layout = self.layout
        start = min(layout.loads[layout.load_of[seat]].start for seat in free)
        end = max(layout.loads[layout.load_of[seat]].hold for seat in free)
        present: list[tuple[int, Entry]] = []
        settled: set[int] = set()
        for worker in workers:
            bridge = layout.kinds[worker].bridge
            for entry in layout.near(worker, start - bridge, end + bridge):
                present.append((worker, entry))
                if entry[3] not in free:
                    settled.add(worker)
        self.rng.shuffle(workers)
        workers = sorted(workers, key=lambda worker: worker in settled)
        place = {worker: position for position, worker in enumerate(workers)}
        present.sort(key=lambda one: (one[1][0], one[1][3] in free, -one[1][1], one[1][2], one[1][3]))
        homes: dict[int, dict[int, int]] = {}
        items: list[Item] = []
        seats: list[int] = []
        for worker, (_, _, load, seat) in present:
            if load not in homes:
                homes[load] = {place[one]: n for one, n in layout.homes[load].items() if one in place}
            where: tuple[int, ...] = (place[worker],)
            if seat in free:
                where = tuple(sorted(place[one] for one in layout.allowed[load] if one in place))
            items.append(Item(load, where, homes[load]))
            seats.append(seat)
        empty = [book.empty(layout.kinds[worker]) for worker in workers]
        now = [place[layout.at[seat]] for seat in seats]
        points = _points(book, empty, items, now)
        if points is None:
            return False
        minutes, moved = points
        move_points = price * MINUTE + (0 if wander else 1)
        swept, exact = sweep(
            book,
            empty,
            len(workers) - len(settled),
            items,
            width=width,
            below=minutes * MINUTE + moved * move_points + (MINUTE if wander and not price else 0),
            move_points=move_points,
            effort=self.effort,
        )
        if swept is not None:
            after = _points(book, empty, items, swept.choices)
            if after is not None:
                self._adopt(workers, items, seats, swept, minutes - after[0], (start, end), strictly=not wander)
        return exact

    def _adopt(
        self,
        workers: list[int],
        items: list[Item],
        seats: list[int],
        swept: Swept,
        gain: int,
        span: tuple[int, int],
        *,
        strictly: bool,
    ) -> None:
        layout = self.layout
        steps = [
            (seat, layout.at[seat], workers[choice])
            for seat, item, choice in zip(seats, items, swept.choices, strict=True)
            if len(item.positions) > 1 and workers[choice] != layout.at[seat]
        ]
        before = layout.moved
        for seat, _, worker in steps:
            layout.move(seat, worker)
        over_cap = self.max_moves is not None and layout.moved > self.max_moves
        margin = max(layout.kinds[worker].bridge + layout.kinds[worker].lead for worker in workers)
        if over_cap or not layout.licences_hold(workers, span[0] - margin, span[1] + margin):
            for seat, worker, _ in reversed(steps):
                layout.move(seat, worker)
            return
        self.saved += gain
        if gain > 0 or (strictly and layout.moved < before):
            self.snapshots.append(layout.at.copy())
            if len(self.snapshots) > MOST_SNAPSHOTS:
                # thin out the older half; the latest are the best
                self.snapshots = self.snapshots[: MOST_SNAPSHOTS // 2 : 2] + self.snapshots[MOST_SNAPSHOTS // 2 :]


def _points(book: StateBook, empty: list[int], items: list[Item], choices: list[int]) -> tuple[int, int] | None:
    """Minutes and moves of a way to give out the items; None when a seat does not fit (facts over the limit)."""
    states = list(empty)
    minutes = moved = 0
    for item, choice in zip(items, choices, strict=True):
        start = book.loads[item.load].start
        aged = book.aged(start)
        state = states[choice]
        state = aged[state] if state in aged else book.age(state, start)
        known = book.steps[item.load]
        step = known[state] if state in known else book.enter(state, item.load)
        if step is None:
            return None
        states[choice] = step.state
        minutes += step.added
        moved += step.before >= item.home.get(choice, 0)
    return minutes, moved
