"""What the process no longer needs goes back to the system."""

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


def test_where_there_is_another_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", None)
    memory.few_arenas()
    memory.give_back()
