"""Per-key order, concurrency across keys, and a bound."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lablet_common.bus.lanes import Lanes

Item = tuple[str, int]


async def run_for(lanes: Lanes[Item], work: Callable[[Item], Awaitable[None]], done: asyncio.Event) -> None:
    task = asyncio.create_task(lanes.run(work))
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_items_of_a_key_are_worked_on_one_at_a_time_and_in_order() -> None:
    order: list[tuple[str, int]] = []
    busy: set[str] = set()
    done = asyncio.Event()

    async def work(item: Item) -> None:
        assert item[0] not in busy
        busy.add(item[0])
        await asyncio.sleep(0)
        busy.discard(item[0])
        order.append(item)
        if len(order) == 60:
            done.set()

    lanes: Lanes[Item] = Lanes(concurrency=8)
    for number in range(20):
        for key in "abc":
            lanes.put(key, (key, number))
    await run_for(lanes, work, done)
    for key in "abc":
        assert [number for name, number in order if name == key] == list(range(20))
    assert len(lanes) == 0


async def test_no_more_than_the_bound_are_worked_on_at_once() -> None:
    now = most = finished = 0
    done = asyncio.Event()

    async def work(_: Item) -> None:
        nonlocal now, most, finished
        now += 1
        if now == 1 and finished < 25:
            lanes.put(f"later {finished}", ("k", 0))
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        finished += 1
        if len(lanes) == 1:  # this one
            done.set()

    lanes: Lanes[Item] = Lanes(concurrency=4)
    for number in range(50):
        lanes.put(number, ("k", number))
    await run_for(lanes, work, done)
    assert most == 4


async def test_a_worker_is_there_for_each_lane_that_has_something_and_none_for_nothing() -> None:
    done, go = asyncio.Event(), asyncio.Event()
    worked: list[Item] = []

    async def work(item: Item) -> None:
        await go.wait()
        worked.append(item)
        if len(worked) == 4:
            done.set()

    def workers() -> int:
        return sum(task.get_name() == "lane" for task in asyncio.all_tasks())

    lanes: Lanes[Item] = Lanes(concurrency=1000)
    lanes.put("a", ("a", 1))
    running = asyncio.create_task(lanes.run(work))
    await asyncio.sleep(0)
    for key in "abc":
        lanes.put(key, (key, 2))
    await asyncio.sleep(0)
    assert workers() == 3
    go.set()
    async with asyncio.timeout(5):
        await done.wait()
        while workers():
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_put_while_the_last_worker_ends_is_worked_on() -> None:
    done = asyncio.Event()

    async def work(item: Item) -> None:
        if item[0] == "a":  # between this worker's last step and the word that it has ended
            asyncio.get_running_loop().call_soon(lanes.put, "b", ("b", 1))
        else:
            done.set()

    lanes: Lanes[Item] = Lanes(concurrency=1)
    lanes.put("a", ("a", 1))
    await run_for(lanes, work, done)


async def test_a_worker_that_is_cancelled_ends_the_run_and_leaves_no_lane_that_nobody_serves() -> None:
    async def work(_: Item) -> None:
        raise asyncio.CancelledError

    lanes: Lanes[Item] = Lanes(concurrency=2)
    lanes.put("a", ("a", 1))
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):  # raises another error when it is over
            await lanes.run(work)


async def test_what_work_raises_ends_the_run_and_whatever_is_under_way() -> None:
    ended: list[str] = []

    async def work(item: Item) -> None:
        if item[0] == "bad":
            raise LookupError("bad")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(item[0])

    lanes: Lanes[Item] = Lanes(concurrency=2)
    lanes.put("slow", ("slow", 1))
    lanes.put("bad", ("bad", 1))
    async with asyncio.timeout(5):
        with pytest.raises(LookupError):
            await lanes.run(work)
    assert ended == ["slow"]
    assert lanes.drain() == [("slow", 1), ("bad", 1)]


async def test_what_was_not_finished_can_be_taken_out() -> None:
    begun = asyncio.Event()

    async def work(_: Item) -> None:
        begun.set()
        await asyncio.Event().wait()

    lanes: Lanes[Item] = Lanes(concurrency=2)
    lanes.put("a", ("a", 1))
    lanes.put("a", ("a", 2))
    await run_for(lanes, work, begun)
    assert lanes.drain() == [("a", 1), ("a", 2)]
    assert len(lanes) == 0
