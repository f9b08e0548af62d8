"""A lab waits while others still hold what it needs, and those that wait go in the order of their slots."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common.resources.definition import LicenseKind, Requirements
from lablet_common.resources.instance import Instance, InstancePhase, InstanceSpec, InstanceStatus, LabRef
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import Capacity, LicenseSeen, Worker, WorkerPhase, WorkerSpec, WorkerStatus
from lablet_workers.instances.room import Neighbour, holds, in_the_way

NINE = datetime(2027, 3, 1, 9, tzinfo=UTC)
NEEDS = Requirements(cpu_cores=1, memory_gb=2, node_count=6)
SPEC = WorkerSpec(
    pool="default",
    template="simulated",
    capacity=Capacity(cpu_cores=8, memory_gb=16, storage_gb=100),
    max_nodes=20,
    license=LicenseKind.ENTERPRISE,
)
WORKER = Worker(
    metadata=Metadata(id="w-1", uid="w", created_at=NINE), spec=SPEC, status=WorkerStatus(phase=WorkerPhase.READY)
)


def _instance(
    number: int, phase: InstancePhase = InstancePhase.PENDING, *, minutes: int = 0, **status: Any
) -> Instance:
    start = NINE + timedelta(minutes=minutes)
    name = f"ins-{number}-1"
    return Instance(
        metadata=Metadata(id=name, uid=name, created_at=NINE),
        spec=InstanceSpec(
            reservation=f"rsv-{number}",
            seat=1,
            definition="lab@1.0.0",
            pool="default",
            worker="w-1",
            ports={"r1_serial": 2000 + number},
            start=start,
            end=start + timedelta(hours=1),
        ),
        status=InstanceStatus(phase=phase, **status),
    )


def _running(number: int, **status: Any) -> Neighbour:
    lab = LabRef(id=f"lab-{number}", worker="w-1", machine="m-1")
    return Neighbour(_instance(number, InstancePhase.RUNNING, minutes=-70, lab=lab, **status), NEEDS)


def _lacking(instance: Instance, *others: Neighbour, needs: Requirements = NEEDS) -> str:
    return in_the_way(instance, needs, WORKER, others, NINE)


def test_a_lab_starts_where_there_is_room() -> None:
    assert _lacking(_instance(1), _running(2), _running(3)) == ""


def test_a_lab_waits_until_one_that_overran_has_left() -> None:
    assert _lacking(_instance(1), _running(2), _running(3), _running(4)) == "nodes"


@pytest.mark.parametrize(
    ("needs", "lacking"),
    [
        (Requirements(cpu_cores=7.5, memory_gb=1, node_count=1), "cpu"),
        (Requirements(cpu_cores=1, memory_gb=15, node_count=1), "memory"),
        (Requirements(cpu_cores=1, memory_gb=1, storage_gb=101, node_count=1), "storage"),
    ],
)
def test_each_dimension_can_be_what_is_lacking(needs: Requirements, lacking: str) -> None:
    assert _lacking(_instance(1), _running(2), needs=needs) == lacking


def test_where_the_licence_allows_fewer_nodes_than_the_shape_there_is_room_for_fewer() -> None:
    seen = LicenseSeen(status="IN_COMPLIANCE", node_quota=12, seen_at=NINE)
    fewer = WORKER.model_copy(update={"status": WORKER.status.model_copy(update={"last_license": seen})})
    assert in_the_way(_instance(1), NEEDS, fewer, [_running(2)], NINE) == ""
    assert in_the_way(_instance(1), NEEDS, fewer, [_running(2), _running(3)], NINE) == "nodes"


def test_a_port_that_is_still_open_is_waited_for() -> None:
    other = _running(1)
    assert _lacking(_instance(1).model_copy(update={"metadata": _instance(9).metadata}), other).startswith("port 2001")


def test_of_those_that_wait_only_the_earlier_slots_go_first() -> None:
    held = [_running(2), _running(3)]
    first, second = _instance(5, minutes=-5), _instance(6)
    assert _lacking(first, *held, Neighbour(second, NEEDS)) == ""
    assert _lacking(second, *held, Neighbour(first, NEEDS)) == "nodes"


def test_one_that_waits_for_a_far_slot_holds_up_nobody() -> None:
    tomorrow = Neighbour(_instance(4, minutes=24 * 60), NEEDS)
    assert _lacking(_instance(7, minutes=25 * 60), _running(2), _running(3), tomorrow) == ""


def test_a_failed_lab_holds_its_place_until_it_is_proven_gone() -> None:
    lab = LabRef(id="lab-2", worker="w-1", machine="m-1")
    assert holds(_instance(2, InstancePhase.FAILED, lab=lab))
    assert not holds(_instance(2, InstancePhase.FAILED, released=True))
    assert not holds(_instance(2, InstancePhase.TERMINATED, lab=lab))
    assert holds(_instance(2, InstancePhase.INSTANTIATING))
