"""One node of a lab, from waiting for others to its end: started, watched, started again as its policy says, stopped.

Everything happens in the supervisor's one thread. A node's output is read here as it comes and kept bounded; the process
that ends takes what is left of its session with it.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

from lablet_workers.agent import child, health
from lablet_workers.agent.output import OutputFile
from lablet_workers.agent.plan import (
    FINAL,
    NOT_RUNNABLE,
    SIGNALLED,
    TIMED_OUT,
    LabFolder,
    LabPlan,
    Limits,
    NodePlan,
    NodeRecord,
    Phase,
)

_READ_BYTES = 65_536
_DRAIN_SECONDS = 1.0
"""After the end of a process: until its last output must have come; others may hold the pipe open."""


class Node:
    """Runs one node. `changed` is called whenever its record says something new; `write` has it written at once."""

    def __init__(
        self, lab: LabPlan, plan: NodePlan, folder: LabFolder, changed: Callable[[], None], write: Callable[[], None]
    ) -> None:
        self.plan = plan
        self.record = NodeRecord(plan.name)
        self._lab = lab
        self._folder = folder
        self._changed = changed
        self._write = write
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self._timed_out = asyncio.Event()
        self._unhealthy = False
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        """No process of it runs."""

    @property
    def over(self) -> bool:
        return self.record.phase in FINAL

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def succeeded(self) -> bool:
        return self.record.phase == Phase.EXITED and self.record.exit_code == 0

    @property
    def healthy(self) -> bool:
        return self.record.phase == Phase.RUNNING

    def meets(self, condition: str) -> bool:
        """Whether who waits for it may start."""
        match condition:
            case "healthy":
                return self.healthy or self.succeeded
            case "completed":
                return self.succeeded
            case _:
                return self.record.phase not in (Phase.WAITING, Phase.SKIPPED)

    def never_meets(self, condition: str) -> bool:
        return self.over and not self.meets(condition)

    async def run(self, others: Mapping[str, "Node"]) -> None:
        """Until its end, for good."""
        for name, condition in self.plan.after:
            if not await self._wait_for(others[name], condition):
                self._move(Phase.SKIPPED, message=f"{name} never was {condition}")
                return
        try:
            output = OutputFile(self._folder.output(self.plan.name), self._lab.output_bytes)
        except OSError as error:
            self._move(Phase.EXITED, exit_code=NOT_RUNNABLE, message=f"its output cannot be kept: {error}")
            return
        limit = asyncio.create_task(self._watch_time()) if self.plan.limits.wall_seconds else None
        try:
            await self._keep_running(output)
        finally:
            if limit is not None:
                limit.cancel()
            output.close()

    async def _wait_for(self, other: "Node", condition: str) -> bool:
        while not other.meets(condition):
            if other.never_meets(condition) or self._stopping.is_set():
                return False
            await other.news()
        return not self._stopping.is_set()

    async def news(self) -> None:
        """Returns after its record has changed, or somebody wants everything looked at."""
        await self._news.wait()

    async def _keep_running(self, output: OutputFile) -> None:
        restarts = 0
        while not self._stopping.is_set():
            code = await self._run_once(output)
            ended_itself = not (self._stopping.is_set() or self._timed_out.is_set())
            wants = ended_itself and self.plan.wants_restart(1 if self._unhealthy else code, restarts)
            if not wants:
                code = TIMED_OUT if self._timed_out.is_set() else code
                message = "its time ran out" if self._timed_out.is_set() else self.record.message
                self._move(Phase.STOPPED if self._stopping.is_set() else Phase.EXITED, exit_code=code, message=message)
                return
            restarts += 1
            self._move(Phase.RESTARTING, exit_code=code, restarts=restarts)
            await self._pause(self.plan.pause_after(restarts))
        self._move(Phase.STOPPED)

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not (self._stopping.is_set() or self._timed_out.is_set()) and (left := until - time.monotonic()) > 0:
            self._news.clear()
            await asyncio.wait({asyncio.ensure_future(self._news.wait())}, timeout=left)

    async def _run_once(self, output: OutputFile) -> int:
        """Starts it and returns its exit code."""
        if self._timed_out.is_set():
            return TIMED_OUT
        reading, writing = os.pipe()
        self._unhealthy = False
        try:
            process = self._spawn(self.plan.argv, self.plan.limits, writing)
        except (OSError, subprocess.SubprocessError) as error:
            os.close(reading)
            self._move(self.record.phase, message=f"{self.plan.argv[0]} cannot be run: {error}")
            return NOT_RUNNABLE
        finally:
            os.close(writing)
        self._process = process
        self._gone.clear()
        check = self.plan.check
        self._move(Phase.STARTING if check is not None else Phase.RUNNING, pid=process.pid, message="")
        copying = asyncio.create_task(self._copy(reading, output))
        watching = asyncio.create_task(self._watch_health()) if check is not None else None
        try:
            await child.until_ended(process)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait({watching})
            self._signal(signal.SIGKILL)  # what is left of its session goes with it
            code = child.exit_code(process)
            self._process = None
            self._gone.set()
            await asyncio.wait({copying}, timeout=_DRAIN_SECONDS)
            copying.cancel()
            await asyncio.wait({copying})
            self.record.pid = None
        return code if code >= 0 else SIGNALLED - code

    def _spawn(self, argv: tuple[str, ...], limits: Limits, output: int) -> "subprocess.Popen[bytes]":
        work = self._folder.work(self.plan.name)
        return child.spawn(
            argv,
            env=child.clean_environment(self._lab.id, work, self.plan.env),
            cwd=work,
            limits=limits,
            user=self._lab.user,
            group=self._lab.group,
            output=output,
        )

    async def _copy(self, descriptor: int, output: OutputFile) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, ready.set)
        try:
            while True:
                await ready.wait()
                ready.clear()
                try:
                    data = os.read(descriptor, _READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    return
                self._keep(output, data)
                self._count(output)
                self._changed()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def _keep(self, output: OutputFile, data: bytes) -> None:
        turns = output.turns_with(data)
        try:
            if turns:
                self._record_now(output)
            output.write(data)
            if turns:
                self._record_now(output)
        except OSError as error:  # a full disk: the node goes on, its output is read and lost
            self.record.message = f"its output is not kept: {error.strerror}"

    def _record_now(self, output: OutputFile) -> None:
        self._count(output)
        self._write()

    def _count(self, output: OutputFile) -> None:
        self.record.dropped, self.record.written = output.dropped, output.written

    async def _watch_health(self) -> None:
        check = self.plan.check
        assert check is not None
        began, failures = time.monotonic(), 0
        limits = self.plan.limits

        def run(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
            return self._spawn(command, limits, subprocess.DEVNULL)

        while True:
            fault = await health.fault_of(check, run)
            if fault is None:
                failures = 0
                if self.record.phase != Phase.RUNNING:
                    self._move(Phase.RUNNING, message="")
            elif self.record.phase == Phase.RUNNING or time.monotonic() - began >= check.start_period:
                failures += 1
                if failures >= check.retries:
                    self._unhealthy = True
                    self._move(Phase.UNHEALTHY, message=fault)
                    if self.plan.wants_restart(1, self.record.restarts):
                        await self._end_process()
            else:
                self.record.message = fault
            # before it has been healthy once, others may wait for it: look more often
            await asyncio.sleep(check.interval if self.record.phase != Phase.STARTING else min(check.interval, 0.25))

    async def _watch_time(self) -> None:
        await asyncio.sleep(self.plan.limits.wall_seconds or 0)
        self._timed_out.set()
        self._tell()
        await self._end_process()

    async def stop(self) -> None:
        """Asks it to end (TERM), then makes it (KILL); returns when `run` may end."""
        self._stopping.set()
        self._tell()
        await self._end_process()

    async def _end_process(self) -> None:
        self._signal(signal.SIGTERM)
        until = time.monotonic() + self._lab.grace_seconds
        process = self._process
        while process is not None and self._process is process and (left := until - time.monotonic()) > 0:
            await asyncio.wait({asyncio.ensure_future(self._gone.wait())}, timeout=left)
        if process is not None and self._process is process:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """To its whole session's group."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nothing of it is left

    def _move(self, phase: str, **changes: object) -> None:
        self.record.phase = phase
        for name, value in changes.items():
            setattr(self.record, name, value)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._changed()
