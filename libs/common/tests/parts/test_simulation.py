"""The simulated loop and the lines of its processes: everything from the seed, and each fault as it is promised."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from lablet_common.store import MemoryStore, OutcomeUnknown, StoreUnavailable
from lablet_common.testing.simulation import Dead, Line, Port, StorePort, Weather, simulated
from lablet_common.testing.simulation.loop import Stuck

CALM = Weather(slow=0, latency=0)


def live(seed: int, main: Callable[[], Awaitable[Any]]) -> Any:
    with simulated(seed) as loop:
        return loop.run_until_complete(main())


async def race() -> list[str]:
    """Who comes first, and what they draw."""
    order: list[str] = []

    async def runner(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            order.append(name)
        await asyncio.to_thread(order.append, f"{name} in a thread")
        order.append(f"{uuid4()} {random.random()}")

    await asyncio.wait({asyncio.ensure_future(runner(name)) for name in "abcd"})
    return order


def test_the_seed_decides_the_order_and_whatever_is_drawn() -> None:
    found = [live(seed, race) for seed in (1, 1, 2, 3)]
    assert found[0] == found[1]
    assert len({tuple(one) for one in found}) == 3


def test_a_day_passes_at_once_and_timers_ring_in_their_order() -> None:
    async def day() -> tuple[list[int], float, float]:
        rung: list[int] = []
        loop = asyncio.get_running_loop()
        for hour in (20, 3, 11):
            loop.call_later(hour * 3600, rung.append, hour)
        loop.call_later(4 * 3600, rung.append, 4).cancel()
        await asyncio.sleep(24 * 3600)
        return rung, loop.time(), time.monotonic()

    began = time.monotonic()
    assert live(1, day) == ([3, 11, 20], 86400.0, 86400.0)
    assert time.monotonic() - began < 10, "the real clock is back, and it has hardly moved"


def test_what_can_never_come_is_said() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with simulated(1) as loop, pytest.raises(Stuck):
        loop.run_until_complete(wait())


def a_line(weather: Weather = CALM) -> Line:
    return Line("scheduler-1", random.Random(7), weather)


@pytest.mark.parametrize("after_work", [False, True])
def test_a_process_dies_at_its_call_before_or_after_the_work_and_does_nothing_more(after_work: bool) -> None:
    async def main() -> tuple[list[str], bool]:
        store, line = MemoryStore(), a_line()
        port = StorePort(store, line)
        line.dies_at, line.dies_after_work = 2, after_work

        async def work() -> None:
            try:
                await port.put("/a", b"1")
                await port.put("/b", b"2")
                await port.put("/c", b"3")
            finally:
                await port.put("/last-word", b"!")

        task = asyncio.ensure_future(work())
        line.on_death = task.cancel
        await asyncio.wait([task])
        return [kv.key for kv in (await store.range("/")).items], task.cancelled()

    assert live(1, main) == (["/a", "/b"] if after_work else ["/a"], True)


def test_a_dead_process_hears_nothing() -> None:
    async def main() -> None:
        line = a_line()
        line.kill()
        with pytest.raises(Dead):
            await StorePort(MemoryStore(), line).get("/a")

    live(1, main)


@pytest.mark.parametrize(
    ("weather", "error", "then", "later"),
    [
        (Weather(slow=0, refused=1), StoreUnavailable, 0, 0),
        (Weather(slow=0, answer_lost=1), OutcomeUnknown, 1, 1),
        (Weather(slow=0, overtaken=1), OutcomeUnknown, 0, 1),
    ],
    ids=["refused", "answer lost", "overtaken"],
)
def test_a_write_is_refused_or_unheard_or_happens_when_nobody_waits_any_more(
    weather: Weather, error: type[Exception], then: int, later: int
) -> None:
    async def main() -> tuple[int, int]:
        store = MemoryStore()
        with pytest.raises(error):
            await StorePort(store, a_line(weather)).put("/a", b"1")
        counted = len((await store.range("/")).items)
        await asyncio.sleep(10)
        return counted, len((await store.range("/")).items)

    assert live(1, main) == (then, later)


def test_a_frozen_process_goes_on_as_if_no_time_had_passed() -> None:
    async def main() -> tuple[bytes, float]:
        store, line = MemoryStore(), a_line()
        await store.put("/a", b"1")
        line.freeze()
        asyncio.get_running_loop().call_later(30, line.thaw)
        found = await StorePort(store, line).get("/a")
        assert found is not None
        return found.value, asyncio.get_running_loop().time()

    assert live(1, main) == (b"1", 30.0)


def test_a_watch_breaks_and_its_news_come_in_their_order() -> None:
    async def main() -> list[int]:
        store = MemoryStore()
        heard: list[int] = []
        port = StorePort(store, a_line(Weather(slow=1, latency=5, cut=0.2)))
        for number in range(20):
            await store.put("/a", str(number).encode())

        async def hear() -> None:
            async with port.watch("/a", start_revision=2) as batches:
                async for batch in batches:
                    heard.extend(int(event.kv.value) for event in batch.events)

        with pytest.raises(StoreUnavailable):
            await hear()
        return heard

    heard = live(1, main)
    assert heard == list(range(len(heard)))
    assert 0 < len(heard) < 20


def test_any_port_fails_with_its_own_error_before_or_after_the_work() -> None:
    class Lamp:
        lit = 0
        name = "lamp"

        async def light(self) -> int:
            self.lit += 1
            return self.lit

    async def main() -> None:
        lamp = Lamp()
        assert await Port(lamp, a_line(), ConnectionError).light() == 1
        with pytest.raises(ConnectionError):
            await Port(lamp, a_line(Weather(slow=0, refused=1)), ConnectionError).light()
        assert lamp.lit == 1
        with pytest.raises(ConnectionError):
            await Port(lamp, a_line(Weather(slow=0, answer_lost=1)), ConnectionError).light()
        assert lamp.lit == 2
        assert Port(lamp, a_line(), ConnectionError).name == "lamp"

    live(1, main)
