"""A gateway on twins: store, objects, event log and dead letters in memory, a clock that stands still, tokens of every
role in two tenants."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from lablet_common import archive
from lablet_common.clock import ManualClock
from lablet_common.objects import MemoryObjectStore, digest_of, put_content
from lablet_common.requests import Inbox, decide_in, refuse_in
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.definition import (
    Definition,
    DefinitionPhase,
    DefinitionSpec,
    DefinitionStatus,
    Requirements,
    TopologyRef,
)
from lablet_common.resources.instance import Instance, InstancePhase, InstanceSpec, InstanceStatus, instance_id
from lablet_common.resources.kinds import kind_of
from lablet_common.resources.model import Metadata, Resource
from lablet_common.resources.request import Problem
from lablet_common.resources.reservation import (
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
    RosterEntry,
    SeatPlacement,
    Slot,
)
from lablet_common.resources.series import (
    Occurrence,
    OccurrenceState,
    Series,
    SeriesPhase,
    SeriesSpec,
    SeriesStatus,
)
from lablet_common.resources.worker import (
    Capacity,
    PoolSpec,
    PoolStatus,
    SimpleStatus,
    TemplateSpec,
    Worker,
    WorkerPhase,
    WorkerPool,
    WorkerSpec,
    WorkerStatus,
    WorkerTemplate,
)
from lablet_common.store import MemoryStore, Transaction
from lablet_common.store.changes import create_in
from lablet_common.store.repository import Repository
from lablet_common.telemetry.health import Health
from lablet_gateway.app import caches_of, create_app
from lablet_gateway.deadletters import MemoryDeadLetters
from lablet_gateway.eventlog import MemoryEventLog
from lablet_gateway.identity.token_file import TokenFile
from lablet_gateway.parts import Parts
from lablet_gateway.settings import GatewaySettings
from lablet_gateway.streams import Hub

NOW = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)
ROLES = ("admin", "operator", "instructor", "learner", "machine", "host")
TENANTS = ("default", "acme")
TOPOLOGY = b"lab:\n  title: OSPF basics\nnodes: []\nlinks: []\n"


def token_of(name: str) -> str:
    return f"secret-of-{name}"


def _tokens() -> list[dict[str, str]]:
    people = [(f"{role}@{tenant}", role, tenant) for role in ROLES for tenant in TENANTS]
    people += [("ann", "learner", "default"), ("bob", "learner", "default"), ("ina", "instructor", "default")]
    return [
        {"name": name, "role": role, "tenant": tenant, "sha256": hashlib.sha256(token_of(name).encode()).hexdigest()}
        for name, role, tenant in people
    ]


@dataclass
class World:
    """The gateway under test and what lies in its store."""

    app: FastAPI
    parts: Parts
    store: MemoryStore
    objects: MemoryObjectStore
    clock: ManualClock
    log: MemoryEventLog
    dead: MemoryDeadLetters
    now: datetime = NOW
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    topology_digest: str = ""

    def client(self, name: str | None = "admin@default") -> httpx.AsyncClient:
        """A client with the token of `name`; None: without one."""
        headers = {"Authorization": f"Bearer {token_of(name)}"} if name else {}
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://gateway",
            headers=headers,
        )
        self.clients.append(client)
        return client

    async def add(self, *resources: Resource[Any, Any]) -> None:
        for resource in resources:
            await Repository(self.store, kind_of(resource)).create(resource)

    # -- resources ---------------------------------------------------------------------------------------------------

    def metadata(self, name: str, tenant: str = "default", **more: Any) -> Metadata:
        return Metadata(id=name, uid=f"uid-{name}", tenant=tenant, created_at=NOW, **more)

    def definition(
        self, name: str = "ospf-basics", version: str = "1.0.0", tenant: str = "default", phase: str = "Published"
    ) -> Definition:
        spec = DefinitionSpec(
            name=name,
            version=version,
            topology=TopologyRef(digest=self.topology_digest, bytes=len(TOPOLOGY)),
            requirements=Requirements(cpu_cores=2, memory_gb=4, storage_gb=8, node_count=5),
        )
        return Definition(
            metadata=self.metadata(f"{name}@{version}", tenant),
            spec=spec,
            status=DefinitionStatus(phase=DefinitionPhase(phase)),
        )

    def template(self, name: str = "simulated") -> WorkerTemplate:
        spec = TemplateSpec(
            instance_type="sim.large",
            capacity=Capacity(cpu_cores=16, memory_gb=64, storage_gb=200),
            license="PERSONAL",
            max_nodes=20,
        )
        return WorkerTemplate(metadata=self.metadata(name), spec=spec, status=SimpleStatus())

    def pool(self, name: str = "default", **spec: Any) -> WorkerPool:
        return WorkerPool(
            metadata=self.metadata(name), spec=PoolSpec(template="simulated", max=2, **spec), status=PoolStatus()
        )

    def worker(self, name: str = "default-001", **status: Any) -> Worker:
        spec = WorkerSpec(
            pool="default",
            template="simulated",
            capacity=Capacity(cpu_cores=16, memory_gb=64, storage_gb=200),
            max_nodes=20,
            license="PERSONAL",
            boot_minutes=8,
        )
        return Worker(metadata=self.metadata(name), spec=spec, status=WorkerStatus(phase=WorkerPhase.READY, **status))

    def reservation(
        self,
        name: str = "rsv-a",
        *,
        tenant: str = "default",
        owner: str = "ina",
        phase: str = "Scheduled",
        roster: dict[int, str] | None = None,
        start: datetime = NOW + timedelta(hours=1),
        end: datetime = NOW + timedelta(hours=3),
        seats: int = 2,
        **metadata: Any,
    ) -> Reservation:
        spec = ReservationSpec(
            definition="ospf-basics@1.0.0",
            seats=seats,
            start=start,
            end=end,
            duration_minutes=int((end - start) / timedelta(minutes=1)),
            roster=tuple(RosterEntry(seat=seat, user=user) for seat, user in (roster or {}).items()),
        )
        placement = tuple(
            SeatPlacement(
                seat=seat, worker="default-001", ports={"r1_serial": 2000 + seat}, instance=instance_id(name, seat)
            )
            for seat in range(1, seats + 1)
        )
        placed = phase in ("Held", "Scheduled", "Active", "Completed")
        status = ReservationStatus(
            phase=ReservationPhase(phase),
            reason="Placed",
            pool="default",
            slot=Slot(start=start, end=end),
            placement=placement if placed else (),
        )
        return Reservation(metadata=self.metadata(name, tenant, owner=owner, **metadata), spec=spec, status=status)

    def series(
        self, name: str = "ser-a", *, owner: str = "ina", tenant: str = "default", phase: str = "Placed"
    ) -> Series:
        """Two Mondays at ten in Berlin."""
        first, length = NOW + timedelta(hours=1), timedelta(hours=2)
        starts = (first, first + timedelta(weeks=1))
        dates = tuple(
            Occurrence(
                date=f"{start:%Y-%m-%d}", start=start, end=start + length, state=OccurrenceState.PLACED, pool="default"
            )
            for start in starts
        )
        return Series(
            metadata=self.metadata(name, tenant, owner=owner),
            spec=SeriesSpec(
                rule="FREQ=WEEKLY;COUNT=2",
                timezone="Europe/Berlin",
                first=first,
                template=ReservationSpec(definition="ospf-basics@1.0.0", seats=2, duration_minutes=120),
            ),
            status=SeriesStatus(phase=SeriesPhase(phase), pool="default", occurrences=dates),
        )

    def instance(self, reservation: Reservation, seat: int = 1, phase: str = "Running") -> Instance:
        slot = reservation.slot
        assert slot is not None
        spec = InstanceSpec(
            reservation=reservation.id,
            seat=seat,
            definition=reservation.spec.definition,
            pool="default",
            worker="default-001",
            ports={"r1_serial": 2000 + seat},
            start=slot.start,
            end=slot.end,
        )
        return Instance(
            metadata=self.metadata(instance_id(reservation.id, seat), reservation.tenant),
            spec=spec,
            status=InstanceStatus(phase=InstancePhase(phase), host="127.9.0.1"),
        )

    async def artifact(self, data: bytes, subject: str, tenant: str = "default", role: str = "collected") -> Artifact:
        digest = await put_content(self.objects, tenant, data, "text/plain")
        return Artifact(
            metadata=self.metadata(digest, tenant),
            spec=ArtifactSpec(digest=digest, bytes=len(data), media_type="text/plain"),
            status=ArtifactStatus(
                phase=ArtifactPhase.STORED,
                references=(Reference(subject=subject, role=role, name="r1.cfg", attempt=1),),
            ),
        )

    async def archive(self, *resources: Resource[Any, Any]) -> None:
        """What has left the store, as the artifact-service leaves it."""
        for at, one in enumerate(resources, 1):
            kept = one.at_revision(one.revision or at)
            kind, data = kind_of(kept), archive.pack([kept])
            key = archive.file_key(kind, [kept])
            await self.objects.put(key, data)
            entry = archive.IndexEntry(file=key, digest=digest_of(data), revision=kept.revision)
            await self.objects.put(archive.index_key(kind, kept, self.clock.now()), entry.to_json())

    # -- owners ------------------------------------------------------------------------------------------------------

    async def decide(
        self,
        service: str = "scheduler",
        shard: str = "default",
        *,
        make: Callable[[Any], Resource[Any, Any] | None] | None = None,
        problem: Problem | None = None,
    ) -> None:
        """Decides the oldest request of an inbox as its owner would: makes what `make` gives, or refuses."""
        (undecided, *_) = await Inbox(self.store, service, shard).pending()
        txn = Transaction()
        resource = make(undecided.request) if make else None
        if resource is not None:
            create_in(txn, resource)
        if problem is None:
            decide_in(txn, undecided, at=self.clock.now(), by="/lablet/test", reason="Decided", resource=resource)
        else:
            refuse_in(txn, undecided, at=self.clock.now(), by="/lablet/test", problem=problem, resource=resource)
        await txn.commit(self.store)

    async def inbox(self, service: str = "scheduler", shard: str = "default") -> list[Any]:
        return [undecided.request for undecided in await Inbox(self.store, service, shard).pending()]

    async def caught_up(self) -> None:
        """Waits until the gateway's caches have everything that is stored."""
        await self.parts.caches.reached((await self.store.status()).revision)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps(_tokens()))
    store, log, objects, dead = MemoryStore(), MemoryEventLog(), MemoryObjectStore(), MemoryDeadLetters()
    clock = ManualClock(NOW)
    settings = GatewaySettings(
        gateway_rate_limit=0,
        gateway_max_body_bytes=4096,
        gateway_max_upload_bytes=8192,
        gateway_stream_buffer=10,
        gateway_heartbeat_seconds=5,
    )
    health = Health()
    health.started = True
    parts = Parts(
        settings=settings,
        store=store,
        objects=objects,
        clock=clock,
        caches=caches_of(store),
        verifier=TokenFile(tokens),
        events=log,
        hub=Hub(log, settings.gateway_stream_buffer),
        dead_letters=dead,
        health=health,
    )
    world = World(create_app(parts), parts, store, objects, clock, log, dead)
    world.topology_digest = await put_content(objects, "default", TOPOLOGY, "application/yaml")
    await world.add(world.template(), world.pool(), world.worker(), world.definition())
    async with parts.caches:
        await parts.caches.wait_synced()
        hub = asyncio.create_task(parts.hub.run())
        try:
            yield world
        finally:
            hub.cancel()
            await asyncio.wait({hub})
            for client in world.clients:
                await client.aclose()


@pytest.fixture
def booking() -> Callable[..., dict[str, Any]]:
    """The body of a reservation that is fine."""

    def body(**changes: Any) -> dict[str, Any]:
        return {
            "definition": "ospf-basics",
            "seats": 2,
            "start": "2027-03-01T09:00:00Z",
            "end": "2027-03-01T11:00:00Z",
            **changes,
        }

    return body


class Listening:
    """An open event stream, read frame by frame."""

    def __init__(self, frames: asyncio.Queue[bytes], status: asyncio.Future[int]) -> None:
        self._frames = frames
        self._text = b""
        self.status = status
        self.place = ""
        """The id that a comment named last."""
        self.ended = asyncio.Event()
        """By the server, in good order."""

    async def next(self, timeout: float = 5.0) -> dict[str, str]:
        """The next frame that is no comment, as its fields."""
        async with asyncio.timeout(timeout):
            while True:
                while b"\n\n" not in self._text:
                    self._text += await self._frames.get()
                frame, _, self._text = self._text.partition(b"\n\n")
                if not frame.startswith(b":"):
                    return dict(line.split(": ", 1) for line in frame.decode().split("\n"))

    async def comment(self, timeout: float = 5.0) -> bytes:
        async with asyncio.timeout(timeout):
            while True:
                chunk = await self._frames.get()
                if chunk.startswith(b":"):
                    _, _, named = chunk.partition(b"\nid: ")
                    self.place = named.decode().strip() or self.place
                    return chunk


@pytest.fixture
def listen(world: World) -> Callable[..., Any]:
    """`async with listen("kind=reservation", token="ann", last="…") as stream`: drives the application directly, since
    httpx's transport reads to the end of a body before it hands anything over."""

    @asynccontextmanager
    async def opened(
        query: str = "", token: str = "admin@default", last: str | None = None, bearer: str = ""
    ) -> AsyncIterator[Listening]:
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        gone = asyncio.Event()
        status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        headers = [(b"authorization", f"Bearer {bearer or token_of(token)}".encode())]
        if last:
            headers.append((b"last-event-id", last.encode()))

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status.set_result(message["status"])
            elif message.get("body"):
                frames.put_nowait(message["body"])
            elif not message.get("more_body"):
                stream.ended.set()

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": "/api/v1/events/stream", "raw_path": b"/api/v1/events/stream",
            "query_string": query.encode(), "headers": headers, "client": ("127.0.0.1", 1), "server": ("gateway", 80),
            "root_path": "",
        }  # fmt: skip
        stream = Listening(frames, status)
        serving = asyncio.create_task(world.app(scope, receive, send))
        try:
            if await status == 200:
                await stream.comment()
            yield stream
        finally:
            gone.set()
            serving.cancel()
            await asyncio.wait({serving})

    return opened
