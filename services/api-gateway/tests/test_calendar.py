"""A pool's calendar over time: every step says what a look at each instant would, and large pools are one pass."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from lablet_common.resources.definition import Requirements
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import (
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
    SeatPlacement,
    Slot,
)
from lablet_common.resources.worker import (
    Capacity,
    Cordon,
    LicenseSeen,
    Maintenance,
    PoolSpec,
    Worker,
    WorkerPhase,
    WorkerSpec,
    WorkerStatus,
)
from lablet_gateway import calendar
from lablet_gateway.calendar import PoolCalendar, Window, pool_calendar

NOW = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)
NEEDS = Requirements(cpu_cores=0.1, memory_gb=2.5, storage_gb=1, node_count=3)
SPEC = PoolSpec(template="simulated", max=200)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def worker(name: str, **spec: Any) -> Worker:
    return Worker(
        metadata=Metadata(id=name, uid=name, tenant="default", created_at=NOW),
        spec=WorkerSpec(
            pool="default",
            template="simulated",
            capacity=Capacity(cpu_cores=16, memory_gb=64, storage_gb=200),
            max_nodes=20,
            license="PERSONAL",
            boot_minutes=8,
            **spec,
        ),
        status=WorkerStatus(phase=WorkerPhase.READY),
    )


def booking(name: str, start: datetime, end: datetime, *workers: str) -> Reservation:
    seats = tuple(SeatPlacement(seat=n, worker=w, ports={}, instance=f"{name}-{n}") for n, w in enumerate(workers, 1))
    return Reservation(
        metadata=Metadata(id=name, uid=name, tenant="default", owner="ina", created_at=NOW),
        spec=ReservationSpec(definition="ospf@1.0.0", seats=len(seats), start=start, end=end, duration_minutes=60),
        status=ReservationStatus(
            phase=ReservationPhase.SCHEDULED, pool="default", slot=Slot(start=start, end=end), placement=seats
        ),
    )


def told(workers: list[Worker], bookings: list[Reservation], days: float = 1) -> PoolCalendar:
    window = Window(NOW, NOW + timedelta(days=days), NOW)
    return pool_calendar("default", SPEC, workers, bookings, {}, lambda _: NEEDS, window, "default")


def test_what_its_licence_allows_counts_as_a_workers_nodes_whether_it_is_up_or_off() -> None:
    known = LicenseSeen(status="IN_COMPLIANCE", node_quota=8, seen_at=NOW)
    less = worker("w-0").observed(last_license=known)
    (step,) = told([less, worker("w-1")], []).steps
    assert step.free.nodes == 8 + 20


@pytest.mark.parametrize("seed", range(20))
def test_each_step_says_what_is_booked_and_free_at_its_start(seed: int) -> None:
    random = Random(seed)
    workers = [worker(f"w-{n}") for n in range(4)]
    workers.append(worker("w-4", maintenance=(Maintenance(frm=at(300), to=at(500)),)))
    workers.append(worker("w-5", unschedulable=Cordon(reason="fan", by="op", until=at(700))))
    names = [one.id for one in workers] + ["w-gone"]
    bookings = []
    for number in range(40):
        start = at(random.randrange(-200, 1500, 5))
        end = start + timedelta(minutes=random.choice((45, 60, 120)))
        bookings.append(booking(f"rsv-{number}", start, end, *random.choices(names, k=3)))
    shut = {"w-4": lambda when: at(300) <= when < at(500), "w-5": lambda when: when < at(700)}
    steps = told(workers, bookings).steps
    assert (steps[0].start, steps[-1].end) == (NOW, at(1440))
    for step in steps:
        busy = [seat.worker for one in bookings if one.slot and one.slot.start <= step.start < one.slot.end
                for seat in one.status.placement]  # fmt: skip
        open_names = [one.id for one in workers if one.id not in shut or not shut[one.id](step.start)]
        inside = sum(name in open_names for name in busy)
        assert step.workers == len(open_names)
        assert (step.booked.seats, step.booked.nodes) == (len(busy), 3 * len(busy))
        assert step.booked.cpu_cores == round(0.1 * len(busy), 6)
        assert step.free.nodes == 20 * len(open_names) - 3 * inside
        assert step.free.memory_gb == 64 * len(open_names) - 2.5 * inside


def test_two_hundred_workers_and_three_thousand_seats_are_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(1)
    workers = [worker(f"w-{n:03}") for n in range(200)]
    starts = [at(random.randrange(0, 7 * 1440, 5)) for _ in range(1_000)]
    bookings = [
        booking(f"rsv-{n}", start, start + timedelta(hours=2), *(one.id for one in random.sample(workers, 3)))
        for n, start in enumerate(starts)
    ]
    looked = 0
    takes_seats = calendar._takes_seats
    count = calendar._Tally.count

    def look(one: Worker, when: datetime) -> bool:
        nonlocal looked
        looked += 1
        return takes_seats(one, when)

    def counted(tally: Any, needs: Requirements, sign: int) -> None:
        nonlocal looked
        looked += 1
        count(tally, needs, sign)

    monkeypatch.setattr(calendar, "_takes_seats", look)
    monkeypatch.setattr(calendar._Tally, "count", counted)
    assert len(told(workers, bookings, days=7).steps) > 1_000
    assert looked < 20_000  # a look at every seat and worker in every step would be four million
