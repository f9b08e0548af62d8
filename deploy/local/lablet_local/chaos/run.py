"""One seed from a fresh mesh to the verdict."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lablet_common.resources.kinds import Service
from lablet_local.binaries import find_etcd
from lablet_local.chaos.checks import judge, under_way
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.faults import Injector
from lablet_local.chaos.jobs import Ledger
from lablet_local.chaos.load import Load, Seen
from lablet_local.chaos.network import Network
from lablet_local.chaos.schedule import Kind, plan
from lablet_local.demo.checks.check import Check
from lablet_local.demo.evidence import Evidence, Json, read_events, read_present
from lablet_local.members import MANY, member_of
from lablet_local.mesh import LocalMesh
from lablet_local.ports import PortBlock, PortsBusy

SPEED = 150.0
LEASE_TTL = 3.0
CONVERGE_SECONDS = 60.0
REPLICAS = {"gateway": 2, "scheduler": 2, "workers": 2, "artifacts": 2}
_BLOCKS = range(12_000, 30_000, 100)
_TRIES = 20
_STOP_SECONDS = 0.5
"""The verdict is made: nobody needs an orderly end."""
_AGENTS_STOP_SECONDS = 5.0
"""Agents end what they run."""
AGENT_LEASE_SECONDS = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a seed."""

    seed: int
    checks: tuple[Check, ...]
    faults: Counter[str]
    seen: Seen
    converged_seconds: float
    """Real seconds from the last fault until nothing was under way any more."""
    reduced: str = ""
    """What could not be done here, and why."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Reservations by the phase in which they ended."""

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


async def run_seed(
    seed: int,
    seconds: float,
    folder: Path,
    lab_file: bytes,
    say: Callable[[str], None],
    *,
    ha: bool = False,
    agents: int = 0,
) -> Verdict:
    """`ha`: with three members of etcd and of NATS; `agents` run jobs. Raises what `LocalMesh` raises when the mesh cannot
    be started."""
    rng = random.Random(seed)
    for _ in range(_TRIES):
        block = PortBlock(rng.choice(_BLOCKS))
        async with Network(block, MANY if ha else 1) as network:
            mesh = LocalMesh(
                folder, speed=SPEED, replicas=REPLICAS, port_base=block.base, lease_ttl=LEASE_TTL,
                environments=_environments(network), ready_seconds=120, ha=ha, agents=agents,
                called_at=network.peers.addresses,
            )  # fmt: skip
            network.peers.pids = partial(_pids, mesh)
            try:
                await mesh.start()
            except PortsBusy:
                continue
            try:
                return await _live(mesh, network, seed, seconds, lab_file, say)
            finally:
                await mesh.stop(within=_STOP_SECONDS if not agents else _AGENTS_STOP_SECONDS)
    raise PortsBusy("no block of ports was free")


def _pids(mesh: LocalMesh) -> dict[int, str]:
    """Of the members that run."""
    members = {state.pid: state.process.name for state in mesh.processes if member_of(state.process.name)}
    return {pid: name for pid, name in members.items() if pid is not None}


def _environments(network: Network) -> dict[str, Mapping[str, str]]:
    """Agents are missed sooner than usual, so that their labs are healed within a run."""
    workers = {**network.environments[Service.WORKERS], "AGENT_LEASE_SECONDS": str(AGENT_LEASE_SECONDS)}
    return {**network.environments, Service.WORKERS: workers}


async def _live(
    mesh: LocalMesh, network: Network, seed: int, seconds: float, lab_file: bytes, say: Callable[[str], None]
) -> Verdict:
    sound = find_etcd().sound
    services = [state.process.name for state in mesh.processes if state.process.name.rpartition("-")[0] in set(Service)]
    agents = [state.process.name for state in mesh.processes if state.process.name.startswith("agent-")]
    faults = plan(
        seed, seconds, services, LEASE_TTL, sound_etcd=sound, members=mesh.members.count, agents=agents,
        agent_ttl=AGENT_LEASE_SECONDS,
    )  # fmt: skip
    ledger = Ledger() if agents else None
    gateways = [mesh.gateway_url(one) for one in (1, 2)]
    load = Load(gateways, mesh.token("admin"), seed, SPEED, lab_file, ledger.manifest if ledger else None)
    chronicle = Chronicle(mesh.members.etcd_endpoints)
    injector = Injector(mesh, network, seed)
    writing = asyncio.create_task(chronicle.run())
    try:
        await load.publish_first()
        asking = asyncio.create_task(load.run())
        say(f"{len(faults)} faults in {seconds:g} s")
        await injector.run(faults)
        load.stop()
        ended = time.monotonic()
        await asking
        await load.wind_up()
        await mesh.wait_ready(timeout=CONVERGE_SECONDS)
        converged = await _until_at_rest(mesh, ended)
        evidence = await _gather(mesh, chronicle)
        jobs = ledger.read() if ledger else ()
    finally:
        if ledger is not None:
            ledger.remove()
        writing.cancel()
        await asyncio.wait({writing})
    forgetful = injector.done[Kind.COMPACT] + injector.done[Kind.PURGE] > 0 or chronicle.gap
    checks = judge(evidence, load.seen, every_event=not forgetful, jobs=jobs)
    checks.append(
        Check(
            "clock",
            f"it came to rest within {CONVERGE_SECONDS:g} s",
            1,
            () if converged <= CONVERGE_SECONDS else (f"{converged:.0f} s",),
        )
    )
    phases = Counter(
        str(value["status"]["phase"])
        for key, value in evidence.present.items()
        if key.startswith("/reservations/") and isinstance(value, dict)
    )
    reduced = "" if sound else "this etcd may lose writes in a crash: it was not killed"
    return Verdict(seed, tuple(checks), injector.done, load.seen, converged, reduced, phases)


async def _until_at_rest(mesh: LocalMesh, since: float) -> float:
    """Seconds until nothing is under way; more than `CONVERGE_SECONDS` where it never came so far."""
    while (waited := time.monotonic() - since) <= CONVERGE_SECONDS:
        with contextlib.suppress(OSError, RuntimeError):
            present = await read_present(mesh.etcd_endpoint)
            if _rests(present):
                return waited
        await asyncio.sleep(0.5)
    return waited


def _rests(present: dict[str, Json | str]) -> bool:
    waits = any(key.startswith("/inbox/") for key in present)
    return not waits and next(under_way(Evidence(present=present)), None) is None


async def _gather(mesh: LocalMesh, chronicle: Chronicle) -> Evidence:
    present = await read_present(mesh.etcd_endpoint)
    newest = max(
        (change.revision for change in chronicle.changes if change.key.startswith(("/reservations/", "/instances/"))),
        default=0,
    )
    events, machines = await asyncio.gather(read_events(mesh, newest), mesh.witness())
    return Evidence(present=present, history=tuple(chronicle.changes), events=events, machines=tuple(machines))
