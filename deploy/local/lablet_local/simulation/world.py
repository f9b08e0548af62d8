"""What there is beside the services: a store, an object store, lab time, and a cloud whose machines keep a log of their own.

Machines boot and stop in their own time, sometimes too late or not at all, and run labs that end with them. The log has
the words that the simulators of the fault runs use, so that the same checks read both.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lablet_common.clock import ClockOrigin, ScaledClock
from lablet_common.objects import MemoryObjectStore
from lablet_common.store import MemoryStore
from lablet_workers.providers.memory import MemoryProvider
from lablet_workers.providers.port import LaunchOrder, MachineInfo, MachineState
from lablet_workers.runtimes.memory import MemoryRuntime

MORNING = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_GOING = (MachineState.PENDING, MachineState.RUNNING)


@dataclass(slots=True)
class WitnessedRuntime(MemoryRuntime):
    """A worker's runtime that writes down what its labs do."""

    facts: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, fact: str, **more: Any) -> None:
        self.facts.append({"fact": fact, "at": asyncio.get_running_loop().time(), **more})

    async def register(self, product: str, token: str) -> None:
        before = self.registration
        await MemoryRuntime.register(self, product, token)
        if self.registration == "COMPLETED" != before:
            self.tell("licence.registered", product=product, quota=self.node_quota)

    async def deregister(self) -> None:
        before = self.registration
        await MemoryRuntime.deregister(self)
        if before == "COMPLETED":
            self.tell("licence.deregistered")

    async def import_lab(self, title: str, topology: bytes) -> str:
        known = set(self.lab_by_id)
        lab = await MemoryRuntime.import_lab(self, title, topology)
        if lab not in known:
            self.tell("lab.imported", lab=lab, title=title)
        return lab

    async def start(self, lab: str) -> None:
        ran = lab in self.lab_by_id and self.lab_by_id[lab].running
        await MemoryRuntime.start(self, lab)
        if not ran:
            self.tell("lab.started", lab=lab, title=self.lab_by_id[lab].title)

    async def stop(self, lab: str) -> None:
        ran = lab in self.lab_by_id and self.lab_by_id[lab].running
        await MemoryRuntime.stop(self, lab)
        if ran:
            self.tell("lab.stopped", lab=lab)

    async def remove(self, lab: str) -> None:
        there = lab in self.lab_by_id
        await MemoryRuntime.remove(self, lab)
        if there:
            self.tell("lab.deleted", lab=lab)

    def go_down(self, *, lost: bool) -> None:
        """Its machine is off. Labs stay on its disk, unless the machine was lost."""
        self.up = False
        if lost:
            self.tell("machine.lost")
            self.lose_power()
            return
        self.tell("controller.stopped")
        for lab in self.lab_by_id.values():
            lab.running = False


class Cloud(MemoryProvider):
    """Machines that take their time. `fate` says of each boot how many real seconds it takes; None: it fails."""

    def __init__(self, fate: "Fate") -> None:
        super().__init__(instant=False)
        self.runtimes: dict[str, WitnessedRuntime] = {}
        self._fate = fate
        self._lives: dict[str, int] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}

    def open(self, url: str, password: str) -> WitnessedRuntime:  # noqa: ARG002 - the port's signature
        return self.runtimes[url.removeprefix("memory://")]

    def become(self, machine_id: str, state: MachineState, reason: str = "") -> None:
        before = self.machines[machine_id].state
        super().become(machine_id, state, reason)
        runtime = self.runtimes[machine_id]
        if state is MachineState.RUNNING and before is not MachineState.RUNNING:
            runtime.up = True
            runtime.tell("controller.started")
        if state in (MachineState.STOPPED, MachineState.TERMINATED) and runtime.up:
            runtime.go_down(lost=bool(reason) or state is MachineState.TERMINATED)

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        known = set(self.machines)
        info = await super().launch(order)
        if info.id not in known:
            self.runtimes[info.id] = WitnessedRuntime(up=False)
            self._boot(info.id)
        return self.machines[info.id]

    async def start(self, machine_id: str) -> MachineInfo:
        before = (await self.describe(machine_id)).state
        info = await super().start(machine_id)
        if before is MachineState.STOPPED:
            self._boot(machine_id)
        return info

    async def stop(self, machine_id: str) -> MachineInfo:
        if (await self.describe(machine_id)).state not in _GOING:
            return self.machines[machine_id]
        self._next_life(machine_id)
        self.machines[machine_id] = replace(self.machines[machine_id], state=MachineState.STOPPING, reason="")
        self._in_time(machine_id, self._fate.stop_seconds(), MachineState.STOPPED)
        return self.machines[machine_id]

    async def terminate(self, machine_id: str) -> None:
        self._enter()
        if machine_id in self.machines and self.machines[machine_id].state is not MachineState.TERMINATED:
            self._next_life(machine_id)
            self.become(machine_id, MachineState.TERMINATED)

    def lose(self, machine_id: str) -> None:
        """It stops by itself, and everything on it with it."""
        self._next_life(machine_id)
        self.become(machine_id, MachineState.STOPPED, "lost")

    def _boot(self, machine_id: str) -> None:
        self._next_life(machine_id)
        seconds = self._fate.boot_seconds()
        if seconds is None:
            self._in_time(machine_id, 1.0, MachineState.STOPPED, "boot failed")
        else:
            self._in_time(machine_id, seconds, MachineState.RUNNING)

    def _next_life(self, machine_id: str) -> None:
        self._lives[machine_id] = self._lives.get(machine_id, 0) + 1

    def _in_time(self, machine_id: str, seconds: float, state: MachineState, reason: str = "") -> None:
        life = self._lives[machine_id]

        def happen() -> None:
            if self._lives[machine_id] == life:
                self.become(machine_id, state, reason)

        asyncio.get_running_loop().call_later(seconds, happen)

    def witness(self) -> tuple[dict[str, Any], ...]:
        """The machines' own logs, as `ground` reads them, and the titles of the labs that are on their disks."""
        return tuple(self._told(name, info) for name, info in self.machines.items())

    def _told(self, name: str, info: MachineInfo) -> dict[str, Any]:
        runtime = self.runtimes[name]
        left = [lab.title for lab in runtime.lab_by_id.values()]
        return {"id": name, "name": info.name, "state": str(info.state), "facts": runtime.facts, "labs": left}


@dataclass(slots=True)
class Fate:
    """What the cloud draws, from the seed. Lab minutes of usual boots; shares of those that are late or fail."""

    rng: random.Random
    speed: float
    late: float = 0.0
    failed: float = 0.0

    def boot_seconds(self) -> float | None:
        if self.rng.random() < self.failed:
            return None
        minutes = self.rng.uniform(15, 25) if self.rng.random() < self.late else self.rng.uniform(4, 8)
        return minutes * 60 / self.speed

    def stop_seconds(self) -> float:
        return self.rng.uniform(0.5, 2) * 60 / self.speed


class _Clock(ScaledClock):
    """Read far more often than time passes: worked out once for each instant."""

    def __init__(self, origin: ClockOrigin, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._read: tuple[float, datetime] | None = None
        super().__init__(origin, real_now=lambda: _EPOCH + timedelta(seconds=seconds()))

    def now(self) -> datetime:
        seconds = self._seconds()
        if self._read is None or self._read[0] != seconds:
            self._read = seconds, super().now()
        return self._read[1]


class World:
    """Made inside a running simulation loop."""

    def __init__(self, fate: Fate) -> None:
        loop = asyncio.get_running_loop()
        self.store = MemoryStore()
        self.objects = MemoryObjectStore()
        self.cloud = Cloud(fate)
        origin = ClockOrigin(real=_EPOCH, lab=MORNING, speed=fate.speed)
        self.clock = _Clock(origin, loop.time)

    async def until(self, lab: timedelta) -> None:
        """Waits for MORNING + `lab`."""
        await self.clock.sleep_until(MORNING + lab)


async def all_ports_answer(host: str, ports: Mapping[str, int], timeout: float) -> dict[str, str]:  # noqa: ARG001 - the probe's signature
    """The runtimes here listen nowhere."""
    return {}
