"""One pool with its controller on twins of etcd, S3, cloud and runtime and on a manual clock.

The scheduler and the artifact-service are played by the test: it writes reservations, and a clerk renders and stores at once.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common.clock import ManualClock
from lablet_common.intents import INTENTS
from lablet_common.objects import MemoryObjectStore, ObjectMissing, digest_of, put_content
from lablet_common.ownership import Fence
from lablet_common.requests import accept, build_request, request_key
from lablet_common.requests import digest_of as body_digest
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    POOL,
    REQUEST,
    RESERVATION,
    TEMPLATE,
    WORKER,
    Service,
    gate_key,
    ownership_key,
    worker_lease_key,
)
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import Reservation, SeatPlacement, Slot
from lablet_common.resources.worker import PoolSpec, PoolStatus, SimpleStatus, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_common.secrets import SecretBox
from lablet_common.store import Conflict, MemoryStore
from lablet_common.store.cache import Cache, Caches
from lablet_common.store.repository import Repository
from lablet_workers.controller import CACHED, PoolController, add_indexes
from lablet_workers.estate import Estate
from lablet_workers.intake import CENTRAL, Desk
from lablet_workers.providers.memory import MemoryProvider
from lablet_workers.runtimes.memory import MemoryRuntime, MemoryRuntimes
from lablet_workers.settings import WorkerControllerSettings

MORNING = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
SOURCE = "/lablet/worker-controller"


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def moves(worker: Any) -> list[str]:
    """The phases that it has come to."""
    return [move.to for move in worker.status.history]


@dataclass
class Fleet:
    """The controller, its twins, and the words of a test. Moments are minutes after 07:00."""

    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=lambda: ManualClock(MORNING))
    objects: MemoryObjectStore = field(default_factory=MemoryObjectStore)
    provider: MemoryProvider = field(default_factory=MemoryProvider)
    runtimes: MemoryRuntimes = field(default_factory=MemoryRuntimes)
    settings: dict[str, Any] = field(default_factory=lambda: {"controller_probe_seconds": 60.0})
    controller: PoolController | None = None
    clerk_works: bool = True
    """Files are rendered and stored at once."""
    closed: dict[str, str] = field(default_factory=dict)
    """Ports that do not answer."""
    _stack: contextlib.AsyncExitStack | None = None
    _clerk: contextlib.AsyncExitStack | None = None
    _task: asyncio.Task[None] | None = None
    _wishes: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    # -- what is there ---------------------------------------------------------------------------------------------

    def all(self, kind: Any) -> Repository[Any]:
        return Repository(self.store, kind)

    async def seed(self, **pool: Any) -> None:
        now = self.clock.now()
        template = {
            "instance_type": "sim",
            "capacity": {"cpu_cores": 32, "memory_gb": 64, "storage_gb": 500},
            "license": pool.pop("license", "ENTERPRISE"),
            "max_nodes": 20,
            "boot_minutes": 8,
        }
        spec = TemplateSpec.model_validate(template)
        await self.all(TEMPLATE).create(
            WorkerTemplate(metadata=Metadata(id="sim", uid="t", created_at=now), spec=spec, status=SimpleStatus())
        )
        given = {
            "template": "sim",
            "max": 2,
            "preparation_minutes": 5,
            "boot_reserve_minutes": 0,
            "turnaround_minutes": 5,
        } | pool
        await self.all(POOL).create(
            WorkerPool(
                metadata=Metadata(id="default", uid="p", created_at=now),
                spec=PoolSpec.model_validate({"scale_down_grace_minutes": 30} | given),
                status=PoolStatus(),
            )
        )

    async def define(self, **spec: Any) -> None:
        """The definition `lab@1.0.0`."""
        body = {
            "name": "lab",
            "version": "1.0.0",
            "topology": {"digest": "0" * 64, "bytes": 1},
            "requirements": {"cpuCores": 1, "memoryGb": 1, "nodeCount": 1},
        }
        await self.all(DEFINITION).create(
            Definition.model_validate(
                {
                    "metadata": {"id": "lab@1.0.0", "uid": "d", "createdAt": self.clock.now()},
                    "spec": body | spec,
                    "status": {"phase": "Published"},
                }
            )
        )

    async def book(self, name: str, start: float, end: float, *, workers: tuple[str, ...] = ("default-001",)) -> Any:
        """A scheduled reservation with a seat on each of the workers named."""
        slot = Slot(start=MORNING + minutes(start), end=MORNING + minutes(end))
        seats = tuple(
            SeatPlacement(seat=n, worker=worker, ports={"r1": 2000 + n}, instance=f"ins-{name}-{n}")
            for n, worker in enumerate(workers, 1)
        )
        reservation = Reservation.model_validate(
            {
                "metadata": {"id": f"rsv-{name}", "uid": name, "owner": "ada", "createdAt": self.clock.now()},
                "spec": {
                    "definition": "lab@1.0.0",
                    "seats": len(seats),
                    "start": slot.start,
                    "end": slot.end,
                    "durationMinutes": round(end - start),
                },
                "status": {
                    "phase": "Scheduled",
                    "pool": "default",
                    "slot": slot,
                    "placement": [seat.model_dump() for seat in seats],
                },
            }
        )
        made = await self.all(RESERVATION).create(reservation)
        await self.settle()
        return made

    async def rebook(self, name: str, change: Callable[[Any], Any]) -> None:
        """A commit of the scheduler's."""
        present = await self.all(RESERVATION).require(f"rsv-{name}")
        await self.all(RESERVATION).update(change(present))
        await self.settle()

    async def cancel(self, name: str) -> None:
        await self.rebook(name, lambda r: r.moved("Cancelled", at=self.clock.now(), by="/lablet/scheduler", reason="x"))

    async def move_seat(self, name: str, worker: str, attempt: int = 2) -> None:
        def moved(reservation: Any) -> Any:
            seat = reservation.status.placement[0].model_copy(update={"worker": worker, "attempt": attempt})
            return reservation.observed("moved", placement=(seat, *reservation.status.placement[1:]))

        await self.rebook(name, moved)

    async def set_end(self, name: str, end: float) -> None:
        def changed(reservation: Any) -> Any:
            return reservation.observed(slot=Slot(start=reservation.slot.start, end=MORNING + minutes(end)))

        await self.rebook(name, changed)

    async def ask(
        self, kind: str, verb: str, target: str, data: dict[str, Any] | None = None, shard: str = "default"
    ) -> Any:
        """Puts a request into the inbox and has it decided; the request as it then stands."""
        word = verb if kind == "assessment" else f"{verb}.requested"
        intent = INTENTS[f"io.lablet.{kind}.{word}.v1"]
        body = data or {}
        request = build_request(
            intent,
            target,
            intent.body.model_validate(body),
            key=request_key("default", "op", f"{kind}/{verb}", f"{target}-{self.store.revision}"),
            tenant="default",
            principal="op",
            shard=shard,
            digest=body_digest(body),
            at=self.clock.now(),
        )
        await accept(self.store, request)
        await self.decide(shard)
        return await self.all(REQUEST).get(request.id)

    async def decide(self, shard: str = CENTRAL) -> None:
        from lablet_common.intake import Intake

        desk = Desk(self.store, self.clock, SOURCE)
        fence = await self.fence(shard)
        intake = Intake(
            Service.WORKERS,
            shard,
            fence,
            desk.decide,
            store=self.store,
            clock=self.clock,
            source=SOURCE,
            resync_seconds=60,
        )
        task = asyncio.create_task(intake.run())
        await self.settle()
        await _end(task)
        await self.settle()

    # -- looks -----------------------------------------------------------------------------------------------------

    async def worker(self, number: int = 1) -> Any:
        return await self.all(WORKER).get(f"default-{number:03d}")

    async def instance(self, name: str = "a", seat: int = 1) -> Any:
        return await self.all(INSTANCE).get(f"ins-{name}-{seat}")

    async def phase(self, name: str = "a", seat: int = 1) -> str | None:
        found = await self.instance(name, seat)
        return None if found is None else str(found.phase)

    async def gate(self) -> int:
        """The gate's revision: it grows each time the gate moves."""
        found = await self.store.get(gate_key("default"))
        return 0 if found is None else found.mod_revision

    def runtime(self, machine: str = "m-1") -> MemoryRuntime:
        return self.runtimes.by_url[f"memory://{machine}"]

    @property
    def imports(self) -> list[str]:
        """Titles of all labs that were ever imported, on any machine."""
        return [t for runtime in self.runtimes.by_url.values() for what, t in runtime.history if what == "imported"]

    # -- time and life ---------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Lets everybody do what there is to do now."""
        quiet, before = 0, -1
        while quiet < 3:
            for _ in range(12):
                await asyncio.sleep(0)
            now = self.store.revision
            quiet, before = (quiet + 1, before) if now == before else (0, now)
        if self._task is not None and self._task.done():
            self._task.result()

    async def at(self, moment: float, step: float = 1) -> None:
        """Lets time pass until so many minutes after 07:00."""
        end = MORNING + minutes(moment)
        while self.clock.now() < end:
            await self.clock.advance(min(minutes(step), end - self.clock.now()))
            if step >= 1:
                await self.lapse()
            await self.settle()

    async def lapse(self) -> None:
        """As much time passes as a probe's lease lasts: those of workers that nobody got an answer of run out."""
        for worker in (await self.all(WORKER).list()).items:
            runtime = self.runtimes.by_url.get(worker.status.address or "")
            kept = await self.store.get(worker_lease_key(worker.id))
            if kept is not None and (self._task is None or runtime is None or not runtime.up):
                await self.store.lease_revoke(kept.lease)

    async def fence(self, shard: str = "default") -> Fence:
        """The shard's present ownership, made if need be."""
        key = ownership_key(Service.WORKERS, shard)
        found = await self.store.get(key)
        return Fence(key, found.create_revision if found else await self.store.put(key, b"test"))

    async def start(self) -> None:
        """A controller that has just taken the pool over."""
        stack = contextlib.AsyncExitStack()
        caches = Caches(self.store, list(CACHED))
        add_indexes(caches)
        await stack.enter_async_context(caches)
        await caches.wait_synced()
        await self.store.delete(ownership_key(Service.WORKERS, "default"))
        self.controller = PoolController(
            Estate(
                "default",
                await self.fence(),
                store=self.store,
                caches=caches,
                clock=self.clock,
                settings=WorkerControllerSettings(**({"resync_seconds": 3600.0} | self.settings)),
                providers=lambda _pool, _template, chosen=self.provider: chosen,
                runtimes=self.runtimes,
                objects=self.objects,
                box=SecretBox({"k1": b"0" * 32}),
                source=SOURCE,
            )
        )
        self._stack, self._task = stack, asyncio.create_task(self.controller.run())
        if self._clerk is None:
            await self._start_clerk()
        await self.settle()

    async def crash(self) -> None:
        """The controller is gone at whatever await it stands."""
        task, self._task = self._task, None
        if task is not None:
            await _end(task)
        if self._stack is not None:
            await self._stack.aclose()
            self._stack = None

    async def close(self) -> None:
        await self.crash()
        if self._clerk is not None:
            await self._clerk.aclose()

    async def _start_clerk(self) -> None:
        self._clerk = contextlib.AsyncExitStack()
        seen: Cache[Instance] = Cache(self.store, INSTANCE)
        seen.subscribe(lambda _old, new, _revision: self._wishes.put_nowait(new.id) if new is not None else None)
        for task in (asyncio.create_task(seen.run()), asyncio.create_task(self._clerk_serves())):
            self._clerk.push_async_callback(_end, task)

    async def _clerk_serves(self) -> None:
        while True:
            name = await self._wishes.get()
            instance = await self.all(INSTANCE).get(name)
            if not self.clerk_works or instance is None:
                continue
            if instance.phase == InstancePhase.PENDING:
                await self.file(instance, "rendered", "lab.yaml", f"lab of {name}".encode())
            elif instance.status.staged is not None:
                await self._take_over(instance)

    async def _take_over(self, instance: Any) -> None:
        staged = instance.status.staged
        try:
            manifest = json.loads(await self.objects.get(staged.manifest))
        except ObjectMissing:
            return
        for entry in manifest:
            await self.file(instance, staged.role, entry["name"], await self.objects.get(entry["key"]))
        await self.objects.delete(staged.manifest)

    async def file(self, instance: Any, role: Any, name: str, data: bytes) -> None:
        """An artifact of the instance, as the artifact-service writes it."""
        attempt = instance.status.attempt
        reference = Reference(subject=f"instance/{instance.id}", role=role, name=name, attempt=attempt)
        digest = await put_content(self.objects, "default", data, "text/plain")
        assert digest == digest_of(data)
        known = await self.all(ARTIFACT).get(digest)
        with contextlib.suppress(Conflict):
            if known is None:
                made = Artifact(
                    metadata=Metadata(id=digest, uid=digest, created_at=self.clock.now()),
                    spec=ArtifactSpec(digest=digest, bytes=len(data)),
                    status=ArtifactStatus(phase=ArtifactPhase.STORED, references=(reference,)),
                )
                await self.all(ARTIFACT).create(made)
            elif reference not in known.status.references:
                await self.all(ARTIFACT).update(known.observed(references=(*known.status.references, reference)))


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def fresh(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], Fleet]]:
    """Makes fleets without a controller and without a pool."""
    made: list[Fleet] = []

    def make() -> Fleet:
        fleet = Fleet()
        made.append(fleet)

        async def closed(host: str, ports: Any, timeout: float) -> dict[str, str]:
            return dict(fleet.closed)

        monkeypatch.setattr("lablet_workers.labs.closed_ports", closed)
        # how long planning takes on this machine must not decide what a test sees
        monkeypatch.setattr("lablet_workers.fleet._SLOW_SECONDS", math.inf)
        return fleet

    yield make
    for fleet in made:
        await fleet.close()


@pytest.fixture
async def fleet(fresh: Callable[[], Fleet]) -> Fleet:
    """A pool of two workers and a definition, its controller running."""
    made = fresh()
    await made.seed()
    await made.define()
    await made.start()
    return made
