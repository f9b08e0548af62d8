"""Keeps a set of processes running: starts them in order, starts again what dies, ends them in reverse order.

Every process is bound to this one (see `launch`), so it never outlives it, however this one ends. Children get a session
of their own: a Ctrl-C in the terminal reaches only the supervisor, which then ends them in order.

What it does not do: a process that hangs but lives is not started again; only its readiness tells. Started from a
thread other than the main one, the children end with that thread.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable

from lablet_local.logfiles import rotate
from lablet_local.process import Look as Look
from lablet_local.process import Phase as Phase
from lablet_local.process import Process as Process
from lablet_local.process import ProcessState as ProcessState
from lablet_local.process import Unit, describe_end

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_STEADY_SECONDS = 10.0
"""A process that lived so long starts with the first pause again."""
_LOOK_SECONDS = 0.05
_ROTATE_SECONDS = 10.0


class NotReady(Exception):
    """A process did not become ready; the message has the reason and the end of its log."""


class UnknownProcess(Exception):
    """No process of that name; the message lists those there are."""


class Supervisor:
    """Runs processes until `stop_all`. Use it within one event loop."""

    def __init__(
        self, announce: Callable[[str], None] = lambda _: None, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._announce = announce
        self._on_change = on_change
        self._units: dict[str, Unit] = {}
        self._rotation: asyncio.Task[None] | None = None

    @property
    def states(self) -> list[ProcessState]:
        return [unit.state for unit in self._units.values()]

    def state(self, name: str) -> ProcessState:
        return self._unit(name).state

    def start(self, processes: Iterable[Process]) -> None:
        """Adds processes and starts each as soon as what it stands after is ready. Does not wait for them."""
        fresh = [Unit(process) for process in processes]
        for unit in fresh:
            if unit.state.process.name in self._units:
                raise ValueError(f"there is a process {unit.state.process.name} already")
            self._units[unit.state.process.name] = unit
        for unit in fresh:
            self._begin(unit)
        if self._rotation is None:
            self._rotation = asyncio.create_task(self._rotate(), name="log-rotation")

    async def wait_ready(self, *names: str, timeout: float = 30.0) -> None:
        """Waits until the named processes (none named: all) are ready. Raises `NotReady` naming what is not."""
        units = [self._unit(name) for name in names] or list(self._units.values())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(self._ready_or_hopeless(unit) for unit in units))
        except TimeoutError:
            unready = [unit for unit in units if not unit.ready.is_set()]
            raise NotReady(f"not ready after {timeout:g} s: " + "; ".join(unit.why_not() for unit in unready)) from None

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal and returns the pid that got it; a process that dies of it is started again."""
        unit = self._unit(name)
        if unit.state.pid is None:
            raise NotReady(f"{name} does not run: {unit.state.phase}")
        os.kill(unit.state.pid, number)
        return unit.state.pid

    async def stop(self, name: str) -> None:
        """Ends a process and keeps it down until `resume`."""
        await self._end(self._unit(name))

    async def resume(self, name: str) -> None:
        """Starts a stopped process again and waits until it is ready."""
        unit = self._unit(name)
        if unit.keeper is None:
            self._begin(unit)
        await self.wait_ready(name)

    async def restart(self, name: str) -> None:
        """Ends it in order, starts it and waits until it is ready."""
        await self.stop(name)
        await self.resume(name)

    async def wait_ended(self, name: str, pid: int, timeout: float = 10.0) -> None:
        """Waits until the process that had `pid` has ended. Raises TimeoutError."""
        unit = self._unit(name)
        async with asyncio.timeout(timeout), unit.changed:
            await unit.changed.wait_for(lambda: unit.state.pid != pid)

    async def stop_all(self, within: float | None = None) -> None:
        """Ends everything, what stands after others first; processes that do not depend on each other side by side. Each
        is killed when it has not ended `within` so many seconds."""
        left = dict(self._units)
        while left:
            needed = {name for unit in left.values() for name in unit.state.process.after}
            outer = [name for name in left if name not in needed] or list(left)
            await asyncio.gather(*(self._end(left.pop(name), within) for name in outer))
        if self._rotation is not None:
            self._rotation.cancel()
            await asyncio.wait({self._rotation})
            self._rotation = None

    def _unit(self, name: str) -> Unit:
        try:
            return self._units[name]
        except KeyError:
            raise UnknownProcess(f"no process {name!r}; there are {', '.join(self._units)}") from None

    def _begin(self, unit: Unit) -> None:
        unit.keeper = asyncio.create_task(self._keep(unit), name=f"keep-{unit.state.process.name}")

    async def _ready_or_hopeless(self, unit: Unit) -> None:
        async with unit.changed:
            await unit.changed.wait_for(lambda: unit.ready.is_set() or unit.hopeless)
        if not unit.ready.is_set():
            raise NotReady(f"{unit.why_not()} (gave up after {unit.early_deaths} start{'s' * (unit.early_deaths > 1)})")

    async def _keep(self, unit: Unit) -> None:
        process, state = unit.state.process, unit.state
        pause = _FIRST_PAUSE
        await self._set(unit, Phase.WAITING)
        for name in process.after:
            await self._unit(name).ready.wait()
        while True:
            await unit.spawn()
            await self._set(unit, Phase.STARTING)
            looking = asyncio.create_task(self._look(unit), name=f"look-{process.name}")
            began = time.monotonic()
            try:
                code = await unit.child.wait()
            finally:
                looking.cancel()
            lived = time.monotonic() - began
            unit.early_deaths += not unit.was_ready
            unit.ready.clear()
            unit.sweep()
            state.pid, state.started_at, state.last_end = None, None, describe_end(code)
            if not process.restart:
                await self._set(unit, Phase.STOPPED)
                return
            pause = _FIRST_PAUSE if lived >= _STEADY_SECONDS else pause
            self._announce(f"{process.name} {state.last_end}; starting it again in {pause:.1f} s")
            await self._set(unit, Phase.PAUSED)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            state.restarts += 1

    async def _look(self, unit: Unit) -> None:
        look = unit.state.process.ready
        while look is not None:
            missing = await look()
            if missing is None:
                break
            unit.state.missing = missing
            await asyncio.sleep(_LOOK_SECONDS)
        unit.state.missing = ""
        unit.was_ready = True
        unit.ready.set()
        await self._set(unit, Phase.READY)

    async def _end(self, unit: Unit, within: float | None = None) -> None:
        if unit.keeper is not None:
            unit.keeper.cancel()
            await asyncio.wait({unit.keeper})
            unit.keeper = None
        await unit.end(within)
        await self._set(unit, Phase.STOPPED)

    async def _set(self, unit: Unit, phase: Phase) -> None:
        unit.state.phase = phase
        async with unit.changed:
            unit.changed.notify_all()
        self._on_change()

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_SECONDS)
            for unit in list(self._units.values()):
                await asyncio.to_thread(rotate, unit.state.process.log)
