"""A slow, independent judge of a calendar, and short ways to make workers, demands and requests.

The judge shares no code with the engine: it counts minute by minute, in floats and sets, from the bookings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Refusal,
    WorkerView,
    place,
)


class Judge:
    """Finds what is wrong with a set of bookings."""

    def on_minutes(self, policy: PoolPolicy, worker: WorkerView, bookings: Iterable[Booking]) -> set[int]:
        """Minutes in which a worker is on, played through minute by minute: up for a need, down after a rest."""
        needs = sorted(
            (b.start, (b.occupied_end or b.end) + policy.turnaround) for b in bookings if b.worker == worker.name
        )
        lead = worker.boot_minutes + policy.preparation
        on: set[int] = set()
        last_end: int | None = None
        for start, end in needs:
            if last_end is not None and start - last_end <= policy.grace:
                on.update(range(last_end, start))
            on.update(range(start - lead, end))
            last_end = end if last_end is None else max(last_end, end)
        return on

    def faults(
        self,
        policies: Iterable[PoolPolicy],
        workers: Iterable[WorkerView],
        bookings: Iterable[Booking],
        exposed: Collection[tuple[str, int]] = (),
    ) -> list[str]:
        """Every over-commitment, in words; empty when the calendar is sound. `exposed`: seats that may be in a maintenance
        span."""
        by_pool = {policy.pool: policy for policy in policies}
        all_workers, all_bookings = list(workers), list(bookings)
        found: list[str] = []
        on: dict[tuple[str, str], dict[int, int]] = {}
        for worker in all_workers:
            policy = by_pool[worker.pool]
            mine = [b for b in all_bookings if b.worker == worker.name]
            rest = policy.turnaround
            minutes = {m for b in mine for m in (b.start, (b.occupied_end or b.end), (b.occupied_end or b.end) + rest)}
            minutes |= {span.start for span in worker.maintenance}
            for m in sorted(minutes):
                running = [b for b in mine if b.start <= m < (b.occupied_end or b.end)]
                holding = [b for b in mine if b.start <= m < (b.occupied_end or b.end) + rest]
                for name, used, most in (
                    ("cpu", sum(b.demand.cpu_cores for b in running), worker.cpu_cores),
                    ("memory", sum(b.demand.memory_gb for b in running), worker.memory_gb),
                    ("storage", sum(b.demand.storage_gb for b in running), worker.storage_gb),
                    ("nodes", sum(b.demand.nodes for b in holding), worker.max_nodes or 10**9),
                ):
                    if used > most + 1e-6:
                        found.append(f"{worker.name} at {m}: {name} {used} > {most}")
                numbers = [number for b in holding for _, number in b.ports]
                if len(numbers) != len(set(numbers)):
                    found.append(f"{worker.name} at {m}: ports {sorted(numbers)}")
                if any(not worker.port_start <= number <= worker.port_end for number in numbers):
                    found.append(f"{worker.name}: port out of range")
                if any(span.start <= m < span.end for span in worker.maintenance):
                    found += [f"{worker.name} at {m}: {b.key} in maintenance" for b in holding if b.key not in exposed]
            counts = on.setdefault((worker.pool, worker.licence), {})
            for m in self.on_minutes(policy, worker, mine):
                counts[m] = counts.get(m, 0) + 1
        for (pool, kind), counts in on.items():
            limit = by_pool[pool].licence_limits.get(kind)
            if limit is not None and any(count > limit for count in counts.values()):
                found.append(f"{pool}: more than {limit} {kind} licences")
        return found

    def fits(
        self,
        policies: Iterable[PoolPolicy],
        workers: Iterable[WorkerView],
        bookings: Iterable[Booking],
        request: PlacementRequest,
    ) -> bool:
        """Whether one-seat-per-worker-at-a-time trial finds room for all seats (no licences, ports only counted)."""
        booked, policy_list = list(bookings), list(policies)
        for number in request.numbers:
            for worker in workers:
                trial = Booking(request.reservation, number, worker.name, request.start, request.end, request.demand)
                if not self.faults(policy_list, [worker], [*booked, trial]):
                    booked.append(trial)
                    break
            else:
                return False
        return True


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def worker() -> Callable[..., WorkerView]:
    def make(name: str = "w-1", **changes: object) -> WorkerView:
        values: dict[str, object] = {"pool": "default", "cpu_cores": 8, "memory_gb": 32, "storage_gb": 100}
        return WorkerView(name=name, **(values | changes))  # type: ignore[arg-type]  # test values

    return make


@pytest.fixture
def request_for() -> Callable[..., PlacementRequest]:
    def make(start: int = 6000, minutes: int = 60, reservation: str = "r1", **changes: object) -> PlacementRequest:
        demand = changes.pop("demand", Demand(cpu_cores=2, memory_gb=4))
        values: dict[str, object] = {"pool": "default"} | changes
        return PlacementRequest(
            reservation=reservation,
            start=start,
            end=start + minutes,
            demand=demand,  # type: ignore[arg-type]  # test values
            **values,  # type: ignore[arg-type]  # test values
        )

    return make


@pytest.fixture
def put(request_for: Callable[..., PlacementRequest]) -> Callable[..., Placement]:
    """Places and books, and insists that it worked."""

    def act(calendar: Calendar, *arguments: object, **changes: object) -> Placement:
        decision = place(calendar, request_for(*arguments, **changes))
        assert isinstance(decision, Placement), decision.explanation.summary
        calendar.book_all(decision.bookings())
        return decision

    return act


@pytest.fixture
def refused(request_for: Callable[..., PlacementRequest]) -> Callable[..., Refusal]:
    """Places, and insists that it was refused."""

    def act(calendar: Calendar, *arguments: object, **changes: object) -> Refusal:
        decision = place(calendar, request_for(*arguments, **changes))
        assert isinstance(decision, Refusal)
        return decision

    return act


@pytest.fixture
def wasteful(worker: Callable[..., WorkerView]) -> Calendar:
    """Two half-full workers, on at the same time although one would do."""
    policy = PoolPolicy("default", grace=0)
    calendar = Calendar([policy], [worker(name, boot_minutes=20) for name in ("w-1", "w-2")])
    for reservation, name in (("a", "w-1"), ("b", "w-2")):
        calendar.book(Booking(reservation, 1, name, 6000, 6060, Demand(cpu_cores=4)))
    return calendar
