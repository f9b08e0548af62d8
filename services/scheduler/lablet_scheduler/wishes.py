"""What the engine is asked for a reservation, in its slot or on the wait list. Pure."""

from datetime import datetime, timedelta
from typing import Any

from lablet_common.resources.reservation import Reservation, Slot
from lablet_scheduler import engine
from lablet_scheduler.state import PoolState

_MOST_ALIKE = 64
"""Jobs of one kind that are tried in one look at the wait list."""


def placement_request(
    state: PoolState, reservation: Reservation, start: datetime, end: datetime, now: datetime, **more: Any
) -> engine.PlacementRequest:
    """What the engine is asked for a reservation."""
    definition = state.definition(reservation.tenant, reservation.spec.definition)
    demand = state.demand(reservation)
    assert definition is not None
    assert demand is not None
    return engine.PlacementRequest(
        reservation=reservation.id,
        pool=state.pool.id,
        demand=demand,
        start=engine.to_minute(start),
        end=engine.to_minute(end),
        seats=more.pop("seats", reservation.spec.seats),
        now=engine.minute_floor(now),
        priority=reservation.spec.priority,
        max_minutes=definition.spec.max_duration_minutes,
        **more,
    )


def is_job(state: PoolState, reservation: Reservation) -> bool:
    """It is wanted as soon as possible, and ends by itself."""
    definition = state.definition(reservation.tenant, reservation.spec.definition)
    return reservation.spec.asap and definition is not None and definition.spec.until_completed


def tried(state: PoolState, reservation: Reservation) -> int | None:
    """How many of those that ask for the same are tried in one look: of jobs only the first ones."""
    if state.demand(reservation) is None:
        return 0
    return _MOST_ALIKE if is_job(state, reservation) else None


def waiting_request(state: PoolState, reservation: Reservation, now: datetime, horizon: timedelta) -> engine.Waiting:
    """Its place in the wait list; `horizon`: how far ahead one that is wanted as soon as possible may begin."""
    slot = reservation.slot
    latest = None
    if slot is None:
        begin = engine.from_minute(engine.minute_ceil(now))
        slot = Slot(start=begin, end=begin + timedelta(minutes=reservation.spec.duration_minutes))
        ahead = timedelta(0) if is_job(state, reservation) else horizon
        latest = max(engine.to_minute(begin), engine.minute_floor(now + ahead))
    wanted = placement_request(state, reservation, slot.start, slot.end, now)
    since = reservation.status.waiting_since or reservation.metadata.created_at
    return engine.Waiting(wanted, requested_at=since, latest_start=latest)
