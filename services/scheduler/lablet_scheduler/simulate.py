"""What-if: reservations decided in their order on a copy of the calendar, perhaps with another fleet.

Nothing is written and nothing on the pool's own calendar is touched. Not simulated: quotas, other pools, and the wait
list: what waits already is not tried again in between.
"""

from collections.abc import Generator
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lablet_common.intents import ReservationRequested, SimulatedReservation, SimulateRequested, Simulation
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Explanation
from lablet_common.resources.worker import TemplateSpec
from lablet_scheduler import engine
from lablet_scheduler.decide import Context, Decision, draft_of, find_in_turn, never_here, refused
from lablet_scheduler.state import PoolState
from lablet_scheduler.views import explanation_of, policy_of, slot_of

MAX_ANSWER_BYTES = 128 * 1024
"""Longer answers lose the details of their explanations; the words stay, as many as there is room for."""
_LENGTHS = (500, 120)
_AT_ONCE = 8
"""Wishes after which the caller may rest: some ten milliseconds."""


def decide_simulate(state: PoolState, request: Request, context: Context) -> Generator[None, None, Decision]:
    """Yields where the caller may rest, as long as nothing else is decided meanwhile. Raises `ValidationError` for a body
    that is none."""
    asked = SimulateRequested.model_validate(request.spec.data)
    if not state.workers and asked.shape is None and asked.workers > 0:
        return refused(
            "no-shape", "No shape", f"pool {state.pool.id} has no worker to go by: name a template", status=422,
            path="template",
        )  # fmt: skip
    answer = yield from simulation(state, request, asked, context)
    return Decision(reason="Simulated", answer=answer.to_dict(), result="simulated")


def simulation(
    state: PoolState, request: Request, asked: SimulateRequested, context: Context
) -> Generator[None, None, Simulation]:
    """The whole answer."""
    before = engine.power_minutes(state.calendar)
    shadow, displaced = _shadow(state, asked, context)
    minutes = begun = engine.power_minutes(shadow.calendar)
    found = []
    for number, wish in enumerate(asked.wishes, 1):
        result, added = _one(shadow, request, wish, number, context)
        found.append(result.model_copy(update={"added_worker_hours": _hours(added)}))
        minutes += added
        if number % _AT_ONCE == 0:
            yield
    answer = Simulation(
        pool=state.pool.id,
        workers=len(list(shadow.calendar.workers())),
        reservations=tuple(found),
        worker_hours_before=_hours(before),
        worker_hours_after=_hours(minutes),
        worker_hours_added=_hours(minutes - begun),
        cost_added_usd=round((minutes - begun) / 60 * asked.cost_per_hour_usd, 2),
        displaced=displaced,
    )
    for length in _LENGTHS:
        if len(answer.to_json()) <= MAX_ANSWER_BYTES:
            break
        answer = _shortened(answer, length)
    return answer


def _one(
    shadow: PoolState, request: Request, wish: ReservationRequested, number: int, context: Context
) -> tuple[SimulatedReservation, int]:
    """What becomes of a wish, and the minutes of power that it adds."""
    draft = draft_of(
        request, wish.model_copy(update={"id": f"what-if-{uuid5(NAMESPACE_URL, f'{request.id}/{number}')}"})
    )
    said: dict[str, Any] = {"definition": wish.definition, "seats": wish.seats}
    if shadow.definition(request.tenant, wish.definition) is None:
        why = Explanation(summary=f"there is no definition {wish.definition}", binding="definition")
        return SimulatedReservation(outcome="rejected", explanation=why, **said), 0
    answer, turn = find_in_turn(shadow, draft, context)
    if isinstance(answer, engine.Placement):
        why, slot, added = explanation_of(answer), slot_of(answer), _booked(shadow.calendar, answer)
        return SimulatedReservation(outcome="placed", slot=slot, explanation=why, **said), added
    if never_here(shadow, answer):
        why = explanation_of(answer)
        return SimulatedReservation(outcome="rejected", slot=draft.slot, explanation=why, **said), 0
    later = explanation_of(answer, turn.soonest(answer.request))
    return SimulatedReservation(outcome="waitlisted", slot=draft.slot, explanation=later, **said), 0


def _booked(calendar: engine.Calendar, placement: engine.Placement) -> int:
    """Books it, and returns the minutes of power that this adds to its workers; the others' stay."""
    workers = {seat.worker for seat in placement.seats}

    def minutes() -> int:
        return sum(span.end - span.start for name in workers for span in engine.power_spans(calendar, name))

    before = minutes()
    calendar.book_all(placement.bookings())
    return minutes() - before


def _shadow(state: PoolState, asked: SimulateRequested, context: Context) -> tuple[PoolState, int]:
    """The pool as it would be, and how many reservations would have lost their place in it. What is booked stays where
    it is as far as its worker stays what it is; the rest is placed anew, the soonest first, wholly or not at all."""
    shadow = copy(state)
    shadow.complete_by = None if state.complete else False
    if asked.shape is None and asked.workers == 0:
        shadow.calendar = state.calendar.copy()
        return shadow, 0
    views = _fleet(state, asked)
    licence = next((view.licence for view in views), None)
    shadow.calendar = engine.Calendar([policy_of(state.pool, licence)], views)
    if state.complete:
        shadow.complete_by = True
    kept = set() if asked.shape is not None else {view.name for view in views}
    by_reservation: dict[str, list[engine.Booking]] = {}
    for booking in state.calendar.bookings():
        by_reservation.setdefault(booking.reservation, []).append(booking)
    homeless = []
    for bookings in by_reservation.values():
        if all(booking.worker in kept for booking in bookings):
            shadow.calendar.book_all(bookings, check=False)
        else:
            homeless.append(bookings)
    ordered = sorted(homeless, key=lambda found: (found[0].start, -found[0].priority, found[0].reservation))
    return shadow, sum(not _placed_anew(shadow, bookings, context) for bookings in ordered)


def _placed_anew(shadow: PoolState, bookings: list[engine.Booking], context: Context) -> bool:
    first = bookings[0]
    wanted = engine.PlacementRequest(
        reservation=first.reservation,
        pool=shadow.pool.id,
        demand=first.demand,
        start=first.start,
        end=max(booking.until for booking in bookings),
        seats=len(bookings),
        now=engine.minute_floor(context.now),
        priority=first.priority,
        seat_numbers=tuple(booking.seat for booking in bookings),
    )
    answer = engine.place(shadow.calendar, wanted)
    if isinstance(answer, engine.Refusal):
        return False
    shadow.calendar.book_all(answer.bookings())
    return True


def _fleet(state: PoolState, asked: SimulateRequested) -> list[engine.WorkerView]:
    """The workers there would be: those with the fewest bookings are taken away first, new ones are like the others."""
    present = sorted(state.calendar.workers(), key=lambda view: view.name)
    if asked.workers < 0:
        load = {view.name: 0 for view in present}
        for booking in state.calendar.bookings():
            load[booking.worker] += booking.until - booking.start
        busiest = sorted(present, key=lambda view: (-load[view.name], view.name))
        present = sorted(busiest[: max(0, len(busiest) + asked.workers)], key=lambda view: view.name)
    pattern = present[0] if present else None
    shape = asked.shape
    more = range(1, max(0, asked.workers) + 1)
    if pattern is None:
        pattern = engine.WorkerView(name="", pool=state.pool.id, cpu_cores=1, memory_gb=1, storage_gb=1)
    new = [
        replace(
            pattern, name=f"what-if-{number:05}", unschedulable=False, unschedulable_until=None, maintenance=(),
            failed=False, on_since=None, on_until=None,
        )
        for number in more
    ]  # fmt: skip
    views = [*present, *new]
    return views if shape is None else [_shaped(view, shape) for view in views]


def _shaped(view: engine.WorkerView, shape: TemplateSpec) -> engine.WorkerView:
    return replace(
        view,
        cpu_cores=shape.capacity.cpu_cores,
        memory_gb=shape.capacity.memory_gb,
        storage_gb=shape.capacity.storage_gb,
        max_nodes=shape.max_nodes,
        licence=str(shape.license),
        port_start=shape.port_range.start,
        port_end=shape.port_range.end,
        version=shape.runtime_version or None,
        node_definitions=frozenset(shape.node_definitions) or None,
        boot_minutes=shape.boot_minutes,
        on_since=None,
        on_until=None,
    )


def _hours(minutes: int) -> float:
    return round(timedelta(minutes=minutes) / timedelta(hours=1), 2)


def _shortened(answer: Simulation, length: int) -> Simulation:
    """With so many characters of each explanation's words, and what binds; without the other details."""

    def brief(why: Explanation) -> Explanation:
        return Explanation(summary=why.summary[:length], binding=why.binding, earliest=why.earliest)

    found = tuple(one.model_copy(update={"explanation": brief(one.explanation)}) for one in answer.reservations)
    return answer.model_copy(update={"reservations": found})
