"""A host joins a pool: once, under one name, and only where agents are wanted."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import (
    PoolSpec,
    PoolStatus,
    SimpleStatus,
    TemplateSpec,
    Worker,
    WorkerPool,
    WorkerTemplate,
)
from lablet_workers.agents.registration import decide_registration
from lablet_workers.pools import is_surplus, missing_workers, recordoned

NOW = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
SIZE = {"cpuCores": 4, "memoryGb": 8, "storageGb": 50}


def meta(name: str) -> Metadata:
    return Metadata(id=name, uid=name, created_at=NOW)


def template(provider: str = "agent") -> WorkerTemplate:
    body = {"provider": provider, "instanceType": "host", "capacity": SIZE, "license": "EVALUATION", "maxNodes": 100}
    return WorkerTemplate(metadata=meta("agent"), spec=TemplateSpec.model_validate(body), status=SimpleStatus())


def pool(most: int = 2, name: str = "agents") -> WorkerPool:
    return WorkerPool(metadata=meta(name), spec=PoolSpec(template="agent", max=most), status=PoolStatus())


def asked(**more: Any) -> Any:
    body = {"pool": "agents", "host": "10.0.0.5", "capacity": SIZE, "portRange": {"start": 20_000, "end": 20_999}}
    spec = SimpleNamespace(data=body | more, event_id="e1")
    return SimpleNamespace(request=SimpleNamespace(spec=spec, id="req-1", metadata=meta("m")))


def decide(worker: Worker | None = None, members: int = 0, **more: Any) -> Any:
    given = {"pool": pool(), "template": template()} | {k: more.pop(k) for k in ("pool", "template") if k in more}
    return decide_registration("host-1", worker, given["pool"], given["template"], members, asked(**more), NOW)


def test_a_host_becomes_a_worker_with_what_it_has() -> None:
    made = decide(labels={"zone": "b"})
    assert made.reason == "Registered"
    spec = made.resource.spec
    assert (spec.pool, spec.runtime, spec.capacity.memory_gb, spec.port_range.start, spec.max_nodes) == (
        "agents",
        "process",
        8,
        20_000,
        100,
    )
    assert made.resource.metadata.labels == {"zone": "b"}
    assert made.resource.status.phase == "Offline"
    assert made.also.operations  # the pool's gate moves: there is more room


def test_the_same_again_changes_nothing_and_other_measures_are_taken_over() -> None:
    worker = decide().resource
    assert decide(worker, 1).reason == "AlreadyRegistered"
    grown = decide(worker, 1, capacity={"cpuCores": 8, "memoryGb": 8, "storageGb": 50})
    assert (grown.reason, grown.resource.spec.capacity.cpu_cores) == ("Registered", 8)
    assert grown.also.operations


@pytest.mark.parametrize(
    ("given", "slug"),
    [
        ({"pool": None}, "unknown-pool"),
        ({"template": template("simulated")}, "wrong-pool"),
        ({"members": 2}, "pool-full"),
        ({"pool": pool(name="others"), "worker": decide().resource}, "name-taken"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], slug: str) -> None:
    said = decide(**given)
    assert said.resource is None
    assert said.problem.type.endswith(f"/{slug}")


def test_a_known_host_of_a_full_pool_is_let_in_again() -> None:
    assert decide(decide().resource, 2).problem is None


def test_records_of_hosts_are_neither_made_nor_taken_away_by_their_number() -> None:
    worker = decide().resource
    assert missing_workers(pool(5), template(), [], NOW) == []
    assert not is_surplus(worker, pool(0))
    assert recordoned(worker, pool(0), "/x", NOW) is None
