"""The border to the engine: every requirement of a definition refuses by itself, and what a pool decides arrives."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common.resources import Definition, Metadata, Worker, WorkerPool
from lablet_common.resources.definition import DefinitionPhase, DefinitionSpec, DefinitionStatus
from lablet_common.resources.reservation import Reservation, ReservationPhase, ReservationSpec, ReservationStatus
from lablet_common.resources.worker import (
    MOST_LEAD_MINUTES,
    PoolSpec,
    PoolStatus,
    WorkerPhase,
    WorkerSpec,
    WorkerStatus,
)
from lablet_scheduler import engine
from lablet_scheduler.state import PoolState
from lablet_scheduler.views import demand_of, policy_of, worker_view

AT = datetime(2027, 3, 1, 8, tzinfo=UTC)
START = engine.to_minute(AT + timedelta(days=1))


def meta(name: str, **labels: str) -> Metadata:
    return Metadata(id=name, uid=name, tenant="default", created_at=AT, labels=labels)


def worker_of(name: str = "w-1", **spec: Any) -> Worker:
    shape = {
        "pool": "default",
        "template": "simulated",
        "capacity": {"cpu_cores": 8, "memory_gb": 32, "storage_gb": 100},
        "max_nodes": 20,
        "license": "ENTERPRISE",
        "port_range": {"start": 2000, "end": 2003},
        "runtime_version": "2.9.1",
        "node_definitions": ("iosv", "alpine"),
        "boot_minutes": 0,
    }
    return Worker(
        metadata=meta(name, site="berlin"),
        spec=WorkerSpec.model_validate(shape | spec),
        status=WorkerStatus(phase=WorkerPhase.OFFLINE),
    )


def definition_of(
    requirements: Mapping[str, float] | None = None,
    runtime: Mapping[str, Any] | None = None,
    ports: int = 0,
    **spec: Any,
) -> Definition:
    needs = {"cpu_cores": 2, "memory_gb": 4, "storage_gb": 10, "node_count": 4}
    return Definition(
        metadata=meta("ospf@1.0.0"),
        spec=DefinitionSpec.model_validate(
            {
                "name": "ospf",
                "version": "1.0.0",
                "topology": {"digest": "0" * 64, "bytes": 1},
                "requirements": needs | dict(requirements or {}),
                "runtime": dict(runtime or {}),
                "ports": [{"name": f"p{number}"} for number in range(ports)],
                "max_duration_minutes": 600,
            }
            | spec
        ),
        status=DefinitionStatus(phase=DefinitionPhase.PUBLISHED),
    )


def pool_of(**spec: Any) -> WorkerPool:
    shape = {"template": "simulated", "max": 4, "turnaround_minutes": 0, "preparation_minutes": 0}
    return WorkerPool(metadata=meta("default"), spec=PoolSpec.model_validate(shape | spec), status=PoolStatus())


def calendar_of(pool: WorkerPool, *workers: Worker) -> engine.Calendar:
    return engine.Calendar([policy_of(pool, str(workers[0].spec.license))], [worker_view(one) for one in workers])


def ask(
    calendar: engine.Calendar,
    definition: Definition,
    selector: Mapping[str, str] | None = None,
    *,
    name: str = "r1",
    start: int = START,
    seats: int = 1,
) -> engine.Placement | engine.Refusal:
    demand = demand_of(definition, selector or {})
    answer = engine.place(
        calendar, engine.PlacementRequest(name, "default", demand, start, start + 60, seats=seats, now=START - 600)
    )
    if isinstance(answer, engine.Placement):
        calendar.book_all(answer.bookings())
    return answer


ALL_AT_ONCE = definition_of(
    {"cpu_cores": 8, "memory_gb": 32, "storage_gb": 100, "node_count": 20},
    {"min_version": "2.9.1", "max_version": "2.9.1", "node_definitions": ("iosv",), "name": "cml"},
    ports=4,
    licenses=("ENTERPRISE",),
)


def test_a_worker_that_meets_each_requirement_exactly_takes_it() -> None:
    assert isinstance(ask(calendar_of(pool_of(), worker_of()), ALL_AT_ONCE, {"site": "berlin"}), engine.Placement)


@pytest.mark.parametrize(
    ("definition", "selector", "name"),
    [
        (definition_of(licenses=("PERSONAL",)), {}, "license"),
        (definition_of(runtime={"min_version": "2.10"}), {}, "runtimeVersion"),
        (definition_of(runtime={"max_version": "2.9.0"}), {}, "runtimeVersion"),
        (definition_of(runtime={"node_definitions": ("iosv", "nxos")}), {}, "nodeDefinitions"),
        (definition_of(runtime={"name": "process"}), {}, "runtime"),
        (definition_of({"node_count": 21}), {}, "nodeLimit"),
        (definition_of({"cpu_cores": 8.5}), {}, "size"),
        (definition_of({"memory_gb": 32.5}), {}, "size"),
        (definition_of({"storage_gb": 100.5}), {}, "size"),
        (definition_of(ports=5), {}, "size"),
        (definition_of(), {"site": "paris"}, "selector"),
    ],
)
def test_each_requirement_alone_refuses(definition: Definition, selector: Mapping[str, str], name: str) -> None:
    answer = ask(calendar_of(pool_of(), worker_of()), definition, selector)
    assert isinstance(answer, engine.Refusal)
    assert dict(answer.explanation.removed) == {name: 1}


def test_a_host_that_runs_processes_takes_them_and_nothing_else() -> None:
    host = worker_of(runtime="process")
    ready = host.status.model_copy(update={"phase": WorkerPhase.READY})
    calendar = calendar_of(pool_of(), host.model_copy(update={"status": ready}))
    assert isinstance(ask(calendar, definition_of()), engine.Refusal)
    assert isinstance(ask(calendar, definition_of(runtime={"name": "process"})), engine.Placement)


@pytest.mark.parametrize("rest", [0, 15])
def test_a_pools_turnaround_lies_between_two_slots(rest: int) -> None:
    calendar = calendar_of(pool_of(turnaround_minutes=rest), worker_of())
    full = definition_of({"node_count": 20})
    assert isinstance(ask(calendar, full), engine.Placement)
    early = ask(calendar, full, name="r2", start=START + 60 + rest - 1)
    assert isinstance(early, engine.Refusal)
    assert isinstance(ask(calendar, full, name="r3", start=START + 60 + rest), engine.Placement)


@pytest.mark.parametrize(("allowed", "placed"), [(None, 2), (2, 2), (1, 1)])
def test_a_pool_has_no_more_workers_on_than_its_licences(allowed: int | None, placed: int) -> None:
    calendar = calendar_of(pool_of(allowed_licenses=allowed), worker_of("w-1"), worker_of("w-2"))
    whole = definition_of({"cpu_cores": 8})
    answers = [ask(calendar, whole, name=f"r{number}") for number in range(2)]
    assert sum(isinstance(answer, engine.Placement) for answer in answers) == placed
    if placed == 1:
        assert answers[1].explanation.removed["licenseCount"] == 1


@pytest.mark.parametrize(("policy", "used"), [("pack", 1), ("spread", 2)])
def test_a_pools_policy_says_whether_seats_come_together(policy: str, used: int) -> None:
    calendar = calendar_of(pool_of(policy=policy), worker_of("w-1"), worker_of("w-2"))
    answer = ask(calendar, definition_of(), seats=2)
    assert isinstance(answer, engine.Placement)
    assert len({seat.worker for seat in answer.seats}) == used


def test_durations_and_sizes_beyond_what_the_calendar_holds_are_taken_as_the_most_it_does() -> None:
    year = 365 * 24 * 60
    durations = ("turnaround_minutes", "preparation_minutes", "boot_reserve_minutes", "scale_down_grace_minutes")
    pool = pool_of(**dict.fromkeys(durations, year))
    large = worker_of(
        boot_minutes=year, capacity={"cpu_cores": 1e9, "memory_gb": 1e9, "storage_gb": 1e9}, max_nodes=10**12
    )
    assert isinstance(ask(calendar_of(pool, large), definition_of(), start=START + year), engine.Placement)
    assert policy_of(pool, None).grace == MOST_LEAD_MINUTES == engine.model.MAX_LEAD_MINUTES


@pytest.mark.parametrize("version", ["latest", "", "9" * 5000])
def test_what_is_no_version_refuses_nobody(version: str) -> None:
    asked = definition_of(runtime={"min_version": version, "max_version": version})
    calendar = calendar_of(pool_of(), worker_of(runtime_version=version), worker_of("w-2"))
    assert isinstance(ask(calendar, asked, seats=4), engine.Placement)


def test_a_port_that_is_named_twice_is_one() -> None:
    once = definition_of(ports=1)
    twice = once.model_copy(update={"spec": once.spec.model_copy(update={"ports": once.spec.ports * 2})})
    placed = ask(calendar_of(pool_of(), worker_of()), twice)
    assert isinstance(placed, engine.Placement)
    assert placed.seats[0].ports == (("p0", 2000),)


def test_demands_that_nobody_asks_for_again_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lablet_scheduler.state._REMEMBERED", 10)
    known = PoolState(pool_of(), lambda *_: definition)
    definition = definition_of()
    for number in range(25):
        spec = ReservationSpec(definition="ospf@1.0.0", duration_minutes=60, worker_selector={"host": str(number)})
        status = ReservationStatus(phase=ReservationPhase.PENDING)
        demand = known.demand(Reservation(metadata=meta(f"rsv-{number}"), spec=spec, status=status))
        assert demand is not None
        assert demand.selector == (("host", str(number)),)
    assert len(known._demands) <= 10
