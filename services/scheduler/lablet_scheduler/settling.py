"""Bounded recourse in the service: in quiet moments a few seats that have not started move, where that saves power.

Whenever seats come or go the writer leaves a `Stir`; that is all that a decision pays for it. When nothing has been asked
of the owner for a moment it takes one stir after the other: a search of some milliseconds around it (`engine.settle`), then
one fenced transaction for all its moves, which compares the gate, the reservations, and that no lab has been made for a
seat that moves. So each commit needs less power than what stood before it, and nothing can go round in circles.

Left alone: pools that spread or allow no moves, seats that begin soon, and any stretch of time for which somebody on the
wait list waits: so nobody on it can find room by a move, and it is not tried again for one. Not guaranteed: that every
stir is looked at. One is forgotten when somebody waits there, all are with the owner's term, and the oldest when there are
too many; what they might have saved, `lablet pool optimise` finds.
"""

from collections.abc import Callable
from datetime import timedelta

from lablet_common.resources.reservation import Slot
from lablet_scheduler import engine
from lablet_scheduler.agenda import Agenda
from lablet_scheduler.commits import fits_together
from lablet_scheduler.decide import Context
from lablet_scheduler.moves import by_reservation, moved
from lablet_scheduler.writer import Writer

REASON = "Consolidated"


class Settling:
    """Of one pool, for one term of ownership. Seats that begin within `lead` of now stay."""

    def __init__(self, agenda: Agenda, writer: Writer, context: Callable[[], Context], lead: timedelta) -> None:
        self._agenda = agenda
        self._writer = writer
        self._context = context
        self._quiet = -(-lead // timedelta(minutes=1))

    async def turn(self) -> bool:
        """Looks around the oldest stir and carries out what that finds; False when nothing has moved."""
        state, context = self._agenda.state, self._context()
        if not state.settles:
            self._agenda.stirs.clear()
        if not self._agenda.stirs:
            return False
        stir = self._agenda.stirs.take()
        if stir is None:
            return False
        span = engine.around(stir)
        if state.waitlist.touches(Slot(start=engine.from_minute(span.start), end=engine.from_minute(span.end))):
            return False
        found = engine.settle(
            state.calendar,
            self._agenda.pool,
            engine.minute_ceil(context.now),
            stir,
            max_moves=state.pool.spec.recourse_moves,
            quiet=self._quiet,
        )
        return bool(found.moves) and await self._carry_out(found, context)

    async def _carry_out(self, found: engine.Replan, context: Context) -> bool:
        """All moves in one transaction, or none."""
        state, writer = self._agenda.state, self._writer
        steps = []
        for name, moves in by_reservation(found.moves):
            gain, frees = _gain(found, len(moves)), bool(state.at_risk)
            decision = moved(state.reservations[name], moves, context, reason=REASON, gain=gain, frees=frees)
            steps.append(writer.step(decision))
        if not fits_together(steps):
            return False
        found.apply(state.calendar)
        return await writer.commit_together(steps)


def _gain(found: engine.Replan, own: int) -> str:
    others = len(found.moves) - own
    beside = f", together with {others} other seat{'s' if others > 1 else ''}" if others else ""
    return f": saves {found.saved_minutes} minutes of power{beside}"
