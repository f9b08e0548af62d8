"""One process under supervision: what is to run, what is known of it, and how it is started and ended.

It gets a session of its own, and what it leaves behind in that session's group is killed after it.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lablet_local.launch import bound_to_parent
from lablet_local.logfiles import last_words, open_log

Look = Callable[[], Awaitable[str | None]]
"""A look at a process: None when it is ready, else what is missing."""

_EARLY_DEATHS = 4
"""So many deaths before it was ever ready, and nobody waits for it any longer."""


@dataclass(frozen=True, slots=True)
class Process:
    """What is to run. Secrets belong into files named in `env`, never into `argv`."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready: Look | None = None
    """None: ready as soon as it runs."""
    after: tuple[str, ...] = ()
    """Started once these are ready; ended before they are."""
    restart: bool = True
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 8.0
    """Until it is killed."""
    death_signal: int = signal.SIGKILL
    """What it gets when the supervisor itself ends without having ended it."""


class Phase(StrEnum):
    WAITING = "waiting"
    """For what it stands after."""
    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    """Ended by itself; started again after a pause."""
    STOPPED = "stopped"


@dataclass(slots=True)
class ProcessState:
    """What is known of one process, as of now."""

    process: Process
    phase: Phase = Phase.STOPPED
    pid: int | None = None
    started_at: float | None = None
    """Unix seconds."""
    restarts: int = 0
    last_end: str = ""
    missing: str = ""
    """What readiness still lacks."""


class Unit:
    """One process with what the supervisor needs to keep it."""

    def __init__(self, process: Process) -> None:
        self.state = ProcessState(process)
        self.ready = asyncio.Event()
        self.changed = asyncio.Condition()
        self.keeper: asyncio.Task[None] | None = None
        self.was_ready = False
        self.early_deaths = 0
        self._child: asyncio.subprocess.Process | None = None

    @property
    def hopeless(self) -> bool:
        """Not worth waiting for: it has never been ready and died too often, or will not be started again."""
        return not self.was_ready and self.early_deaths >= (_EARLY_DEATHS if self.state.process.restart else 1)

    @property
    def child(self) -> asyncio.subprocess.Process:
        assert self._child is not None
        return self._child

    async def spawn(self) -> None:
        process = self.state.process
        log = open_log(process.log)
        try:
            self._child = await asyncio.create_subprocess_exec(
                *bound_to_parent(list(process.argv), process.death_signal),
                env=process.env,
                cwd=process.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self.state.pid, self.state.started_at = self._child.pid, time.time()

    async def end(self, within: float | None = None) -> None:
        """In order, then by force after its own time or, if that is shorter, `within` seconds; a process that has ended is
        no error."""
        self.ready.clear()
        child = self._child
        if child is None or child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            child.send_signal(self.state.process.stop_signal)
            child.send_signal(signal.SIGCONT)  # so that a paused one can end too
        try:
            patience = self.state.process.stop_seconds
            async with asyncio.timeout(patience if within is None else min(patience, within)):
                code = await child.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.kill()
            code = await child.wait()
        self.state.last_end = describe_end(code)
        self.sweep()
        self.state.pid, self.state.started_at = None, None

    def sweep(self) -> None:
        """Kills what the process left behind in its session's group."""
        with suppress(ProcessLookupError, PermissionError):  # nothing left is the usual case
            os.killpg(self.child.pid, signal.SIGKILL)

    def why_not(self) -> str:
        """What keeps it from being ready, with the end of its log."""
        reason = self.state.missing or self.state.last_end or str(self.state.phase)
        last = last_words(self.state.process.log)
        return f"{self.state.process.name}: {reason}" + (f"\n{last}" if last else "")


def describe_end(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
