"""How long a pool's owner takes from the stored values of its workers and reservations to the calendar: decoding each value
and taking all of them in, as after a take-over, without the network between etcd and the process."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import RESERVATION, WORKER
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import PoolSpec, PoolStatus, Worker, WorkerPool
from lablet_common.store.api import KeyValue
from lablet_common.store.changes import decode
from lablet_scheduler.engine import Booking, Demand, WorkerView
from lablet_scheduler.state import PoolState

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def rebuilt(workers: Sequence[WorkerView], bookings: Sequence[Booking], pool: str) -> tuple[float, int]:
    """Seconds of CPU time, and how many reservations they are. `bookings` are sorted by reservation or at least stand
    together. Raises AssertionError when not every seat is on the calendar then."""
    demands = {one.demand: f"lab-{number}" for number, one in enumerate({b.demand: b for b in bookings}.values())}
    definitions = {f"{name}@1.0.0": _definition(name, demand) for demand, name in demands.items()}
    grouped = [list(seats) for _, seats in groupby(bookings, key=lambda one: one.reservation)]
    stored = [_reservation(seats, demands, pool) for seats in grouped]
    machines = [_worker(view) for view in workers]
    spec = PoolSpec(template="sim", max=len(workers))
    about = Metadata(id=pool, uid=pool, created_at=NOW)
    state = PoolState(
        WorkerPool(metadata=about, spec=spec, status=PoolStatus()), lambda _tenant, name: definitions.get(name)
    )
    begun = time.process_time()
    for kv in machines:
        worker = decode(WORKER, kv)
        assert isinstance(worker, Worker)
        state.put_worker(worker, NOW)
    found: list[Reservation] = []
    for kv in stored:
        reservation = decode(RESERVATION, kv)
        assert isinstance(reservation, Reservation)
        found.append(reservation)
    for _ in state.load(found, NOW):
        pass
    seconds = time.process_time() - begun
    entered = sum(1 for _ in state.calendar.bookings())
    assert entered == len(bookings), f"{entered} of {len(bookings)} seats are on the calendar"
    return seconds, len(stored)


def _instant(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _definition(name: str, demand: Demand) -> Definition:
    needs = {
        "cpuCores": demand.cpu_cores,
        "memoryGb": demand.memory_gb,
        "storageGb": demand.storage_gb,
        "nodeCount": demand.nodes,
    }
    spec = {
        "name": name,
        "version": "1.0.0",
        "topology": {"digest": "0" * 64, "bytes": 1},
        "requirements": needs,
        "ports": [{"name": port} for port in demand.ports],
    }
    about = {"id": f"{name}@1.0.0", "uid": name, "createdAt": _instant(0)}
    return Definition.model_validate({"metadata": about, "spec": spec, "status": {"phase": "Published"}})


def _reservation(seats: Sequence[Booking], demands: Mapping[Demand, str], pool: str) -> KeyValue:
    first = seats[0]
    slot = {"start": _instant(first.start), "end": _instant(first.end)}
    spec = {
        "definition": f"{demands[first.demand]}@1.0.0",
        "seats": len(seats),
        **slot,
        "durationMinutes": first.end - first.start,
    }
    placement = [
        {
            "seat": one.seat,
            "worker": one.worker,
            "ports": dict(one.ports),
            "instance": f"ins-{first.reservation}-{one.seat}",
        }
        for one in seats
    ]
    status = {"phase": "Scheduled", "pool": pool, "slot": slot, "placement": placement}
    about = {
        "id": first.reservation,
        "uid": first.reservation,
        "owner": "ada",
        "createdAt": _instant(first.start - 1440),
    }
    made = Reservation.model_validate({"metadata": about, "spec": spec, "status": status})
    return KeyValue(f"/reservations/default/{first.reservation}", made.to_json(), 7, 7)


def _worker(view: WorkerView) -> KeyValue:
    capacity = {"cpuCores": view.cpu_cores, "memoryGb": view.memory_gb, "storageGb": view.storage_gb}
    spec = {
        "pool": view.pool,
        "template": "sim",
        "capacity": capacity,
        "maxNodes": view.max_nodes,
        "license": "ENTERPRISE",
        "bootMinutes": view.boot_minutes,
    }
    about = {"id": view.name, "uid": view.name, "createdAt": _instant(0)}
    made = Worker.model_validate({"metadata": about, "spec": spec, "status": {"phase": "Offline"}})
    return KeyValue(f"/workers/{view.name}", made.to_json(), 7, 7)
