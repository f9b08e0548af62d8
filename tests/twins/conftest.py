"""The whole mesh in one event loop: every service against the twins of etcd, S3, cloud and runtime, on a manual clock.

A day passes in milliseconds. There is no bus: services are woken by their caches and by what the test adds to an inbox.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lablet_artifacts.keeper import CACHED as ARTIFACT_KINDS
from lablet_artifacts.keeper import Keeper
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.publishing import infer_spec
from lablet_artifacts.rendering import Renderer
from lablet_common.clock import ManualClock
from lablet_common.intents import INTENTS
from lablet_common.objects import MemoryObjectStore, put_content
from lablet_common.ownership import Fence
from lablet_common.references import follow_uses
from lablet_common.requests import accept, build_request, digest_of, request_key
from lablet_common.resources.definition import Definition, DefinitionPhase, DefinitionStatus
from lablet_common.resources.kinds import (
    DEFINITION,
    INSTANCE,
    POOL,
    RESERVATION,
    TEMPLATE,
    WORKER,
    ownership_key,
)
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import PoolSpec, PoolStatus, SimpleStatus, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_common.secrets import SecretBox
from lablet_common.store import MemoryStore
from lablet_common.store.cache import Caches
from lablet_common.store.repository import Repository
from lablet_scheduler.following import Following
from lablet_scheduler.owner import PoolOwner
from lablet_scheduler.settings import SchedulerSettings
from lablet_workers.controller import CACHED as WORKER_KINDS
from lablet_workers.controller import PoolController, add_indexes
from lablet_workers.estate import Estate
from lablet_workers.providers.memory import MemoryProvider
from lablet_workers.runtimes.memory import MemoryRuntimes
from lablet_workers.settings import WorkerControllerSettings

MORNING = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
LABS = Path(__file__).resolve().parents[2] / "examples" / "labs"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", default="", help="keep what this release stores, under this name")


@dataclass
class Mesh:
    """The services, their twins, and the words of a test."""

    store: MemoryStore
    clock: ManualClock
    objects: MemoryObjectStore
    provider: MemoryProvider
    runtimes: MemoryRuntimes
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The controller's, beside what tests usually have."""
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    owner: PoolOwner | None = None
    _life: contextlib.AsyncExitStack | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Every service, from what the store holds."""
        self._life = contextlib.AsyncExitStack()
        await _serve(self._life, self)

    async def stop(self) -> None:
        """Every service is gone at whatever await it stands."""
        life, self._life = self._life, None
        self.tasks, self.owner = [], None
        if life is not None:
            await life.aclose()

    # -- words -----------------------------------------------------------------------------------------------------

    def repository(self, kind: Any) -> Repository[Any]:
        return Repository(self.store, kind)

    async def publish(self, name: str) -> None:
        data = (LABS / f"{name}.yaml").read_bytes()
        await put_content(self.objects, "default", data, "application/yaml")
        spec = infer_spec(name, "1.0.0", data, {})
        metadata = Metadata(id=f"{name}@1.0.0", uid=name, created_at=self.clock.now())
        status = DefinitionStatus(phase=DefinitionPhase.PUBLISHED)
        await self.repository(DEFINITION).create(Definition(metadata=metadata, spec=spec, status=status))

    async def ask(self, verb: str, reservation: str, data: dict[str, Any]) -> None:
        intent = INTENTS[f"io.lablet.reservation.{verb}.v1"]
        request = build_request(
            intent,
            reservation,
            intent.body.model_validate(data),
            key=request_key("default", "teacher", verb, f"{reservation}-{self.clock.now().isoformat()}-{data}"),
            tenant="default",
            principal="teacher",
            shard="default",
            digest=digest_of(data),
            at=self.clock.now(),
        )
        await accept(self.store, request)
        if self.owner is not None:
            self.owner.wake()
        await self.settle()

    async def reserve(
        self, reservation: str, *, at: timedelta, minutes: int = 60, seats: int = 1, definition: str = "ospf-basics"
    ) -> Any:
        start = MORNING + at
        data = {
            "id": reservation,
            "owner": "teacher",
            "definition": f"{definition}@1.0.0",
            "pools": ["default"],
            "seats": seats,
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=minutes)).isoformat(),
            "durationMinutes": minutes,
        }
        await self.ask("requested", reservation, data)
        return await self.repository(RESERVATION).get(reservation)

    async def settle(self) -> None:
        """Lets every service do what there is to do now."""
        before = -1
        while before != (await self.store.status()).revision:
            before = (await self.store.status()).revision
            for _ in range(100):
                await asyncio.sleep(0)
            await asyncio.sleep(0.004)
        for task in self.tasks:
            if task.done():
                task.result()

    async def until(self, moment: timedelta, step: timedelta = timedelta(minutes=1)) -> None:
        """Passes time to MORNING + moment, minute by minute."""
        while self.clock.now() < MORNING + moment:
            await self.clock.advance(min(step, MORNING + moment - self.clock.now()))
            await self.settle()

    async def instance(self, name: str) -> Any:
        return await self.repository(INSTANCE).get(name)

    async def worker(self, name: str = "default-001") -> Any:
        return await self.repository(WORKER).get(name)

    async def reservation(self, name: str) -> Any:
        return await self.repository(RESERVATION).get(name)


async def no_closed_ports(host: str, ports: dict[str, int], timeout: float) -> dict[str, str]:
    return {}


@pytest.fixture
async def mesh(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    monkeypatch.setattr("lablet_workers.labs.closed_ports", no_closed_ports)
    async with running(MemoryProvider(), ManualClock(MORNING)) as made:
        yield made


@contextlib.asynccontextmanager
async def running(
    provider: MemoryProvider,
    clock: ManualClock,
    *,
    template: Mapping[str, Any] | None = None,
    pool: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Mesh]:
    """The three services on one store, with one pool; `template`, `pool` and `settings` (the controller's) win over what
    the tests usually have. The licences are for as many nodes as the template promises."""
    runtimes = MemoryRuntimes(node_quota=(template or {}).get("max_nodes", 20))
    made = Mesh(MemoryStore(), clock, MemoryObjectStore(), provider, runtimes, settings=settings or {})
    await _seed(made, template or {}, pool or {})
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def _serve(stack: contextlib.AsyncExitStack, made: Mesh) -> None:
    """All services on the mesh's present store, until the stack is closed."""
    scheduler = Following(made.store)
    await stack.enter_async_context(scheduler)
    await scheduler.wait_synced()
    workers = await _caches(stack, made, WORKER_KINDS, add_indexes)
    artifacts = await _caches(stack, made, ARTIFACT_KINDS, follow_uses)
    settings = {"controller_probe_seconds": 60.0, "resync_seconds": 3600.0} | dict(made.settings)
    made.owner = PoolOwner(
        "default",
        await _fence(made, "scheduler", "default"),
        store=made.store,
        caches=scheduler,
        find_definition=lambda tenant, name: scheduler[DEFINITION].get(name, tenant),
        clock=made.clock,
        settings=SchedulerSettings(resync_seconds=3600.0),
        source="/lablet/scheduler",
    )
    controller = PoolController(
        Estate(
            "default",
            await _fence(made, "worker-controller", "default"),
            store=made.store,
            caches=workers,
            clock=made.clock,
            settings=WorkerControllerSettings(**settings),
            providers=lambda _pool, _template, chosen=made.provider: chosen,
            runtimes=made.runtimes,
            objects=made.objects,
            box=SecretBox({"k1": b"0" * 32}),
            source="/lablet/worker-controller",
        )
    )
    keeper = Keeper(
        await _fence(made, "artifact-service", "-"),
        store=made.store,
        caches=artifacts,
        objects=made.objects,
        renderer=Renderer(made.objects),
        leftovers=Leftovers(),
        clock=made.clock,
        resync_seconds=3600.0,
    )
    for work in (made.owner.run(), controller.run(), keeper.run()):
        task = asyncio.create_task(work)
        made.tasks.append(task)
        stack.push_async_callback(_end, task)
    await made.settle()


async def _seed(mesh: Mesh, more: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    now = mesh.clock.now()
    shape = {
        "instance_type": "sim",
        "capacity": {"cpu_cores": 32, "memory_gb": 64, "storage_gb": 500},
        "license": "ENTERPRISE",
        "max_nodes": 20,
        "boot_minutes": 8,
    }
    template = TemplateSpec.model_validate({**shape, **more})
    await mesh.repository(TEMPLATE).create(
        WorkerTemplate(metadata=Metadata(id="sim", uid="t", created_at=now), spec=template, status=SimpleStatus())
    )
    usual = {"template": "sim", "max": 3, "preparation_minutes": 5, "boot_reserve_minutes": 0, "turnaround_minutes": 5}
    pool = PoolSpec.model_validate({**usual, "scale_down_grace_minutes": 30, **wanted})
    await mesh.repository(POOL).create(
        WorkerPool(metadata=Metadata(id="default", uid="p", created_at=now), spec=pool, status=PoolStatus())
    )


async def _caches(
    stack: contextlib.AsyncExitStack, mesh: Mesh, kinds: Any, prepare: Callable[[Caches], None]
) -> Caches:
    caches = Caches(mesh.store, list(kinds))
    prepare(caches)
    await stack.enter_async_context(caches)
    await caches.wait_synced()
    return caches


async def _fence(mesh: Mesh, service: str, shard: str) -> Fence:
    key = ownership_key(service, shard)
    return Fence(key, await mesh.store.put(key, b"test"))


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
