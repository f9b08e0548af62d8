"""When a worker must be up, and whether it should be now. Pure: the calendar in, a decision with its rule out.

A worker is powered on early enough to be ready when the first need begins, stays on through gaps that are shorter than the
grace, and goes off when nothing near is left. No second negotiation about scaling exists: what reservations placed on it say
is what it does. Idle means: no instance and none approaching, never "nobody typed".
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablet_common.process_lab import RUNTIME
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatState
from lablet_common.resources.worker import PoolSpec, Worker, WorkerPhase

_P = WorkerPhase
_PER_STAND_IN = 10
_PLACED = (ReservationPhase.HELD, ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE)


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """A span in which a worker must be ready."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whether a worker should be on, by which rule, and when the answer may change by the clock alone."""

    on: bool
    rule: str
    look: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkerNeeds:
    """One worker's part of the calendar."""

    worker: Worker
    needs: Sequence[Need]
    busy: bool
    """It has an instance that has not ended."""

    def next_need(self, now: datetime) -> Need | None:
        """The first that has not ended."""
        return next((need for need in self.needs if need.end > now), None)


def needs_of(
    reservations: Iterable[Reservation], pool: PoolSpec, ended: Container[str] = ()
) -> Mapping[str, tuple[Need, ...]]:
    """Worker → its needs, in order. A seat needs its worker from the preparation before its slot to the turnaround after;
    one whose instance is among `ended` (before its slot did) needs nothing any more."""
    found: dict[str, set[Need]] = {}
    for reservation in reservations:
        for worker, need in seats_of(reservation, pool, ended):
            found.setdefault(worker, set()).add(need)
    return {worker: tuple(sorted(needs)) for worker, needs in found.items()}


def seats_of(reservation: Reservation, pool: PoolSpec, ended: Container[str] = ()) -> Sequence[tuple[str, Need]]:
    """Worker and need of each seat of one reservation, as `needs_of` counts them."""
    slot = reservation.slot
    if slot is None or reservation.status.phase not in _PLACED:
        return ()
    preparation = timedelta(minutes=pool.preparation_minutes)
    turnaround = timedelta(minutes=pool.turnaround_minutes)
    need = Need(slot.start - preparation, slot.end + turnaround)
    return [
        (seat.worker, need)
        for seat in reservation.status.placement
        if seat.state is SeatState.PLACED and seat.instance not in ended
    ]


def is_live(instance: Instance, now: datetime) -> bool:
    """It may hold something on its worker, which therefore stays on. One that only waits for its worker holds nothing: the
    calendar speaks for it. A failed lab that could not be cleaned up in time no longer keeps its worker on: switching that
    off is what is left to end it."""
    status = instance.status
    if status.phase in (InstancePhase.PENDING, InstancePhase.TERMINATED) or status.released:
        return False
    if status.phase is InstancePhase.FAILED and status.deadline is not None and now >= status.deadline:
        return False
    return bool(status.attempts) and status.attempts[-1].ended_at is None


def plan_power(pool: PoolSpec, workers: Sequence[WorkerNeeds], now: datetime, grace: timedelta) -> dict[str, Wanted]:
    """Every worker's wanted power. `min` and `warm` are met with the lowest names; licences allowed to the pool go to
    those that are busy, then on, then needed first; whoever is only cooling down comes last."""
    wanted = {one.worker.id: by_calendar(one, now, grace, pool) for one in workers}
    spare = sorted((one for one in workers if not wanted[one.worker.id].on and _usable(one, now)), key=_name)
    short = pool.min - sum(want.on for want in wanted.values())
    for one in spare[: max(0, short)]:
        wanted[one.worker.id] = Wanted(True, "minimum", wanted[one.worker.id].look)
    spare = spare[max(0, short) :]
    stand_ins = _stand_ins(workers, wanted, now)
    for one in spare[:stand_ins]:
        wanted[one.worker.id] = Wanted(True, "stand-in", wanted[one.worker.id].look)
    spare = spare[stand_ins:]
    idle = sum(1 for one in workers if wanted[one.worker.id].on and not one.busy and not _needed(one, now))
    for one in spare[: max(0, pool.warm - idle)]:
        wanted[one.worker.id] = Wanted(True, "warm", wanted[one.worker.id].look)
    if pool.allowed_licenses is not None:
        _ration(pool.allowed_licenses, workers, wanted, now)
    return wanted


def by_calendar(one: WorkerNeeds, now: datetime, grace: timedelta, pool: PoolSpec) -> Wanted:
    """What a worker's own calendar says, whatever the others do: with its next need, this is all of the calendar that a plan
    depends on. The placement engine's rule: a worker that is on stays on when its next slot begins within the grace, or so
    soon that it would have to be powered on at once."""
    worker = one.worker
    preparation = timedelta(minutes=pool.preparation_minutes)
    lead = timedelta(minutes=pool.lead_of(worker.spec.boot_minutes))
    bridge = max(grace, lead)
    if one.busy and worker.is_on:
        return Wanted(True, "instance")
    if worker.spec.replacing is not None:
        return Wanted(False, "replacement")
    for span in worker.spec.maintenance:
        if span.frm <= now < span.to:
            return Wanted(False, "maintenance", span.to)
    first = one.next_need(now)
    if first is None:
        return _cooling(worker, now, pool) or Wanted(False, "no-need")
    switch_on = first.start + preparation - lead
    if now >= switch_on:
        end = first.end
        for need in one.needs:
            if need.end > now and need.start + preparation - end > bridge:
                break
            end = max(end, need.end)
        return Wanted(True, "calendar", end)
    if worker.is_on and first.start + preparation - now <= bridge:
        return Wanted(True, "gap-within-grace", switch_on)
    return _cooling(worker, now, pool) or Wanted(False, "need-later", switch_on)


def _cooling(worker: Worker, now: datetime, pool: PoolSpec) -> Wanted | None:
    """Kept on because it came up not long ago. A mark that was undone is no coming up."""
    up = next((m.at for m in reversed(worker.status.history) if m.frm == _P.LICENSING and m.to == _P.READY), None)
    if worker.status.phase is not _P.READY or up is None:
        return None
    end = up + timedelta(minutes=pool.cooldown_minutes)
    return Wanted(True, "cooldown", end) if now < end else None


def _ration(allowed: int, workers: Sequence[WorkerNeeds], wanted: dict[str, Wanted], now: datetime) -> None:
    """Holds back those that would take a licence more than the pool may have. Whoever goes off, or is being cleaned away, has
    its licence until it is off: until then nobody else is powered on in its place. Agents' hosts hold none."""
    workers = [one for one in workers if one.worker.spec.runtime != RUNTIME]

    def rank(one: WorkerNeeds) -> tuple[bool, bool, bool, datetime, str]:
        need = one.next_need(now)
        first = need.start if need is not None else datetime.max.replace(tzinfo=now.tzinfo)
        cooling = wanted[one.worker.id].rule == "cooldown"
        return (not one.busy, cooling, not one.worker.is_on, first, one.worker.id)

    candidates = sorted((one for one in workers if wanted[one.worker.id].on), key=rank)
    for one in candidates[allowed:]:
        if not one.busy:
            wanted[one.worker.id] = Wanted(False, "licenses", wanted[one.worker.id].look)
    going = sum(one.worker.status.phase is not _P.OFFLINE and not wanted[one.worker.id].on for one in workers)
    off = [one for one in candidates[:allowed] if one.worker.status.phase is _P.OFFLINE]
    beyond = min(len(candidates), allowed) + going - allowed
    for one in off[max(0, len(off) - beyond) :] if beyond > 0 else ():
        wanted[one.worker.id] = Wanted(False, "licenses", wanted[one.worker.id].look)


def _usable(one: WorkerNeeds, now: datetime) -> bool:
    in_maintenance = any(span.frm <= now < span.to for span in one.worker.spec.maintenance)
    cordon = one.worker.spec.unschedulable
    cordoned = cordon is not None and (cordon.until is None or now < cordon.until)
    return not cordoned and not in_maintenance and one.worker.spec.replacing is None


def _stand_ins(workers: Sequence[WorkerNeeds], wanted: Mapping[str, Wanted], now: datetime) -> int:
    """Workers powered on beside those whose boots take longer than they should: one for each, but where a whole cloud is
    slow no more than one for ten that are needed."""
    needed = [one.worker for one in workers if wanted[one.worker.id].rule == "calendar"]
    return min(sum(worker.boot_overdue(now) for worker in needed), 1 + len(needed) // _PER_STAND_IN)


def _needed(one: WorkerNeeds, now: datetime) -> bool:
    need = one.next_need(now)
    return need is not None and need.start <= now


def _name(one: WorkerNeeds) -> str:
    return one.worker.id
