"""What the process no longer needs goes back to the system."""

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from lablet_common import memory

MIB = 1024 * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(memory._trim is None, reason="only glibc can")
def test_holes_in_the_heap_are_given_back() -> None:
    values = [bytes(2000) for _ in range(30_000)]
    kept = values[::1000]  # holds the end of the heap in place
    del values
    before = resident()
    memory.give_back()
    assert before - resident() > 30 * MIB
    assert len(kept) == 30


def test_what_takes_long_is_done_more_seldom() -> None:
    assert memory.pause_after(0.003) == memory.PAUSE_SECONDS
    assert memory.pause_after(0.5) == 500


def test_circles_are_looked_for_more_seldom_where_that_takes_long() -> None:
    assert memory.collect_after(0.05) == memory.COLLECT_SECONDS == 600
    assert memory.collect_after(0.5) == 5_000


async def test_what_was_old_before_it_was_left_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The young are looked through by themselves; a circle that has outlived two such looks is not among them."""

    class Circle:
        def __init__(self) -> None:
            self.it = self

    monkeypatch.setattr(memory, "COLLECT_SECONDS", 0.01)
    circle = Circle()
    left = weakref.ref(circle)
    gc.collect()  # it is old now
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1_000_000)
    try:
        del circle
        looking = asyncio.create_task(memory.collect_for_ever())
        async with asyncio.timeout(5):
            while left() is not None:
                await asyncio.sleep(0.005)
        looking.cancel()
    finally:
        gc.set_threshold(*before)


def test_where_there_is_another_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", None)
    memory.few_arenas()
    memory.give_back()
