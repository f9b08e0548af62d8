"""Worker-hours saved on request: the optimiser looks for a plan beside the owner's work, and the owner carries it out.

The search runs in a thread, on a copy of the calendar, while other requests are decided; the request waits in the inbox
until it is done. A plan is carried out only if every seat that it moves is still where it was, and everything still fits:
else it is thrown away and looked for anew. Moves are written in an order in which each has room once the ones before it
have gone; those that can only change places with each other go in one transaction. Every transaction compares that no
lab has been made for a seat that it moves.

Not guaranteed: that a plan is carried out as a whole. What stands in the way stops it, and what has been moved stays moved.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lablet_common.intents import Optimisation, OptimiseRequested, SeatMove
from lablet_common.requests import Undecided
from lablet_common.resources.reservation import Slot
from lablet_scheduler import engine
from lablet_scheduler.agenda import Agenda
from lablet_scheduler.commits import Step, fits_together, grouped
from lablet_scheduler.decide import Context, Decision, refused
from lablet_scheduler.moves import by_reservation, moved
from lablet_scheduler.writer import Writer

_INTENT = "io.lablet.pool.optimise.requested.v1"
_STEPS_PER_SECOND = 500_000
"""More than a core does, so that the seconds are the limit and not the steps."""
_TRIES = 5
"""Plans that may be overtaken by what else is decided, before the request is refused."""
_NAMED = 500
"""Moves that an answer names."""
_SEED = 1


def is_about_saving(undecided: Undecided) -> bool:
    return undecided.request.spec.type == _INTENT


@dataclass(slots=True)
class _Search:
    """The plan that is being looked for."""

    request: str
    task: "asyncio.Task[engine.Replan]"
    give_up: threading.Event
    gate: int
    """As it was when the search began: what workers take may have changed since."""
    tries: int = 1


class Saving:
    """Of one pool, for one term of ownership. `wake` is called when a plan has been found."""

    def __init__(
        self, agenda: Agenda, writer: Writer, context: Callable[[], Context], wake: Callable[[], None]
    ) -> None:
        self._agenda = agenda
        self._writer = writer
        self._context = context
        self._wake = wake
        self._search: _Search | None = None

    async def work_off(self, undecided: Undecided) -> bool:
        """Decides the request if its plan is there; False: it waits. Raises `ValidationError` for a body that is none."""
        asked = OptimiseRequested.model_validate(undecided.request.spec.data)
        search = self._search
        if search is None or (search.task.done() and search.request != undecided.id):
            self._search = self._begin(undecided.id, asked)
            return False
        if search.request != undecided.id or not search.task.done():
            return False
        replan = search.task.result()
        if asked.dry_run or not replan.moves:
            return await self._decide(undecided, self._answer(replan, asked, committed=False))
        as_it_was = search.gate == self._writer.gate
        blocks = in_order(self._agenda.state.calendar, replan.moves) if as_it_was else None
        if blocks is not None and await self._carry_out(blocks):
            return await self._decide(undecided, self._answer(replan, asked, committed=True))
        if search.tries >= _TRIES:
            self._search = None
            words = f"{_TRIES} plans were overtaken by other decisions: try again when fewer bookings come in"
            decision = refused("overtaken", "Overtaken", words, status=503)
            return await self._writer.commit_together([self._writer.step(decision, undecided)])
        self._search = self._begin(undecided.id, asked, search.tries + 1)
        return False

    def close(self) -> None:
        """The search, if there is one, ends soon."""
        if self._search is not None:
            self._search.give_up.set()
            self._search.task.cancel()

    def _begin(self, request: str, asked: OptimiseRequested, tries: int = 1) -> _Search:
        give_up, calendar = threading.Event(), self._agenda.state.calendar.copy()
        now = engine.minute_ceil(self._context().now)

        def look() -> engine.Replan:
            until = time.monotonic() + asked.budget_seconds
            return engine.optimise(
                calendar,
                self._agenda.pool,
                now,
                seed=_SEED,
                max_moves=asked.max_moves,
                budget=max(1, int(asked.budget_seconds * _STEPS_PER_SECOND)),
                expired=lambda: give_up.is_set() or time.monotonic() >= until,
            )

        task = asyncio.create_task(asyncio.to_thread(look), name=f"optimiser of {self._agenda.pool}")
        task.add_done_callback(lambda _: self._wake())
        return _Search(request, task, give_up, self._writer.gate, tries)

    async def _carry_out(self, blocks: Sequence[Sequence[engine.Move]]) -> bool:
        """False when something stood in the way; what has been written by then stays."""
        steps: list[Step] = []
        state = self._agenda.state
        for block in blocks:
            known = state.reservations
            decisions = [
                moved(known[name], moves, self._context(), reason="Optimised") for name, moves in by_reservation(block)
            ]
            more = [self._writer.step(decision) for decision in decisions]
            if len(more) > 1 and not fits_together(more):
                continue  # too many seats that can only change places with each other
            for move in block:
                state.calendar.release(*move.before.key)
            state.calendar.book_all([move.after for move in block])
            steps += more
        groups = list(grouped(steps))
        for at, group in enumerate(groups):
            if not await self._writer.commit_together(group):
                self._writer.forget([step for rest in groups[at + 1 :] for step in rest])
                return False
        return True

    async def _decide(self, undecided: Undecided, answer: Optimisation) -> bool:
        self._search = None
        decision = Decision(reason="Optimised", answer=answer.to_dict(), result="optimised")
        return await self._writer.commit_together([self._writer.step(decision, undecided)])

    def _answer(self, replan: engine.Replan, asked: OptimiseRequested, *, committed: bool) -> Optimisation:
        moves = tuple(
            SeatMove(
                reservation=move.before.reservation,
                seat=move.before.seat,
                frm=move.before.worker,
                to=move.after.worker,
                slot=Slot(start=engine.from_minute(move.before.start), end=engine.from_minute(move.before.end)),
            )
            for move in replan.moves[:_NAMED]
        )
        return Optimisation(
            pool=replan.pool,
            moves=moves,
            moved=len(replan.moves),
            worker_hours_before=round(replan.minutes_before / 60, 2),
            worker_hours_after=round(replan.minutes_after / 60, 2),
            worker_hours_saved=round(replan.saved_minutes / 60, 2),
            cost_saved_usd=round(replan.saved_minutes / 60 * asked.cost_per_hour_usd, 2),
            proven=replan.proven,
            committed=committed,
        )


def in_order(calendar: engine.Calendar, moves: Iterable[engine.Move]) -> list[list[engine.Move]] | None:
    """The moves in blocks, each of which fits once the ones before it have been carried out; a block of more than one
    reservation can only go as a whole. None: a seat is no longer where the plan saw it, or something is in the way."""
    scratch = calendar.copy()
    left = [group for _, group in by_reservation(moves)]
    if any(scratch.booking(*move.before.key) != move.before for group in left for move in group):
        return None
    blocks: list[list[engine.Move]] = []
    while left:
        stuck = [group for group in left if not _try(scratch, group, blocks)]
        if len(stuck) == len(left):
            whole = [move for group in left for move in group]
            return blocks if _try(scratch, whole, blocks) else None
        left = stuck
    return blocks


def _try(scratch: engine.Calendar, group: list[engine.Move], blocks: list[list[engine.Move]]) -> bool:
    """Carries the moves out on the calendar, all or none."""
    for move in group:
        scratch.release(*move.before.key)
    try:
        scratch.book_all([move.after for move in group])
    except engine.Conflict:
        scratch.book_all([move.before for move in group], check=False)
        return False
    blocks.append(group)
    return True
