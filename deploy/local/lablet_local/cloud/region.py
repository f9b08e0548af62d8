"""The machines' life: what is asked of the cloud, carried out by one task per machine that has something under way.

A simulator process that ends by itself is a lost machine: state `stopped`, reason `lost`. When the cloud dies its
simulators die with it, and a simulator forgets its labs and its password. So at the next start the machines that were on
are found `stopped`, reason `lost`, as after the loss of their host; or, when wanted (`reboot`), they are booted again
with empty controllers (`restarted with the cloud`), as after a power cut.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lablet_local.cloud.addresses import CONTROLLER_PORT, next_address
from lablet_local.cloud.records import MOVES, IllegalMove, Machine, Records, State, now_text
from lablet_local.cloud.scenario import Scenario
from lablet_local.cloud.simulator import Simulator, SimulatorOptions
from lablet_local.cloud.sizes import Size

_log = logging.getLogger("lablet.cloud")
_ON = frozenset({State.PENDING, State.RUNNING, State.STOPPING})


class Refused(Exception):
    """A call that the cloud does not carry out. `code` is stable; `status` is HTTP's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in lab minutes, and how many real seconds a lab minute has."""

    speed: float = 1.0
    boot_minutes: float = 1.0
    """`pending` until `running`; the controller's own start goes on after that."""
    stop_minutes: float = 0.5

    def seconds(self, minutes: float) -> float:
        return minutes * 60 / self.speed


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    client_token: str
    name: str
    instance_type: str
    image: str
    user_data: str
    tags: dict[str, str]


class Region:
    """All machines of one data folder."""

    def __init__(
        self,
        folder: Path,
        net: IPv4Network,
        pace: Pace,
        options: SimulatorOptions,
        *,
        sizes: Mapping[str, Size] | None = None,
        scenario: Scenario | None = None,
        reboot: bool = False,
    ) -> None:
        self._records = Records(folder)
        self._net = net
        self._pace = pace
        self._options = options
        self._sizes = sizes or {}
        self._reboot = reboot
        self._simulators: dict[str, Simulator] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        self.scenario = scenario or Scenario()

    @property
    def machines(self) -> list[Machine]:
        return self._records.all()

    def require(self, id_or_name: str) -> Machine:
        machine = self._records.find(id_or_name)
        if machine is None:
            raise Refused(404, "NotFound", f"there is no machine {id_or_name!r}")
        return machine

    def witness_path(self, machine: Machine) -> Path:
        return self._records.folder_of(machine.id) / "witness.jsonl"

    async def open(self) -> None:
        """Takes up what an earlier life of the cloud left: boots or loses what was on, ends what was ending."""
        for machine in self.machines:
            if machine.state in (State.RUNNING, State.PENDING):
                if not self._reboot:
                    self._move(machine, State.STOPPED, "lost")
                    continue
                if machine.state is State.RUNNING:
                    machine = self._move(machine, State.PENDING, "restarted with the cloud")
                self._begin(machine, self._boot)
            elif machine.state is State.STOPPING:
                self._move(machine, State.STOPPED)
            elif machine.state is State.SHUTTING_DOWN:
                self._move(machine, State.TERMINATED)

    async def close(self) -> None:
        """Ends every simulator; the records keep what was on, for the next start."""
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)
        await asyncio.gather(*(simulator.end() for simulator in self._simulators.values()))

    def launch(self, order: LaunchOrder) -> tuple[Machine, bool]:
        """A new machine, or the one that this client token already made (with False)."""
        present = self._records.by_token(order.client_token)
        if present is not None:
            same = (present.name, present.instance_type, present.image) == (
                order.name,
                order.instance_type,
                order.image,
            )
            if not same:
                raise Refused(409, "IdempotencyMismatch", f"the client token already made {present.id} otherwise")
            return present, False
        self._require_room(order.instance_type)
        machine = Machine(
            id=f"m-{uuid.uuid4().hex[:12]}",
            client_token=order.client_token,
            name=order.name,
            instance_type=order.instance_type,
            image=order.image,
            user_data=order.user_data,
            tags=order.tags,
            host=self._new_address(),
            port=CONTROLLER_PORT,
            launched_at=now_text(),
        )
        self._records.save(machine)
        self._begin(machine, self._boot)
        return machine, True

    def _new_address(self) -> str:
        return next_address(self._net, [m.host for m in self.machines if m.state is not State.TERMINATED])

    def start(self, id_or_name: str) -> Machine:
        """From `stopped`; a machine that is on already stays as it is."""
        machine = self.require(id_or_name)
        if machine.state in (State.PENDING, State.RUNNING):
            return machine
        self._require_room(machine.instance_type)
        machine = self._move(machine, State.PENDING)
        self._begin(machine, self._boot)
        return machine

    def stop(self, id_or_name: str) -> Machine:
        machine = self.require(id_or_name)
        if machine.state in (State.STOPPING, State.STOPPED):
            return machine
        machine = self._move(machine, State.STOPPING)
        self._begin(machine, self._wind_down)
        return machine

    def terminate(self, id_or_name: str) -> Machine:
        machine = self.require(id_or_name)
        if machine.state in (State.SHUTTING_DOWN, State.TERMINATED):
            return machine
        machine = self._move(machine, State.SHUTTING_DOWN)
        self._begin(machine, self._wind_down)
        return machine

    def signal(self, id_or_name: str, number: int = signal.SIGKILL) -> Machine:
        """Sends a signal to the machine's simulator: the test's axe."""
        machine = self.require(id_or_name)
        if machine.pid is None:
            raise Refused(409, "NotReady", f"machine {machine.id} is {machine.state}: no process of it runs")
        os.kill(machine.pid, number)
        return machine

    def _require_room(self, instance_type: str) -> None:
        on = [machine.instance_type for machine in self.machines if machine.state in _ON]
        if not self.scenario.room_for(instance_type, on):
            raise Refused(503, "InsufficientCapacity", f"no capacity for another machine of type {instance_type}")

    def _move(self, machine: Machine, to: State, reason: str = "") -> Machine:
        try:
            moved = machine.moved(to, reason)
        except IllegalMove as error:
            raise Refused(409, "NotReady", str(error)) from error
        self._records.save(moved)
        _log.info("%s %s is %s %s", moved.name, moved.id, to, reason)
        return moved

    def _begin(self, machine: Machine, work: Callable[[str], Awaitable[None]]) -> None:
        """Replaces whatever was under way for the machine."""
        if previous := self._work.get(machine.id):
            previous.cancel()
        self._work[machine.id] = asyncio.create_task(self._guard(machine.id, work), name=machine.id)

    async def _guard(self, machine_id: str, work: Callable[[str], Awaitable[None]]) -> None:
        try:
            await work(machine_id)
        except OSError as error:
            _log.error("machine %s cannot be carried on with: %s", machine_id, error)
            if State.STOPPED in MOVES[self.require(machine_id).state]:
                self._ended(machine_id, f"host fault: {error}")

    async def _boot(self, machine_id: str) -> None:
        machine = self.require(machine_id)
        if IPv4Address(machine.host) not in self._net:  # the cloud came back on another network
            machine = replace(machine, host=self._new_address())
            self._records.save(machine)
        simulator = self._simulators.pop(machine_id, None)
        if simulator is not None:
            await simulator.end()
        minutes = self._pace.boot_minutes if self.scenario.boot_minutes is None else self.scenario.boot_minutes
        seconds = self._pace.seconds(minutes * self.scenario.boot_factor())
        if self.scenario.boot_fails(machine.name):
            await asyncio.sleep(seconds)
            self._move(self.require(machine_id), State.STOPPED, "boot failed")
            return
        size = self._sizes.get(machine.instance_type)
        folder = self._records.folder_of(machine_id)
        simulator = Simulator(machine.host, machine.port, folder, self._options, size, machine.name)
        self._simulators[machine_id] = simulator
        pid = await simulator.start()
        self._records.save(replace(self.require(machine_id), pid=pid, boots=machine.boots + 1))
        if await simulator.ends_within(seconds):
            self._ended(machine_id, "boot failed")
            return
        self._move(self.require(machine_id), State.RUNNING)
        doom = self.scenario.lose.get(machine.name)
        if doom is not None and not await simulator.ends_within(self._pace.seconds(doom)):
            await simulator.end()
        await simulator.ended()
        self._ended(machine_id, "lost")

    async def _wind_down(self, machine_id: str) -> None:
        simulator = self._simulators.pop(machine_id, None)
        if simulator is not None:
            await simulator.end()
            self._records.save(replace(self.require(machine_id), pid=None))
        await asyncio.sleep(self._pace.seconds(self._pace.stop_minutes))
        machine = self.require(machine_id)
        self._move(machine, State.STOPPED if machine.state is State.STOPPING else State.TERMINATED)

    def _ended(self, machine_id: str, reason: str) -> None:
        self._simulators.pop(machine_id, None)
        self._records.save(replace(self.require(machine_id), pid=None))
        self._move(self.require(machine_id), State.STOPPED, reason)
