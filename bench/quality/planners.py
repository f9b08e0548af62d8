"""Ways to give out an instance's seats: the engine as placed online, the engine after replan, and crude rivals."""

from __future__ import annotations

import time

from lablet_common.resources.worker import PoolSpec
from lablet_scheduler.engine import (
    Calendar,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Replan,
    Stir,
    WorkerView,
    optimise,
    place,
    settle,
)

from .instances import Instance, Wanted

POOL = "default"


def empty_calendar(instance: Instance) -> Calendar:
    """The engine's calendar of an instance before the first request."""
    return Calendar(
        [PoolPolicy(POOL, turnaround=instance.turnaround, grace=instance.grace)],
        [
            WorkerView(one.name, POOL, one.cpu, one.memory, 10_000, max_nodes=one.nodes, boot_minutes=instance.lead)
            for one in instance.machines
        ],
    )


def asked(instance: Instance, one: Wanted) -> PlacementRequest:
    """A reservation as the engine is asked."""
    demand = Demand(one.cpu, one.memory, 10, one.nodes, ("console",))
    return PlacementRequest(one.name, POOL, demand, one.start, one.end, seats=one.seats, now=began(instance))


def began(instance: Instance) -> int:
    """A day before the first slot: the present, while all are placed."""
    return min(one.start for one in instance.wanted) - 24 * 60


def online(instance: Instance) -> tuple[Calendar, list[str]]:
    """Placed one by one in the order of the requests; the calendar, and who was refused."""
    calendar = empty_calendar(instance)
    refused: list[str] = []
    for one in instance.wanted:
        decision = place(calendar, asked(instance, one))
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
        else:
            refused.append(one.name)
    return calendar, refused


def settled(instance: Instance) -> tuple[Calendar, list[str], int]:
    """As the service places with its default settings: one by one, and after each a few seats that have not started move
    where that saves power. The calendar, who was refused, and how many moves that took."""
    calendar = empty_calendar(instance)
    most = PoolSpec.model_fields["recourse_moves"].default
    refused: list[str] = []
    moves = 0
    for one in instance.wanted:
        decision = place(calendar, asked(instance, one))
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
            stir = Stir(tuple({seat.worker for seat in decision.seats}), one.start, one.end)
            found = settle(calendar, POOL, began(instance), stir, max_moves=most)
            found.apply(calendar)
            moves += len(found.moves)
        else:
            refused.append(one.name)
    return calendar, refused, moves


def replanned(instance: Instance, calendar: Calendar, seconds: float, budget: int, seed: int = 1) -> Replan:
    """Optimised for so many seconds of CPU time at most (it is one thread), and carried out on the calendar."""
    until = time.process_time() + seconds
    found = optimise(
        calendar, POOL, began(instance), seed=seed, budget=budget, expired=lambda: time.process_time() > until
    )
    found.apply(calendar)
    return found


def assignment(calendar: Calendar) -> dict[str, list[str]]:
    """Reservation → the worker of each seat, as the checker wants it."""
    found: dict[str, list[str]] = {}
    for booking in calendar.bookings():
        found.setdefault(booking.reservation, []).append(booking.worker)
    return found
