"""Carries out a plan: each fault at its time, each ended after its own, whatever becomes of the others."""

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import nats
from nats.errors import Error as NatsError

from lablet_common.bus.permissions import inbox_prefix
from lablet_common.bus.streams import EVENTS_STREAM
from lablet_common.testing.proxy import FaultyProxy
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.network import Network
from lablet_local.chaos.quota import Quota, alarm, head
from lablet_local.chaos.schedule import A_MACHINE, LEADER_OF, Fault, Kind
from lablet_local.mesh import LocalMesh
from lablet_local.messaging import MAINTENANCE
from lablet_local.supervisor import NotReady

_log = logging.getLogger("lablet.chaos")
_LATE_SECONDS = 0.15
_CATCH_UP_SECONDS = 3.0
_ROOM_SECONDS = 0.2
_MACHINE_SECONDS = 8.0
"""For so long a machine that is to be killed, paused or cut off is waited for."""
_SHORT_SECONDS = 15.0
_SETTLED_SECONDS = 4.0
"""After which a machine that is on has labs: its controller is up after half a second, and labs need no more."""


class Injector:
    """Counts what it has done by name, and in `missed` the faults that found nothing to break, as their target was down at
    that moment, or did not come about. Nothing is compacted before `chronicle` has it."""

    def __init__(self, mesh: LocalMesh, network: Network, chronicle: Chronicle, seed: int) -> None:
        self._mesh = mesh
        self._network = network
        self._chronicle = chronicle
        self._quota = Quota(mesh.members.etcd_endpoints, chronicle)
        self._rng = random.Random(seed ^ 0x5EED)
        self._beside = random.Random(f"machines beside {seed}")
        """For what comes beside the plan, so that the plan's machines are drawn as without it."""
        self._paused: set[int] = set()
        self._broken: Counter[tuple[FaultyProxy, Kind]] = Counter()
        self.done: Counter[str] = Counter()
        self.hit: Counter[str] = Counter()
        """By target."""
        self.missed: Counter[str] = Counter()
        self.compacted = False
        self.purged_at = 0
        """etcd's revision when the stream of events was emptied last: what was committed later must stand in it."""

    async def run(self, faults: Sequence[Fault]) -> None:
        """Returns when the last fault has ended and everything is let go."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.TaskGroup() as tasks:
                for fault in faults:
                    await asyncio.sleep(max(0.0, began + fault.at - loop.time()))
                    tasks.create_task(self._inject(fault))
        finally:
            for pid in self._paused:
                self._signal(pid, signal.SIGCONT)
            self._network.heal()

    async def _inject(self, fault: Fault) -> None:
        try:
            await self._carry_out(fault)
        except (NotReady, httpx.HTTPError, NatsError, TimeoutError, OSError) as error:
            self.missed[fault.name] += 1
            _log.info("a fault found nothing to break", extra={"fault": str(fault), "cause": str(error)})
        else:
            self.done[fault.name] += 1
            self.hit[fault.target] += 1

    async def _carry_out(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL | Kind.LEADER:
                self._mesh.kill(await self._process(fault.target))
            case Kind.RESTART:
                await self._mesh.restart(fault.target)
            case Kind.PAUSE:
                await self._pause(await self._pid(fault.target), fault.seconds)
            case Kind.MINORITY:
                await self._cut_off(await self._process(fault.target), fault.seconds)
            case Kind.ROLLING:
                for name in self._mesh.members.names(fault.target):
                    await self._mesh.restart(name)
            case Kind.CUT | Kind.SWALLOW | Kind.DELAY:
                await self._disturb(fault)
            case Kind.MACHINE:
                await self._kill_a_machine()
            case Kind.COMPACT:
                await self._compact()
            case Kind.PURGE:
                await self._purge()
            case Kind.NO_SPACE:
                await self._refuse(fault)
            case Kind.FULL:
                await self._fill(fault)

    async def _process(self, target: str) -> str:
        """Who leads, where it is a leader that is meant."""
        if not target.startswith(LEADER_OF):
            return target
        led = target.removeprefix(LEADER_OF)
        leader = await (self._mesh.etcd_leader() if led == "etcd" else self._mesh.stream_leader(led))
        if leader is None:
            raise NotReady(f"{led} has no leader just now")
        return leader

    async def _cut_off(self, member: str, seconds: float) -> None:
        self._network.peers.cut_off(member)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._network.peers.join(member)

    async def _pid(self, target: str) -> int:
        if target == A_MACHINE:
            return int((await self._a_machine())["pid"])
        pid = self._mesh.process(await self._process(target)).pid
        if pid is None:
            raise NotReady(f"{target} does not run")
        return pid

    async def _pause(self, pid: int, seconds: float) -> None:
        self._paused.add(pid)
        try:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            self._paused.discard(pid)
            self._signal(pid, signal.SIGCONT)

    def _signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    async def _disturb(self, fault: Fault) -> None:
        """Where several of a kind meet on a connection, it is broken until the last of them has ended."""
        proxies = self._network.between(fault.target, await self._host(fault))
        for proxy in proxies:
            self._broken[proxy, fault.kind] += 1
            if fault.kind is Kind.CUT:
                proxy.refuse = True
                proxy.break_off()
            elif fault.kind is Kind.SWALLOW:
                proxy.swallow_answers = True
            else:
                proxy.delay_seconds = _LATE_SECONDS
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            for proxy in proxies:
                self._broken[proxy, fault.kind] -= 1
                if not self._broken[proxy, fault.kind]:
                    self._mend(proxy, fault.kind)

    def _mend(self, proxy: FaultyProxy, kind: Kind) -> None:
        if kind is Kind.CUT:
            proxy.refuse = False
        elif kind is Kind.SWALLOW:
            proxy.swallow_answers = False
            proxy.break_off()
        else:
            proxy.delay_seconds = 0.0

    async def _host(self, fault: Fault) -> str | None:
        """Of the machine that is meant, where it is one alone: any that is on or boots; for a fault that goes on until it is
        given up, one that has been on for a while, so that labs run on it. One is waited for."""
        if not fault.target.endswith(f"→{A_MACHINE}"):
            return None
        if fault.seconds > _SHORT_SECONDS:
            return str((await self._a_machine_of(self._beside, settled=True))["host"])
        return str((await self._a_machine_of(self._beside, "pending"))["host"])

    async def _kill_a_machine(self) -> None:
        machine = await self._a_machine()
        await self._mesh.kill_machine(str(machine["id"]))

    async def _a_machine(self) -> dict[str, Any]:
        return await self._a_machine_of(self._rng)

    async def _a_machine_of(self, rng: random.Random, *also: str, settled: bool = False) -> dict[str, Any]:
        """Any that runs, or is `also` so. One is waited for: early in a run none may be on yet."""
        waiting_until = asyncio.get_running_loop().time() + _MACHINE_SECONDS
        while True:
            try:
                found = await self._machines_in(*also, "running")
                return rng.choice(list(_settled(found)) if settled else found)
            except (NotReady, IndexError, httpx.HTTPError):
                if asyncio.get_running_loop().time() >= waiting_until:
                    raise NotReady("no machine is on, or for long enough") from None
                await asyncio.sleep(_ROOM_SECONDS)

    async def _machines_in(self, *states: str) -> list[dict[str, Any]]:
        found = [one for one in await self._mesh.machines() if one["state"] in states and one["pid"] is not None]
        if not found:
            raise NotReady("no machine runs")
        return found

    async def _compact(self) -> None:
        """Forgets everything before now."""
        revision = await self._chronicle.catch_up(_CATCH_UP_SECONDS)
        self.compacted = True
        await self._quota.compact(revision)

    async def _purge(self) -> None:
        user, password = self._mesh.nats_login(MAINTENANCE)
        connection = await nats.connect(
            list(self._mesh.members.nats_urls), user=user, password=password, inbox_prefix=inbox_prefix(MAINTENANCE).encode(),
            allow_reconnect=False, connect_timeout=2,
        )  # fmt: skip
        try:
            await connection.jetstream().purge_stream(EVENTS_STREAM)
        finally:  # also where no answer came: it may have been done
            await self._until(self._note_purge)
            await connection.close()

    async def _note_purge(self) -> None:
        self.purged_at = await head(self._mesh.etcd_endpoint)

    async def _refuse(self, fault: Fault) -> None:
        """Raises the alarm that etcd raises by itself when its quota is full."""
        await alarm(self._mesh.etcd_endpoint, raised=True)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await self._until(lambda: alarm(self._mesh.etcd_endpoint, raised=False))

    async def _fill(self, fault: Fault) -> None:
        await self._chronicle.catch_up(_CATCH_UP_SECONDS)
        try:
            await self._quota.fill()
            await asyncio.sleep(fault.seconds)
        finally:
            self.compacted = True
            await self._until(self._quota.make_room)

    async def _until(self, done: Callable[[], Awaitable[None]]) -> None:
        """etcd may be down at that very moment, and keeps its alarms over a restart."""
        while True:
            try:
                await done()
            except (httpx.HTTPError, TimeoutError) as error:
                _log.info("etcd does not do it yet", extra={"cause": str(error)})
                await asyncio.sleep(_ROOM_SECONDS)
            else:
                return


def _settled(machines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those that came on a while ago."""
    before = datetime.now(UTC) - timedelta(seconds=_SETTLED_SECONDS)
    return (one for one in machines if datetime.fromisoformat(one["history"][-1]["at"]) <= before)
