"""One machine's process: the CML simulator, bound to the cloud so that it never outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lablet_local.cloud.sizes import Size
from lablet_local.launch import bound_to_parent

_END_SECONDS = 3.0
"""After SIGTERM, before SIGKILL."""


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """What every simulator is started with."""

    speed: float = 1.0
    boot_seconds: float = 60.0
    """Lab seconds until the controller answers that it is ready."""
    password_file: Path | None = None
    faults: Path | None = None
    command: tuple[str, ...] = (sys.executable, "-m", "lablet_local.cml")
    """Overridden in tests by a stand-in that takes the same options."""


class Simulator:
    """A process that can be started once, awaited and ended."""

    def __init__(
        self,
        host: str,
        port: int,
        folder: Path,
        options: SimulatorOptions,
        size: Size | None = None,
        hostname: str = "",
    ) -> None:
        self._host = host
        self._port = port
        self._folder = folder
        self._options = options
        self._size = size
        self._hostname = hostname
        self._process: asyncio.subprocess.Process | None = None

    def arguments(self) -> list[str]:
        options = self._options
        given = [*options.command, "--host", self._host, "--port", str(self._port), "--speed", f"{options.speed:g}"]
        given += ["--boot-seconds", f"{options.boot_seconds:g}", "--state", str(self._folder / "witness.jsonl")]
        if options.password_file is not None:
            given += ["--password-file", str(options.password_file)]
        if options.faults is not None:
            given += ["--faults", str(options.faults)]
        if self._size is not None:
            given += ["--cpus", str(self._size.cpus), "--memory-gb", str(self._size.memory_gb)]
            given += ["--disk-gb", str(self._size.disk_gb)]
        if self._hostname:
            given += ["--hostname", self._hostname]
        return [*given, "--die-with-parent"]

    async def start(self) -> int:
        """Starts it and returns its pid; it has not answered yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        log = os.open(self._folder / "cml.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *bound_to_parent(self.arguments()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        finally:
            os.close(log)
        return self._process.pid

    async def ended(self) -> int:
        """Waits for its end and returns the exit code (negative: the signal)."""
        assert self._process is not None
        return await self._process.wait()

    async def ends_within(self, seconds: float) -> bool:
        """Waits for its end, but no longer than so many real seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Asks it to end, then makes it; a process that has ended is no error."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
        if not await self.ends_within(_END_SECONDS):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
