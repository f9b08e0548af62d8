"""What is over-committed, counted minute by minute from the stored reservations and instances alone, without the engine."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lablet_common.resources import Slot, Worker, WorkerPool, schema
from lablet_common.resources.definition import DefinitionSpec
from lablet_common.resources.kinds import DEFINITION, INSTANCE, POOL, REQUEST, RESERVATION, SERIES, WORKER
from lablet_common.store import Store
from lablet_common.store.changes import decode


@dataclass(frozen=True)
class Stay:
    """One seat on one worker."""

    worker: Worker
    slot: Slot
    late: datetime
    """Until when its lab is there, if it stays too long; else the end of the slot."""
    rest: timedelta
    """The pool's turnaround."""
    needs: DefinitionSpec
    numbers: tuple[int, ...]
    settled: bool
    """It has no lab yet, and nobody has told its owner that it may have to move."""


async def over_committed(world: Any, beside: Collection[str]) -> list[str]:
    """In words; what `World.faults` says."""
    pools = {pool.id: pool for pool in await world.all(POOL)}
    workers = {worker.id: worker for worker in await world.all(WORKER)}
    definitions = {(d.tenant, d.id): d.spec for d in await world.all(DEFINITION)}
    instances = {instance.id: instance for instance in await world.all(INSTANCE)}
    stays: list[Stay] = []
    found: list[str] = []
    for reservation in await world.all(RESERVATION):
        slot, seats = reservation.slot, reservation.status.placement
        if reservation.id in beside or slot is None:
            continue
        holds = reservation.status.phase in ("Held", "Scheduled", "Active")
        if holds and sorted(seat.seat for seat in seats) != list(range(1, reservation.spec.seats + 1)):
            found.append(f"{reservation.id} has not all of its seats")
        needs = definitions[reservation.tenant, reservation.spec.definition]
        for seat in seats:
            lab = instances.get(seat.instance)
            ended = lab is not None and lab.status.phase == "Terminated"
            gone = lab is None or ended or (lab.status.phase == "Failed" and lab.status.released)
            there = lab is not None and not gone and lab.spec.worker == seat.worker
            if not there and not (holds and seat.state == "placed" and not ended):
                continue
            settled = lab is None and reservation.status.condition("AtRisk") is None
            late = world.clock.now() + timedelta(minutes=1) if there else slot.end
            numbers = tuple(seat.ports.values())
            worker = workers[seat.worker]
            rest = timedelta(minutes=pools[worker.spec.pool].spec.turnaround_minutes)
            stays.append(Stay(worker, slot, max(slot.end, late), rest, needs, numbers, settled))
            if len(numbers) != len(needs.ports):
                found.append(f"{reservation.id}/{seat.seat} lacks ports")
    for pool in pools.values():
        found += _over(pool, [stay for stay in stays if stay.worker.spec.pool == pool.id], world.clock.now())
    return found


async def remembered_otherwise(store: Store) -> list[str]:
    """What this process remembers of having written, and would read otherwise."""
    return [
        f"{kv.key} is remembered otherwise than it stands in the store"
        for kind in (RESERVATION, REQUEST, SERIES)
        for kv in (await store.range(kind.prefix)).items
        if decode(kind, kv) != schema.read(kind.model, kv.value).at_revision(kv.mod_revision)
    ]


def _over(pool: WorkerPool, stays: Sequence[Stay], now: datetime) -> list[str]:
    found = [
        f"{stay.worker.id}: booked in maintenance"
        for stay in stays
        for span in stay.worker.spec.maintenance
        if stay.settled and span.frm < stay.slot.end + stay.rest and stay.slot.start < span.to
    ]
    for moment in sorted({now, *(stay.slot.start for stay in stays if stay.slot.start > now)}):
        planned = [(stay, stay.slot.end) for stay in stays if stay.slot.start <= moment]
        really = [(stay, stay.late) for stay in stays if stay.slot.start <= moment]
        said = _over_at(pool, planned, moment)
        if not said and any(stay.settled and stay.slot.end > moment for stay, _ in planned):
            said = _over_at(pool, really, moment)
        found += [f"{moment:%H:%M} {words}" for words in said]
    return found


def _over_at(pool: WorkerPool, there: Iterable[tuple[Stay, datetime]], moment: datetime) -> list[str]:
    """`there`: who has come, and until when each stays (turnaround not included)."""
    running: dict[str, list[Stay]] = {}
    holding: dict[str, list[Stay]] = {}
    for stay, end in there:
        for kept, until in ((running, end), (holding, end + stay.rest)):
            if moment < until:
                kept.setdefault(stay.worker.id, []).append(stay)
    found = []
    for name, mine in holding.items():
        spec = mine[0].worker.spec
        labs = [stay.needs.requirements for stay in running.get(name, ())]
        numbers = [number for stay in mine for number in stay.numbers]
        for what, used, most in (
            ("cores", sum(needs.cpu_cores for needs in labs), spec.capacity.cpu_cores),
            ("GB of memory", sum(needs.memory_gb for needs in labs), spec.capacity.memory_gb),
            ("GB of storage", sum(needs.storage_gb for needs in labs), spec.capacity.storage_gb),
            ("nodes", sum(stay.needs.requirements.node_count for stay in mine), spec.max_nodes or 10**9),
            ("times a port", max((numbers.count(number) for number in numbers), default=0), 1),
        ):
            if used > most:
                found.append(f"{name}: {used:g} {what}, {most:g} there")
        if any(not spec.port_range.start <= number <= spec.port_range.end for number in numbers):
            found.append(f"{name}: a port out of range")
    allowed = pool.spec.allowed_licenses
    if allowed is not None and len(holding) > allowed:
        found.append(f"{len(holding)} workers on, {allowed} licences")
    return found
