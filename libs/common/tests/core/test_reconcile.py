"""One look per change, one step per key at a time, and a failure holds up nobody else."""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common.clock import ManualClock
from lablet_common.ownership import NotOwner
from lablet_common.reconcile import Again, Backoff, Reconciler, WorkQueue
from lablet_common.store import Conflict, StoreUnavailable

MONDAY = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)
QUICK = Backoff(initial=0.005, maximum=0.02)
Background = Callable[..., asyncio.Task[Any]]
Eventually = Callable[..., Any]


async def test_a_key_added_many_times_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("b", "a", "b", "a", "b"):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["b", "a"]
    assert len(queue) == 0


async def test_a_key_in_work_comes_again_only_after_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await queue.get() == "a"


async def test_the_earliest_of_several_delays_counts(eventually: Eventually) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 30)
    await eventually(lambda: len(queue) == 1)
    queue.close()


async def test_a_getter_that_is_cancelled_loses_no_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()  # it was woken, and goes away
    assert await asyncio.wait_for(second, 1) == "a"


async def test_the_queue_knows_when_it_is_drained() -> None:
    queue: WorkQueue[str] = WorkQueue()
    await queue.drained()
    queue.add("a")
    drained = asyncio.create_task(queue.drained())
    key = await queue.get()
    queue.add(key)
    queue.done(key)
    await asyncio.sleep(0)
    assert not drained.done()
    queue.done(await queue.get())
    await asyncio.wait_for(drained, 1)


async def test_never_two_steps_of_one_key_and_many_keys_at_once(background: Background) -> None:
    busy: Counter[int] = Counter()
    most = 0
    steps: Counter[int] = Counter()

    async def step(key: int) -> None:
        nonlocal most
        busy[key] += 1
        assert busy[key] == 1
        most = max(most, sum(busy.values()))
        for _ in range(3):
            await asyncio.sleep(0)
        busy[key] -= 1
        steps[key] += 1

    reconciler: Reconciler[int] = Reconciler("test", step, concurrency=8)
    background(reconciler.run())
    for _ in range(20):
        for key in range(30):
            reconciler.add(key)
        await asyncio.sleep(0)
    await reconciler.drained()
    assert most == 8
    assert set(steps) == set(range(30))
    assert sum(steps.values()) < 20 * 30


async def test_one_long_step_holds_up_nobody_else(background: Background) -> None:
    release = asyncio.Event()
    stepped: list[str] = []

    async def step(key: str) -> None:
        if key == "slow":
            await release.wait()
        stepped.append(key)

    reconciler: Reconciler[str] = Reconciler("test", step, concurrency=2)
    background(reconciler.run())
    for key in ("slow", "a", "b", "c"):
        reconciler.add(key)
    while len(stepped) < 3:
        await asyncio.sleep(0)
    assert stepped == ["a", "b", "c"]
    release.set()
    await reconciler.drained()


async def test_thousands_of_steps_that_wait_for_nothing_leave_the_event_loop_its_turns(background: Background) -> None:
    """The lease is kept on the same loop."""
    stepped = 0

    async def step(_: str) -> None:
        nonlocal stepped
        stepped += 1

    reconciler: Reconciler[str] = Reconciler("test", step, concurrency=4)
    background(reconciler.run())
    await reconciler.drained()
    for number in range(100):
        reconciler.add(str(number))
    before = stepped
    while stepped < 100:
        await asyncio.sleep(0)
        assert stepped - before <= 8
        before = stepped


async def test_what_changes_during_a_step_is_looked_at_again(background: Background) -> None:
    seen: list[int] = []
    level = 0

    async def step(_: str) -> None:
        seen.append(level)
        await asyncio.sleep(0)

    reconciler: Reconciler[str] = Reconciler("test", step)
    background(reconciler.run())
    reconciler.add("a")
    while not seen:
        await asyncio.sleep(0)
    level = 1
    reconciler.add("a")
    await reconciler.drained()
    assert seen == [0, 1]


async def test_a_failed_step_is_tried_again_with_growing_pauses_and_logged(
    background: Background, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    async def step(_: str) -> None:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise LookupError("not yet")

    reconciler: Reconciler[str] = Reconciler("test", step, backoff=Backoff(initial=0.02, maximum=10))
    background(reconciler.run())
    reconciler.add("a")
    await eventually(lambda: len(tries) == 4 and not reconciler.failures("a"))
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert pauses[0] >= 0.02 * 0.8
    assert pauses[2] >= 0.08 * 0.8
    assert caplog.text.count("not yet") >= 3


async def test_a_conflict_is_no_error(
    background: Background, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def step(_: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Conflict(["/pools/a"], 7)
        if tries == 2:
            raise StoreUnavailable("etcd is away")

    reconciler: Reconciler[str] = Reconciler("test", step, backoff=QUICK)
    background(reconciler.run())
    reconciler.add("a")
    await eventually(lambda: tries == 3)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_pauses_grow_to_their_maximum_and_never_overflow() -> None:
    backoff = Backoff(initial=0.2, maximum=30)
    assert 0.16 <= backoff.pause(1) <= 0.24
    assert 0.32 <= backoff.pause(2) <= 0.48
    assert 24 <= backoff.pause(10_000) <= 36


async def test_a_step_may_ask_to_be_called_again(background: Background, eventually: Eventually) -> None:
    steps = 0

    async def step(_: str) -> Again | None:
        nonlocal steps
        steps += 1
        return Again(0.005) if steps < 4 else None

    reconciler: Reconciler[str] = Reconciler("test", step)
    background(reconciler.run())
    reconciler.add("a")
    await eventually(lambda: steps == 4)


async def test_instants_of_lab_time_come_in_order_on_the_clock(background: Background) -> None:
    clock = ManualClock(MONDAY)
    stepped: list[tuple[str, datetime]] = []

    async def step(key: str) -> Again | None:
        stepped.append((key, clock.now()))
        return Again.at(clock.now() + timedelta(days=1)) if key == "daily" else None

    reconciler: Reconciler[str] = Reconciler("test", step, clock=clock)
    background(reconciler.run())
    reconciler.add_at("late", MONDAY + timedelta(hours=30))
    reconciler.add_at("soon", MONDAY + timedelta(minutes=1), clock)
    reconciler.add_at("daily", MONDAY)
    await clock.advance(timedelta(days=2))
    assert stepped == [
        ("daily", MONDAY),
        ("soon", MONDAY + timedelta(minutes=1)),
        ("daily", MONDAY + timedelta(days=1)),
        ("late", MONDAY + timedelta(hours=30)),
        ("daily", MONDAY + timedelta(days=2)),
    ]


async def test_looks_for_other_reasons_do_not_add_to_those_that_a_key_wishes_for(background: Background) -> None:
    clock = ManualClock(MONDAY)
    looks: list[datetime] = []

    async def step(_: str) -> Again:
        looks.append(clock.now())
        return Again.at(clock.now() + timedelta(minutes=10))

    reconciler: Reconciler[str] = Reconciler("test", step, clock=clock)
    background(reconciler.run())
    for _ in range(9):  # now and in each of the next eight minutes
        reconciler.add("a")
        await reconciler.drained()
        await clock.advance(timedelta(minutes=1))
    assert len(looks) == 9
    await clock.advance(timedelta(minutes=51))
    assert looks[9:] == [MONDAY + timedelta(minutes=10 * number) for number in range(1, 7)]


async def test_of_several_instants_the_earliest_counts_and_the_others_take_no_room(background: Background) -> None:
    clock = ManualClock(MONDAY)
    looks: list[datetime] = []

    async def step(_: str) -> None:
        looks.append(clock.now())

    reconciler: Reconciler[str] = Reconciler("test", step, clock=clock)
    background(reconciler.run())
    for seconds in range(2_000, 0, -1):
        reconciler.add_at("a", MONDAY + timedelta(seconds=seconds))
    reconciler.add_at("a", MONDAY + timedelta(hours=2))
    assert len(reconciler._alarms) < 100
    await clock.advance(timedelta(hours=3))
    assert looks == [MONDAY + timedelta(seconds=1)]
    reconciler.add_at("a", clock.now() + timedelta(hours=1))
    await clock.advance(timedelta(hours=1))
    assert len(looks) == 2


async def test_waiting_for_lab_time_needs_a_clock() -> None:
    async def step(_: str) -> None: ...

    with pytest.raises(TypeError, match="no clock"):
        Reconciler("test", step).add_at("a", MONDAY)


async def test_a_step_that_is_no_longer_the_owner_ends_the_reconciler() -> None:
    async def step(_: str) -> None:
        raise NotOwner("pool default has another owner")

    reconciler: Reconciler[str] = Reconciler("test", step)
    reconciler.add("a")
    with pytest.raises(NotOwner, match="another owner"):
        async with asyncio.timeout(2):
            await reconciler.run()
