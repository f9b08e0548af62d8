"""Lab time is one clock for all, may run fast, and never goes back."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common.clock import ClockOrigin, ManualClock, ScaledClock, follow_clock, load_clock, set_clock
from lablet_common.resources.kinds import CLOCK_KEY
from lablet_common.store import MemoryStore, Store

MONDAY = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)


def test_lab_time_passes_at_the_speed_of_the_clock() -> None:
    real = MONDAY
    clock = ScaledClock(ClockOrigin(real=MONDAY, lab=MONDAY, speed=60), real_now=lambda: real)
    real = MONDAY + timedelta(seconds=10)
    assert clock.now() == MONDAY + timedelta(minutes=10)
    assert clock.real_seconds(timedelta(hours=1)) == 60


def test_lab_time_stands_still_rather_than_go_back() -> None:
    real = MONDAY
    clock = ScaledClock(ClockOrigin(real=MONDAY, lab=MONDAY, speed=1), real_now=lambda: real)
    real = MONDAY + timedelta(seconds=30)
    assert clock.now() == real
    real = MONDAY + timedelta(seconds=10)  # the real clock was corrected
    assert clock.now() == MONDAY + timedelta(seconds=30)
    clock.reanchor(ClockOrigin(real=real, lab=MONDAY, speed=1))
    assert clock.now() == MONDAY + timedelta(seconds=30)


async def test_a_sleeper_notices_that_the_speed_has_changed() -> None:
    now = datetime.now(UTC)
    clock = ScaledClock(ClockOrigin(real=now, lab=now, speed=1))
    sleeping = asyncio.create_task(clock.sleep(timedelta(hours=1)))
    await asyncio.sleep(0)
    clock.reanchor(ClockOrigin(real=datetime.now(UTC), lab=clock.now(), speed=100_000))
    async with asyncio.timeout(2):
        await sleeping


async def test_a_manual_clock_wakes_its_sleepers_in_order_and_each_before_the_next() -> None:
    clock = ManualClock(MONDAY)
    told: list[tuple[str, datetime]] = []

    async def sleeper(name: str, minutes: int) -> None:
        await clock.sleep(timedelta(minutes=minutes))
        told.append((name, clock.now()))
        if name == "first":
            await sleeper("child of first", 1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("last", 60))
        tasks.create_task(sleeper("first", 5))
        tasks.create_task(sleeper("second", 10))
        await clock.advance(timedelta(hours=2))
    assert [name for name, _ in told] == ["first", "child of first", "second", "last"]
    assert [at - MONDAY for _, at in told] == [timedelta(minutes=m) for m in (5, 6, 10, 60)]
    assert clock.now() == MONDAY + timedelta(hours=2)


async def test_a_week_passes_in_milliseconds() -> None:
    clock = ManualClock(MONDAY)
    looks = 0

    async def look_hourly() -> None:
        nonlocal looks
        while True:
            await clock.sleep(timedelta(hours=1))
            looks += 1

    task = asyncio.create_task(look_hourly())
    began = time.perf_counter()
    await clock.advance(timedelta(days=7))
    task.cancel()
    assert looks == 7 * 24
    assert time.perf_counter() - began < 1


async def test_a_manual_clock_refuses_to_go_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        await ManualClock(MONDAY).set(MONDAY - timedelta(seconds=1))


async def test_without_a_stored_clock_lab_time_is_real_time(store: Store) -> None:
    clock = await load_clock(store)
    assert clock.speed == 1
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)


async def test_every_reader_of_the_stored_clock_sees_the_same_lab_time(store: Store) -> None:
    await set_clock(store, speed=60, start=MONDAY)
    one, other = await load_clock(store), await load_clock(store)
    assert one.speed == other.speed == 60
    assert abs(one.now() - other.now()) < timedelta(seconds=60)
    assert one.now() >= MONDAY


async def test_changing_the_speed_keeps_lab_time_going_on(store: Store) -> None:
    await set_clock(store, speed=3600, start=MONDAY)
    before = (await load_clock(store)).now()
    after = (await set_clock(store, speed=1)).now()
    assert before <= after < before + timedelta(hours=1)


async def test_a_start_before_the_present_lab_time_is_refused(store: Store) -> None:
    await set_clock(store, speed=1, start=MONDAY)
    with pytest.raises(ValueError, match="never goes back"):
        await set_clock(store, speed=1, start=MONDAY - timedelta(days=1))


async def test_a_speed_that_is_not_above_zero_is_refused(memory: MemoryStore) -> None:
    with pytest.raises(ValueError, match="speed"):
        await set_clock(memory, speed=0)
    assert await memory.get(CLOCK_KEY) is None


async def test_setting_the_clock_without_an_answer_still_sets_it_once(memory: MemoryStore) -> None:
    memory.lose_answer = True
    await set_clock(memory, speed=60, start=MONDAY)
    found = await memory.get(CLOCK_KEY)
    assert found is not None
    assert found.version == 1


async def test_running_services_follow_a_change_of_speed(
    store: Store, background: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    clock = await load_clock(store)
    background(follow_clock(store, clock))
    await set_clock(store, speed=60)
    await eventually(lambda: clock.speed == 60)
    await store.compact((await store.range(CLOCK_KEY)).revision)
    await set_clock(store, speed=5)
    await eventually(lambda: clock.speed == 5)
