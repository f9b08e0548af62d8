"""One seed from a fresh mesh to the verdict."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx
import yaml

from lablet_common.bus.streams import used_by
from lablet_common.resources.kinds import Service
from lablet_local.agents import process_of
from lablet_local.binaries import BinaryMissing, find_etcd
from lablet_local.chaos.checks import Forgotten, judge, under_way
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.faults import Injector
from lablet_local.chaos.jobs import Ledger
from lablet_local.chaos.links import plan_doors, plan_links
from lablet_local.chaos.load import Load
from lablet_local.chaos.network import Network, service_of
from lablet_local.chaos.outages import plan_outages
from lablet_local.chaos.owners import commits_in
from lablet_local.chaos.quota import QUOTA_BYTES
from lablet_local.chaos.schedule import plan
from lablet_local.chaos.verdict import Verdict, failed
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.checks.stream import kind_at
from lablet_local.demo.evidence import Evidence, Json, read_events, read_present
from lablet_local.members import MANY, member_of
from lablet_local.mesh import LocalMesh, TemplatesMissing, worker_templates
from lablet_local.ports import PortBlock, PortsBusy
from lablet_local.services import replica_counts

SPEED = 150.0
LEASE_TTL = 3.0
CONVERGE_SECONDS = 60.0
REPLICAS = {"gateway": 2, "scheduler": 2, "workers": 2, "artifacts": 2}
_LICENCES = 4
"""Workers of the pool that may be on at a time, of six."""
_GRACE_MINUTES = 10
"""Lab minutes that an idle worker is kept on: at the end of a run everybody waits for them."""
NOT_HERE = (BinaryMissing, TemplatesMissing, PortsBusy)
"""What says that no mesh can be started on this machine: no verdict on any seed."""
_BLOCKS = range(12_000, 30_000, 100)
_TRIES = 20
_STOP_SECONDS = 0.5
"""The verdict is made: nobody needs an orderly end."""
_AGENTS_STOP_SECONDS = 5.0
"""Agents end what they run."""
AGENT_LEASE_SECONDS = 6
_RESERVATIONS = "/reservations/"
_ARCHIVE_SECONDS = 30


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
        with contextlib.suppress(PortsBusy):  # of this block
            async with Network(block, MANY if ha else 1, service_replicas(), agent_names(agents)) as network:
                mesh = LocalMesh(
                    folder, speed=SPEED, replicas=REPLICAS, port_base=block.base, lease_ttl=LEASE_TTL,
                    environments=_environments(network, folder), ready_seconds=120, ha=ha, agents=agents,
                    called_at=network.peers.addresses, etcd_quota=QUOTA_BYTES,
                    machines_front=network.machines.port, agent_options=network.agent_options,
                    environment={"WORKER_TEMPLATES_CONFIG_PATH": str(_templates(folder))},
                )  # fmt: skip
                network.peers.pids = partial(_pids, mesh, member_of)
                network.machines.pids = partial(_pids, mesh, lambda name: service_of(name) == Service.WORKERS)
                await mesh.start()
                try:
                    return await _live(mesh, network, seed, seconds, lab_file, say)
                finally:
                    await mesh.stop(within=_STOP_SECONDS if not agents else _AGENTS_STOP_SECONDS)
    raise PortsBusy("no block of ports was free")


def agent_names(count: int) -> list[str]:
    """The agents' processes."""
    return [process_of(number) for number in range(count)]


def _pids(mesh: LocalMesh, wanted: Callable[[str], object]) -> dict[int, str]:
    """Of the processes that are wanted and run."""
    found = {state.pid: state.process.name for state in mesh.processes if wanted(state.process.name)}
    return {pid: name for pid, name in found.items() if pid is not None}


def service_replicas() -> list[str]:
    """The services' processes."""
    counts = replica_counts(REPLICAS)
    return [f"{service}-{number}" for service in Service for number in range(1, counts[service] + 1)]


def _environments(network: Network, folder: Path) -> dict[str, Mapping[str, str]]:
    """Each replica goes through its own proxies and keeps an account of what it commits. Agents are missed sooner than usual,
    so that their labs are healed within a run."""
    found: dict[str, Mapping[str, str]] = {Service.WORKERS: {"AGENT_LEASE_SECONDS": str(AGENT_LEASE_SECONDS)}}
    for replica, settings in network.environments.items():
        found[replica] = {**settings, "ETCD_COMMIT_LOG": str(_accounts(folder) / f"{replica}.commits")}
    return found


def _accounts(folder: Path) -> Path:
    path = folder.with_name(f"{folder.name}-accounts")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _templates(folder: Path) -> Path:
    """The usual templates and pools, with licences that are counted and workers that go off sooner."""
    known = yaml.safe_load(worker_templates().read_text(encoding="utf-8"))
    for pool in known["pools"]:
        if pool["name"] == "default":
            pool |= {"allowed_licenses": _LICENCES, "scale_down_grace_minutes": _GRACE_MINUTES}
    path = _accounts(folder) / "worker-templates.yaml"
    path.write_text(yaml.safe_dump(known), encoding="utf-8")
    return path


async def _live(
    mesh: LocalMesh, network: Network, seed: int, seconds: float, lab_file: bytes, say: Callable[[str], None]
) -> Verdict:
    sound = find_etcd().sound
    services = [state.process.name for state in mesh.processes if state.process.name.rpartition("-")[0] in set(Service)]
    agents = [state.process.name for state in mesh.processes if state.process.name.startswith("agent-")]
    planned = plan(
        seed, seconds, services, LEASE_TTL, sound_etcd=sound, members=mesh.members.count, agents=agents,
        agent_ttl=AGENT_LEASE_SECONDS,
    )  # fmt: skip
    beside = [
        *plan_links(seed, seconds, services, agents=agents, agent_ttl=AGENT_LEASE_SECONDS),
        *plan_doors(seed, seconds, services),
        *plan_outages(seed, seconds),
    ]
    faults = sorted([*planned, *beside], key=lambda fault: fault.at)
    ledger = Ledger() if agents else None
    gateways = [mesh.gateway_url(one) for one in (1, 2)]
    job = ledger.manifest if ledger else None
    load = Load(network.doors, mesh.token("admin"), seed, SPEED, lab_file, job, watched=gateways)
    chronicle = Chronicle(mesh.members.etcd_endpoints)
    injector = Injector(mesh, network, chronicle, seed)
    writing = asyncio.create_task(chronicle.run())
    try:
        await load.publish_first()
        asking = asyncio.create_task(load.run())
        say(f"{len(faults)} faults in {seconds:g} s")
        await injector.run(faults)
        load.stop()
        ended = time.monotonic()
        await asking
        await load.make_up()
        await load.wind_up()
        await mesh.wait_ready(timeout=CONVERGE_SECONDS)
        converged = await _until_at_rest(mesh, ended)
        evidence = await gather(mesh, chronicle, injector.purged_at)
        replicas = await mesh.stream_replicas()
        jobs = ledger.read() if ledger else ()
        commits = tuple(commits_in(_accounts(mesh.folder.root)))
    except Exception as error:  # noqa: BLE001 - the seed is named with it, and the next one is run
        return failed(seed, error, injector.done, load.seen, injector.missed)
    finally:
        if ledger is not None:
            ledger.remove()
        writing.cancel()
        await asyncio.wait({writing})
    forgotten = Forgotten(injector.compacted, injector.purged_at, chronicle.gap)
    checks = judge(evidence, load.seen, forgotten=forgotten, jobs=jobs, commits=commits)
    late = () if converged <= CONVERGE_SECONDS else (f"{converged:.0f} s",)
    if mesh.members.count > 1:
        checks.append(kept_by_all(replicas, mesh.members.count))
    checks.append(Check("network", "what was broken lay on the way", 1, tuple(network.unused()), Harm.UNSETTLED))
    checks.append(Check("clock", f"it came to rest within {CONVERGE_SECONDS:g} s", 1, late, Harm.UNSETTLED))
    phases = Counter(
        str(value["status"]["phase"])
        for key, value in evidence.present.items()
        if key.startswith("/reservations/") and isinstance(value, dict)
    )
    reduced = [] if sound else ["this etcd may lose writes in a crash: it was neither killed nor restarted"]
    reduced += [f"the history has a gap, so owners and single events were not asked for: {chronicle.gap}"] * bool(
        chronicle.gap
    )
    told = "; ".join(reduced)
    return Verdict(
        seed, tuple(checks), injector.done, load.seen, converged, told, phases, injector.hit, injector.missed
    )


def kept_by_all(replicas: Mapping[str, int], servers: int) -> Check:
    """Each stream there is, and each that the services use, is kept by every server, so that any one may be lost."""
    names = {stream.name for stream in used_by(Service.GATEWAY)} | replicas.keys()
    broken = [f"{name} by {replicas.get(name, 0)}" for name in sorted(names) if replicas.get(name) != servers]
    return Check("nats", f"{servers} servers keep every stream", len(replicas), tuple(broken), Harm.LOST)


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


async def gather(mesh: LocalMesh, chronicle: Chronicle, purged_at: int = 0) -> Evidence:
    """Everything as of one revision: hosts come and go, and archivers work, also when all is at rest. Events of what is older
    than `purged_at` are not waited for."""
    newest = await chronicle.catch_up(CONVERGE_SECONDS)
    present = await read_present(mesh.etcd_endpoint, newest)
    changed = [change for change in chronicle.changes if change.revision <= newest]
    latest = {kind: change.revision for change in changed if (kind := kind_at(change.key))}
    wanted = {kind: revision for kind, revision in latest.items() if revision > purged_at}
    events, machines = await asyncio.gather(read_events(mesh, wanted_of=wanted), mesh.witness())
    gone = sorted({change.key for change in changed if change.key.startswith(_RESERVATIONS)} - present.keys())
    archived = [name for key in gone if await _archived(mesh, name := key.removeprefix(_RESERVATIONS))]
    return Evidence(
        present=present,
        history=tuple(changed),
        events=tuple(one for one in events if one.sequence <= newest),
        machines=tuple(machines),
        archived=tuple(archived),
    )


async def _archived(mesh: LocalMesh, name: str) -> bool:
    """Whether a reservation that has left etcd is told from the archive. Raises `TimeoutError` where nobody says so."""
    headers = {"Authorization": f"Bearer {mesh.token('admin')}"}
    async with (
        asyncio.timeout(_ARCHIVE_SECONDS),
        httpx.AsyncClient(base_url=mesh.gateway_url(1), timeout=10, trust_env=False, headers=headers) as http,
    ):
        while True:
            answer = await http.get(f"/api/v1/reservations/{name}")
            if answer.status_code in (httpx.codes.OK, httpx.codes.NOT_FOUND):
                return answer.status_code == httpx.codes.OK
            await asyncio.sleep(0.2)
