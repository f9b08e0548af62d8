"""Stand-ins and conditions shared by the tests of the local mesh."""

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lablet_local.supervisor import Process

Condition = Callable[[], bool]


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Waits until a condition holds; fails with what was waited for."""

    async def wait(condition: Condition, what: str, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs (a zombie does not)."""

    def look(pid: int) -> bool:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return False
        return fields[0] not in ("Z", "X")

    return look


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., Process]:
    """A small Python program as a supervised process."""

    def make(name: str, source: str = "", **more: object) -> Process:
        program = tmp_path / f"{name}.py"
        program.write_text(textwrap.dedent(source) or "import signal\nsignal.pause()\n")
        return Process(
            name=name,
            argv=(sys.executable, str(program)),
            env={"PATH": os.environ["PATH"], "HERE": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            log=tmp_path / "logs" / f"{name}.log",
            **more,  # type: ignore[arg-type]  # fields of Process, named by the test
        )

    return make
