"""The whole mesh on this machine, as a context manager: real etcd, NATS and S3, a simulated cloud, the four services.

Everything listens on 127.0.0.1 (simulated machines on their own 127.x.y.z), everything is kept in one data folder and
taken up again at the next start, nothing outlives the process that entered the context. Several meshes can run side by
side, each on its own folder.

What it does not do: no TLS and no etcd users; other users of this machine can reach the ports (not the secrets).
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from lablet_common.resources.kinds import Service
from lablet_local import agents as agents_module
from lablet_local.binaries import Binary, find_etcd, find_nats, find_rclone
from lablet_local.connection import point_away, point_here, write_connection
from lablet_local.folder import DataFolder, Lock, read_json, write_private
from lablet_local.keyring import KeyRing
from lablet_local.members import Members, choose_count
from lablet_local.messaging import write_nats_config
from lablet_local.overview import addresses_of, health_url, overview
from lablet_local.pace import DEFAULT_LEAD_MINUTES, Pace, choose_pace
from lablet_local.ports import Claim, PortBlock, claim_ports
from lablet_local.probe import new_client
from lablet_local.servers import BUCKET, Site, cloud_process, etcd_process, nats_process, s3_process, spans_process
from lablet_local.services import Secrets, process_named, replica_counts, service_processes
from lablet_local.supervisor import ProcessState, Supervisor

READY_SECONDS = 60.0
_TEMPLATES = "worker-templates.yaml"


class TemplatesMissing(Exception):
    """The worker template file is not where it was looked for."""


def worker_templates(environment: Mapping[str, str] | None = None) -> Path:
    """`WORKER_TEMPLATES_CONFIG_PATH`, else `config/worker-templates.yaml` of this checkout, else the copy in the wheel.

    Raises `TemplatesMissing`.
    """
    env = os.environ if environment is None else environment
    named = env.get("WORKER_TEMPLATES_CONFIG_PATH")
    here = Path(__file__).resolve()
    checkout, packaged = here.parents[3] / "config" / _TEMPLATES, here.with_name(_TEMPLATES)
    path = Path(named) if named else next((one for one in (checkout, packaged) if one.is_file()), checkout)
    if not path.is_file():
        raise TemplatesMissing(f"no worker templates at {path}: set WORKER_TEMPLATES_CONFIG_PATH")
    return path.resolve()


class LocalMesh:
    """One mesh. `async with LocalMesh(folder) as mesh:` starts it, waits until it is ready, and ends it in order.

    `speed` (lab seconds per real second) and `port_base` are taken from the folder's last start when not given.
    `replicas` names services (`scheduler`, `gateway`, `workers`, `artifacts`); `environment` is added to every service's,
    `environments` to those of the services, or single processes, that it names. `lead_minutes` is the lab time before a
    slot at which instances are made; `start` sets the lab clock of a fresh folder; `spans` keeps recent spans for `lablet
    trace`; `agents` join the pool `agents` from this machine; `ha`: three of etcd and three of NATS (a folder stays with
    what it was begun with), which call each other `called_at` (see `members`); `etcd_quota`: bytes that etcd's file may
    grow to, where that is not etcd's own limit; `machines_front`: the port at which simulated machines' APIs are called,
    where something stands before them; `agent_options`: of single agents (`agent-1`), instead of the mesh's. Raises
    `AlreadyRunning`, `PortsBusy`, `TooFast`, `BinaryMissing`, `NotReady`, `OtherShape`, `TemplatesMissing`.
    """

    def __init__(
        self,
        data: Path,
        *,
        speed: float | None = None,
        replicas: Mapping[str, int] | None = None,
        port_base: int | None = None,
        lead_minutes: float = DEFAULT_LEAD_MINUTES,
        lease_ttl: float | None = None,
        start: datetime | None = None,
        environment: Mapping[str, str] | None = None,
        environments: Mapping[str, Mapping[str, str]] | None = None,
        scenario: Path | None = None,
        announce: Callable[[str], None] = lambda _: None,
        pointer: bool = False,
        spans: bool = False,
        ready_seconds: float = READY_SECONDS,
        agents: int = 0,
        ha: bool = False,
        called_at: Mapping[str, str] | None = None,
        etcd_quota: int | None = None,
        machines_front: int | None = None,
        agent_options: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.folder = DataFolder(data.expanduser().resolve())
        self.keys = KeyRing(self.folder)
        self._choices = read_json(self.folder.choices)
        self.pace: Pace = choose_pace(speed or float(self._choices.get("speed", 1.0)), lead_minutes, lease_ttl)
        self._counts = replica_counts(replicas or {})
        self._agents = agents_module.workers(agents)
        self._member_count = choose_count(self.folder, asked=ha, chosen=self._choices)
        self._called_at = dict(called_at or {})
        self._etcd_quota = etcd_quota
        self._machines_front = machines_front
        self._agent_options = dict(agent_options or {})
        self._port_base = port_base
        self._clock_start = start
        self._environment = dict(environment or {})
        self._environments = dict(environments or {})
        self._scenario = scenario
        self._announce = announce
        self._pointer = pointer
        self._spans = spans
        self._ready_seconds = ready_seconds
        self._supervisor = Supervisor(announce, self._write_state)
        self._phase = "starting"
        self._began = time.time()
        self._lock: Lock | None = None
        self._claim: Claim | None = None
        self._client: httpx.AsyncClient | None = None
        self.etcd_binary: Binary | None = None
        self.seconds_to_ready: float | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts everything and returns when all of it is ready; on failure or cancellation nothing is left running."""
        began = time.monotonic()
        self._began = time.time()
        self._lock = self.folder.lock()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - began
        self._phase = "ready"
        self._write_state()
        if self._pointer:
            point_here(self.folder)

    async def stop(self, within: float | None = None) -> None:
        """Ends everything in reverse order. May be called again. `within`: seconds until a process that has not ended is
        killed, where nobody needs what it would still do."""
        if self._lock is None:
            return
        self._phase = "stopping"
        if self._pointer:
            point_away(self.folder)
        await self._supervisor.stop_all(within)
        agents_module.remove_outside(self.folder)
        self._phase = "stopped"
        self._write_state()
        if self._client is not None:
            await self._client.aclose()
        if self._claim is not None:
            self._claim.release()
        self._lock.release()
        self._lock = None

    @property
    def ports(self) -> PortBlock:
        assert self._claim is not None, "the mesh has not been started"
        return self._claim.block

    @property
    def url(self) -> str:
        """Of the first gateway."""
        return f"http://127.0.0.1:{self.ports.gateway()}"

    def gateway_url(self, replica: int = 1) -> str:
        return f"http://127.0.0.1:{self.ports.gateway(replica)}"

    def health_url(self, process: str) -> str:
        """Internal address of a service's process, such as `scheduler-1` (add `/readyz`, `/livez`, `/metrics`)."""
        return health_url(self.ports, process_named(process))

    @property
    def members(self) -> Members:
        """Of etcd and of NATS."""
        return Members(self.ports, self._member_count, self._called_at)

    @property
    def etcd_endpoint(self) -> str:
        """host:port of the first."""
        return self.members.etcd_endpoints[0]

    @property
    def nats_url(self) -> str:
        """Of the first."""
        return self.members.nats_urls[0]

    async def etcd_leader(self) -> str | None:
        """The process that leads etcd; None while a majority knows none."""
        return await self.members.etcd_leader(self._http)

    async def stream_leader(self, stream: str) -> str | None:
        """The process that leads a stream of NATS; None while none does, or where there is one server alone."""
        return await self.members.stream_leader(self._http, stream)

    async def stream_replicas(self) -> dict[str, int]:
        """Stream of NATS → how many servers keep it."""
        return await self.members.stream_replicas(self._http)

    def nats_login(self, user: str) -> tuple[str, str]:
        """User and password; users are the four services' names, `observer` (reads all) and `outside` (see `messaging`)."""
        return user, self.keys.nats_password(user).read_text(encoding="utf-8").strip()

    @property
    def s3_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.s3}"

    @property
    def s3_keys(self) -> tuple[str, str]:
        """Access key and secret key."""
        return self.keys.read(self.keys.s3_access_key.name), self.keys.read(self.keys.s3_secret_key.name)

    @property
    def s3_bucket(self) -> str:
        return BUCKET

    @property
    def cloud_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.cloud}"

    @property
    def cloud_token(self) -> str:
        return self.keys.read(self.keys.cloud_token.name)

    @property
    def connection(self) -> Path:
        """The connection file."""
        return self.folder.connection

    def token(self, role: str = "admin") -> str:
        """The API token of a role: admin, operator, instructor, learner."""
        return self.keys.api_tokens()[role]

    @property
    def processes(self) -> list[ProcessState]:
        return self._supervisor.states

    def process(self, name: str) -> ProcessState:
        return self._supervisor.state(process_named(name))

    def kill(self, name: str, number: int = 9) -> int:
        """Signals a process (9: it dies and is started again); returns its pid."""
        return self._supervisor.kill(process_named(name), number)

    async def stop_process(self, name: str) -> None:
        """Ends one process and keeps it down until `resume_process`."""
        await self._supervisor.stop(process_named(name))

    async def resume_process(self, name: str) -> None:
        await self._supervisor.resume(process_named(name))

    async def restart(self, name: str) -> None:
        await self._supervisor.restart(process_named(name))

    async def wait_ready(self, *names: str, timeout: float = 30.0) -> None:
        await self._supervisor.wait_ready(*map(process_named, names), timeout=timeout)

    async def wait_ended(self, name: str, pid: int, timeout: float = 10.0) -> None:
        """Waits until the process no longer has this pid (as `kill` returned it)."""
        await self._supervisor.wait_ended(process_named(name), pid, timeout)

    async def machines(self) -> list[dict[str, Any]]:
        """The simulated cloud's machines, terminated ones too."""
        answer = await self._ask_cloud("GET", "/machines?terminated=true")
        return list(answer["items"])

    async def kill_machine(self, name: str) -> int:
        """Kills the simulator of a machine (by name or id): for the mesh, a lost worker. Returns the pid it had."""
        return int((await self._ask_cloud("POST", f"/machines/{name}/kill"))["pid"])

    def agent_folders(self) -> dict[str, Path]:
        """Where each agent keeps its labs, by its worker's name."""
        return {name: agents_module.state_folder(self.folder, name) for name in self._agents}

    async def witness(self) -> list[dict[str, Any]]:
        """Every machine that ever was, with the facts of its simulator's log under `facts`."""
        return list((await self._ask_cloud("GET", "/witness"))["machines"])

    async def set_scenario(self, scenario: Mapping[str, Any]) -> None:
        """Puts faults of the cloud in force (see `cloud.scenario`)."""
        await self._ask_cloud("PUT", "/scenario", dict(scenario))

    @property
    def _http(self) -> httpx.AsyncClient:
        assert self._client is not None, "the mesh has not been started"
        return self._client

    async def _ask_cloud(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.cloud_token}"}
        answer = await self._http.request(method, f"{self.cloud_url}{path}", headers=headers, json=body, timeout=10)
        answer.raise_for_status()
        return dict(answer.json()) if answer.content else {}

    async def _start(self) -> None:
        templates = worker_templates({**os.environ, **self._environment})
        self.folder.create()
        self._claim = await asyncio.to_thread(
            claim_ports,
            self._counts,
            members=self._member_count,
            base=self._port_base,
            preferred=self._choices.get("portBase"),
        )
        choices = {"portBase": self.ports.base, "speed": self.pace.speed, "members": self._member_count}
        write_private(self.folder.choices, json.dumps(choices))
        self._client = new_client()
        site = Site(
            self.folder, self.ports, self.keys, self._client, self.members, self._etcd_quota, self._machines_front
        )
        etcd, nats, rclone = await asyncio.gather(*map(asyncio.to_thread, (find_etcd, find_nats, find_rclone)))
        self.etcd_binary = etcd
        self._announce(f"etcd {etcd.version} ({etcd.path}): {etcd.remark}")
        tokens = self.keys.api_tokens()
        hosts = {name: agents_module.token(self.keys, name) for name in self._agents}
        secrets = Secrets(self.keys.write_token_hashes(tokens, hosts=hosts), templates)
        write_connection(self.folder, self.url, tokens)
        users = agents_module.nats_users(self.keys, self._agents)
        numbers = self.members.numbers
        configs = {one: write_nats_config(self.folder, self.members, self.keys, users, one) for one in numbers}
        agents_module.open_folders(self.folder, self._agents)
        servers = [
            *(etcd_process(site, etcd, number) for number in numbers),
            *(nats_process(site, nats, config, number) for number, config in configs.items()),
            s3_process(site, rclone),
            cloud_process(site, self.pace.speed, templates, self._scenario),
        ]
        if self._spans:
            servers.append(spans_process(site))
        self._supervisor.start(servers)
        await self._supervisor.wait_ready(*self.members.names("etcd"), timeout=self._ready_seconds)
        await self._set_clock()
        self._supervisor.start(service_processes(site, self.pace, self._counts, secrets, self._environment_of))
        replicas = self._counts[Service.WORKERS]
        self._supervisor.start(
            agents_module.agent_processes(site, self._agents, tokens["operator"], replicas, self._agent_options)
        )
        await self._supervisor.wait_ready(timeout=self._ready_seconds)

    async def _set_clock(self) -> None:
        from lablet_common.clock import set_clock
        from lablet_common.store import EtcdStore

        store = EtcdStore(list(self.members.etcd_endpoints))
        try:
            await set_clock(store, speed=self.pace.speed, start=self._clock_start)
        finally:
            await store.close()

    def _environment_of(self, service: str, process: str) -> dict[str, str]:
        traced = f"http://127.0.0.1:{self.ports.spans}"
        spans = {"OTEL_EXPORTER_OTLP_ENDPOINT": traced, "TRACE_STORE_URL": traced} if self._spans else {}
        named = self._environments
        return {**spans, **self._environment, **named.get(service, {}), **named.get(process, {})}

    def addresses(self) -> dict[str, str]:
        """Process → the address at which it answers."""
        return addresses_of(self.ports, self.processes)

    def _write_state(self) -> None:
        if self._claim is None:
            return
        body = {
            "pid": os.getpid(),
            "phase": self._phase,
            "startedAt": self._began,
            "secondsToReady": self.seconds_to_ready,
            "url": self.url,
            "etcd": str(self.etcd_binary.path) if self.etcd_binary else None,
            **overview(self.ports, self.pace, self.processes),
        }
        write_private(self.folder.state, json.dumps(body, indent=1))
