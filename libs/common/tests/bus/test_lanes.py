"""Per-key order, concurrency across keys, and a bound."""

import asyncio
from collections.abc import Awaitable, Callable

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
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        finished += 1
        if finished == 50:
            done.set()

    lanes: Lanes[Item] = Lanes(concurrency=4)
    for number in range(50):
        lanes.put(number, ("k", number))
    await run_for(lanes, work, done)
    assert most == 4


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
