"""Liveness and load of workers: leases that answered probes keep, what machines use, and that no record is written for it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.clock import ManualClock
from lablet_common.loads import Load, Used, WorkerLoad
from lablet_common.ownership import Fence, NotOwner
from lablet_common.process_lab import RUNTIME
from lablet_common.resources.kinds import WORKER as WORKERS
from lablet_common.resources.kinds import worker_lease_key, worker_load_key
from lablet_common.store import Conflict, MemoryStore
from lablet_common.telemetry.metrics import REGISTRY
from lablet_workers import pulse as module
from lablet_workers.pulse import Pulse
from lablet_workers.runtimes.memory import MemoryRuntime
from lablet_workers.runtimes.port import RuntimeUnavailable

LOAD = Load(
    cpu_cores=Used(used=12, total=48),
    memory_gb=Used(used=50, total=200),
    storage_gb=Used(used=225, total=250),
    nodes=7,
)
KEY, LOADS = worker_lease_key("default-001"), worker_load_key("default-001")


def shown(what: str, worker: str = "default-001") -> float | None:
    return REGISTRY.get_sample_value(f"lablet_worker_{what}", {"pool": "default", "worker": worker})


class Time:
    """Of the loop and of etcd's leases alike."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(module, "_now", made)
    return made


@pytest.fixture
async def store(time: Time) -> AsyncIterator[MemoryStore]:
    made = MemoryStore(clock=time)
    yield made
    await made.close()


@pytest.fixture
async def fence(store: MemoryStore) -> Fence:
    return Fence("/ownership/x", await store.put("/ownership/x", b"me"))


@pytest.fixture
def pulse(store: MemoryStore, fence: Fence) -> Any:
    def make() -> Pulse:
        clock = ManualClock(datetime(2027, 3, 1, tzinfo=UTC))
        return Pulse("default", fence, store, clock, lease_seconds=15, load_seconds=15)

    return make


class Stub:
    """What the pulse looks at of a worker."""

    def __init__(self, runtime: str = "cml") -> None:
        self.id = "default-001"
        self.spec = type("Spec", (), {"runtime": runtime})
        machine = type("Machine", (), {"id": "m-1"})
        self.status = type("Status", (), {"machine": machine, "host": "h1"})


WORKER: Any = Stub()


async def test_answers_keep_the_lease_and_no_key_is_written_for_them(
    pulse: Any, store: MemoryStore, time: Time
) -> None:
    one = pulse()
    await one.beat(WORKER, MemoryRuntime(tells=False))
    begun = await store.get(KEY)
    revision = store.revision
    for _ in range(60):
        time.now += 2
        await one.beat(WORKER, MemoryRuntime(tells=False))
    assert await store.get(KEY) == begun
    assert store.revision == revision, "two minutes of probes, and nothing is written"


async def test_without_answers_the_lease_runs_out_and_an_answer_begins_another(
    pulse: Any, store: MemoryStore, time: Time
) -> None:
    one = pulse()
    await one.beat(WORKER, MemoryRuntime(tells=False))
    time.now += 14
    assert await one.has(WORKER)
    time.now += 2
    assert not await one.has(WORKER)
    await one.beat(WORKER, MemoryRuntime(tells=False))
    assert await one.has(WORKER)


async def test_it_is_renewed_in_time_and_not_at_every_answer(pulse: Any, store: MemoryStore, time: Time) -> None:
    asked = 0
    keep_alive = store.lease_keep_alive

    async def counted(lease: int) -> float:
        nonlocal asked
        asked += 1
        return await keep_alive(lease)

    store.lease_keep_alive = counted  # type: ignore[method-assign]
    one = pulse()
    for _ in range(30):
        await one.beat(WORKER, MemoryRuntime(tells=False))
        time.now += 1
    assert 4 <= asked <= 6


async def test_the_next_owner_goes_on_with_the_lease(pulse: Any, store: MemoryStore, time: Time) -> None:
    first = pulse()
    await first.beat(WORKER, MemoryRuntime(told=LOAD))
    begun = await store.get(KEY)
    first.close()
    time.now += 10
    await pulse().beat(WORKER, MemoryRuntime(tells=False))
    time.now += 10
    assert await store.get(KEY) == begun
    assert await store.get(LOADS) is not None, "what it said last is known too"


async def test_a_former_owner_begins_no_lease(pulse: Any, store: MemoryStore) -> None:
    old = pulse()
    await store.put("/ownership/x", b"me, touched")
    await store.delete("/ownership/x")
    await store.put("/ownership/x", b"another")
    with pytest.raises(Conflict):
        await old.beat(WORKER, MemoryRuntime(tells=False))
    assert await store.get(KEY) is None


async def test_what_a_machine_uses_is_a_metric_and_stands_beside_its_lease(
    pulse: Any, store: MemoryStore, time: Time
) -> None:
    one, runtime = pulse(), MemoryRuntime(told=LOAD)
    for _ in range(60):
        await one.beat(WORKER, runtime)
        time.now += 1
    assert runtime.loads_asked == 4, "every quarter of a minute"
    assert [shown(what) for what in ("cpu_ratio", "memory_ratio", "disk_ratio")] == [0.25, 0.25, 0.9]
    assert shown("running_nodes") == 7
    found = await store.get(LOADS)
    assert found is not None
    told = WorkerLoad.model_validate_json(found.value)
    assert (told.worker, told.nodes, told.storage_gb.used, told.at.year) == ("default-001", 7, 225, 2027)
    time.now += 16
    assert await store.get(LOADS) is None, "gone with its lease"


@pytest.mark.parametrize("way", ["end", "close", "silent", "refused"])
async def test_nothing_old_is_shown(pulse: Any, store: MemoryStore, time: Time, way: str) -> None:
    one, runtime = pulse(), MemoryRuntime(told=LOAD)
    await one.beat(WORKER, runtime)
    assert shown("cpu_ratio") == 0.25
    match way:
        case "end":
            await one.end(WORKER.id)
            assert await store.get(KEY) is None
            assert await store.get(LOADS) is None
        case "close":
            one.close()
        case "silent":
            runtime.tells, time.now = False, time.now + 20
            await one.beat(WORKER, runtime)
        case "refused":
            runtime.refusals, time.now = {"load": [RuntimeUnavailable("busy")]}, time.now + 20
            await one.beat(WORKER, runtime)
            assert await one.has(WORKER), "it has answered all the same"
    assert [shown(what) for what in ("cpu_ratio", "memory_ratio", "disk_ratio", "running_nodes")] == [None] * 4


async def test_an_agents_lease_is_its_own(pulse: Any, store: MemoryStore, time: Time) -> None:
    one, agent = pulse(), Stub(RUNTIME)
    await one.beat(agent, MemoryRuntime(told=LOAD))
    assert await store.get(KEY) is None
    await store.put(KEY, b"what its heartbeats keep")
    assert not await one.has(agent), "heartbeats say nothing of whether it answers"
    assert shown("running_nodes") == 7
    time.now += 10
    await pulse().beat(agent, MemoryRuntime(told=LOAD))
    time.now += 10
    assert await store.get(LOADS) is not None


# -- with the controller of a pool -------------------------------------------------------------------------------------


async def up(fleet: Any) -> Any:
    await fleet.book("a", 60, 240)
    await fleet.at(70)
    worker = await fleet.worker()
    assert (worker.phase, await fleet.phase()) == ("Ready", "Running")
    return worker


async def test_a_worker_that_is_asked_for_hours_is_not_written_once(fleet: Any) -> None:
    before = await up(fleet)
    runtime, asked = fleet.runtime(), 0
    info = runtime.info

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await info()

    type(runtime).info, original = lambda _: counted(), type(runtime).info
    try:
        await fleet.at(190)
    finally:
        type(runtime).info = original
    assert asked > 100
    assert (await fleet.worker()).revision == before.revision


async def test_an_answer_missed_once_is_no_reason_to_call_it_unknown(fleet: Any) -> None:
    before = await up(fleet)
    fleet.runtime().up = False
    await fleet.at(70.5, step=0.1)
    await fleet.at(71.2, step=0.1)
    fleet.runtime().up = True
    await fleet.at(80)
    assert (await fleet.worker()).revision == before.revision


async def test_a_controller_that_was_away_for_an_hour_fails_no_worker_that_is_well(fleet: Any) -> None:
    before = await up(fleet)
    await fleet.crash()
    await fleet.at(130)
    assert await fleet.store.get(KEY) is None, "nobody asked: every lease has run out"
    await fleet.start()
    await fleet.at(150)
    worker = await fleet.worker()
    assert (worker.revision, worker.status.condition("Unknown")) == (before.revision, None)
    assert await fleet.store.get(KEY) is not None
    assert await fleet.phase() == "Running"


async def test_owners_that_follow_each_other_do_not_begin_a_silent_worker_s_deadline_anew(fleet: Any) -> None:
    await up(fleet)
    fleet.runtime().up = False
    for moment in (75, 79, 83):
        await fleet.at(moment)
        await fleet.crash()
        await fleet.start()
    worker = await fleet.worker()
    assert (worker.phase, worker.status.condition("Unknown").reason) == ("Ready", "NoAnswer")
    await fleet.at(89)
    moves = [(move.to, move.reason) for move in (await fleet.worker()).status.history]
    assert ("Failed", "NoAnswer") in moves, "fifteen minutes after the first missed answer"


async def test_a_worker_that_is_off_has_no_lease_and_shows_nothing(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    fleet.runtime().told = LOAD
    await fleet.at(50)
    fleet.controller.estate.pulse._asked.clear()
    await fleet.at(70)
    assert (shown("running_nodes"), await fleet.store.get(LOADS) is not None) == (7, True)
    await fleet.at(130)
    assert (await fleet.worker()).phase == "Offline"
    assert (shown("running_nodes"), await fleet.store.get(KEY), await fleet.store.get(LOADS)) == (None, None, None)


async def test_a_pool_that_is_given_up_is_shown_by_its_next_owner_alone(fleet: Any) -> None:
    await up(fleet)
    fleet.runtime().told = LOAD
    fleet.controller.estate.pulse._asked.clear()
    await fleet.at(72)
    assert shown("cpu_ratio") == 0.25
    await fleet.crash()
    await asyncio.sleep(0)
    assert shown("cpu_ratio") is None
    await fleet.start()
    await fleet.at(74)
    assert shown("cpu_ratio") == 0.25


async def test_of_a_worker_that_fell_silent_nothing_is_shown_and_again_with_its_next_answer(fleet: Any) -> None:
    await up(fleet)
    fleet.runtime().told = LOAD
    fleet.controller.estate.pulse._asked.clear()
    await fleet.at(72)
    assert shown("cpu_ratio") == 0.25
    fleet.runtime().up = False
    await fleet.at(74)
    worker = await fleet.worker()
    assert (worker.phase, worker.status.condition("Unknown") is not None) == ("Ready", True)
    assert [shown(what) for what in ("cpu_ratio", "memory_ratio", "disk_ratio", "running_nodes")] == [None] * 4
    fleet.runtime().up = True
    await fleet.at(76)
    assert shown("cpu_ratio") == 0.25


async def test_of_a_worker_that_goes_down_nothing_is_shown_although_its_power_off_takes_long(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.runtime().told = LOAD
    fleet.controller.estate.pulse._asked.clear()
    fleet.runtime().refusals = {"deregister": [RuntimeUnavailable("409")] * 100_000}
    await fleet.at(72)
    assert shown("cpu_ratio") == 0.25
    await fleet.at(140)
    assert (await fleet.worker()).phase == "Draining"
    assert (shown("cpu_ratio"), await fleet.store.get(KEY), await fleet.store.get(LOADS)) == (None, None, None)


async def test_an_owner_fails_no_worker_by_what_another_has_found_and_one_answer_that_it_missed(fleet: Any) -> None:
    await up(fleet)
    fleet.runtime().up = False
    await fleet.at(74)
    await fleet.crash()
    assert (await fleet.worker()).status.condition("Unknown") is not None
    await fleet.at(130)
    await fleet.start()
    await fleet.at(130.2, step=0.1)
    assert (await fleet.worker()).phase == "Ready", "it was asked once, long after the deadline"
    fleet.runtime().up = True
    await fleet.at(133)
    worker = await fleet.worker()
    assert (worker.phase, worker.status.condition("Unknown")) == ("Ready", None)
    assert "Failed" not in [str(move.to) for move in worker.status.history]


async def test_an_owner_that_finds_it_silent_for_as_long_as_a_lease_goes_by_the_deadline_on_record(fleet: Any) -> None:
    await up(fleet)
    fleet.runtime().up = False
    await fleet.at(74)
    await fleet.crash()
    await fleet.at(130)
    await fleet.start()
    await fleet.at(132)
    assert ("Failed", "NoAnswer") in [(str(m.to), m.reason) for m in (await fleet.worker()).status.history]


class Slow(MemoryRuntime):
    """Answers, and never says what it uses."""

    async def load(self) -> Load | None:
        self.loads_asked += 1
        await asyncio.Event().wait()
        return None


async def test_a_machine_that_does_not_say_what_it_uses_holds_nobody_up_for_as_long_as_its_lease(
    store: MemoryStore, fence: Fence, time: Time
) -> None:
    one = Pulse(
        "default", fence, store, ManualClock(datetime(2027, 3, 1, tzinfo=UTC)), lease_seconds=0.3, load_seconds=9
    )
    runtime = Slow()
    async with asyncio.timeout(5):
        await one.beat(WORKER, runtime)
    assert runtime.loads_asked == 1
    assert await one.has(WORKER)
    assert shown("cpu_ratio") is None


async def test_a_lease_that_is_lost_while_it_says_what_it_uses_is_followed_by_another(
    store: MemoryStore, fence: Fence, time: Time
) -> None:
    one = Pulse(
        "default", fence, store, ManualClock(datetime(2027, 3, 1, tzinfo=UTC)), lease_seconds=15, load_seconds=1
    )
    await one.beat(WORKER, MemoryRuntime())
    begun = await store.get(KEY)
    assert begun is not None
    await store.lease_revoke(begun.lease)
    for _ in range(3):
        time.now += 1
        await one.beat(WORKER, MemoryRuntime())
    assert await one.has(WORKER)
    assert await store.get(LOADS) is not None


async def test_an_owner_that_may_begin_no_lease_any_more_gives_the_pool_up(fleet: Any) -> None:
    await up(fleet)
    kept = await fleet.store.get(KEY)
    assert kept is not None
    await fleet.store.lease_revoke(kept.lease)
    estate = fleet.controller.estate
    await fleet.store.delete(estate.fence.key)
    await fleet.store.put(estate.fence.key, b"another")
    estate.pulse._renewed.clear()
    with pytest.raises(NotOwner):
        await fleet.at(80)
    fleet._task = None


@pytest.mark.parametrize(("runtime", "news"), [("cml", False), (RUNTIME, True)])
async def test_the_lease_of_a_worker_that_is_no_agent_s_is_no_news_of_an_agent(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, news: bool
) -> None:
    replans: list[bool] = []
    worker = await fleet.worker()
    known = worker.model_copy(update={"spec": worker.spec.model_copy(update={"runtime": runtime})})
    controller = fleet.controller
    monkeypatch.setattr(controller.fleet, "replan", lambda: replans.append(True))
    monkeypatch.setattr(controller.estate.caches[WORKERS], "get", lambda *_: known)
    controller._on_agent(worker.id)
    assert bool(replans) is news
