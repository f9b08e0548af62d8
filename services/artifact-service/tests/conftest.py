"""The artifact-service on twins of etcd and S3 and a manual clock; the test plays gateway and worker-controller."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_artifacts.deleting import Deleter
from lablet_artifacts.keeper import CACHED, Keeper
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.patience import with_patience
from lablet_artifacts.publishing import Publisher
from lablet_artifacts.references import References
from lablet_artifacts.rendering import Renderer
from lablet_artifacts.sweeping import Sweeper
from lablet_common.clock import ManualClock
from lablet_common.intake import Intake
from lablet_common.intents import INTENTS
from lablet_common.objects import MemoryObjectStore, digest_of
from lablet_common.ownership import Fence
from lablet_common.references import Use, all_references, follow_uses
from lablet_common.requests import accept, build_request, request_key
from lablet_common.requests import digest_of as body_digest
from lablet_common.resources.artifact import manifest_key, staging_key
from lablet_common.resources.instance import Instance, Staged
from lablet_common.resources.kinds import ARTIFACT, INSTANCE, REQUEST, Service, ownership_key
from lablet_common.store import MemoryStore
from lablet_common.store.cache import Caches
from lablet_common.store.repository import Repository

MORNING = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
SOURCE = "/lablet/artifact-service"
FILE = """\
lab:
  title: Small
  version: 0.2.2
nodes:
  - id: n0
    label: R1
    node_definition: iosv
    x: 0
    y: 10
    tags: ["serial:${PORT_R1}", "seat-${SEAT}", "${NAME}@${HOST}"]  # kept
    interfaces: []
links: []
"""


@dataclass
class Shelf:
    """The service, its twins, and the words of a test."""

    store: MemoryStore = field(default_factory=MemoryStore)
    objects: MemoryObjectStore = field(default_factory=MemoryObjectStore)
    clock: ManualClock = field(default_factory=lambda: ManualClock(MORNING))
    _life: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _count: int = 0

    def all(self, kind: Any) -> Repository[Any]:
        return Repository(self.store, kind)

    async def settle(self) -> None:
        """Lets the service do what there is to do; rendering has threads of its own."""
        quiet, before = 0, -1
        while quiet < 4:
            for _ in range(20):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002)
            quiet, before = (quiet + 1, before) if self.store.revision == before else (0, self.store.revision)

    async def until(self, condition: Callable[[], Any], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.01)

    async def sweeper(self, **more: Any) -> Sweeper:
        """What nobody refers to waits for an hour, collected work for 90 days."""
        usual: dict[str, Any] = {
            "by": "/lablet/artifact-service",
            "grace": timedelta(hours=1),
            "retention": timedelta(days=90),
            "look_seconds": 3600,
        }
        objects = more.pop("objects", self.objects)
        return Sweeper(self.store, await self.fence(), objects, self.clock, **usual | more)

    # -- publishing ------------------------------------------------------------------------------------------------

    async def ask(
        self, verb: str, target: str, body: dict[str, Any], tenant: str = "default", *, kind: str = "definition"
    ) -> Any:
        intent = INTENTS[f"io.lablet.{kind}.{verb}.requested.v1"]
        self._count += 1
        request = build_request(
            intent,
            target,
            intent.body.model_validate(body),
            key=request_key(tenant, "ada", verb, str(self._count)),
            tenant=tenant,
            principal="ada",
            shard="-",
            digest=body_digest(body),
            at=self.clock.now(),
        )
        await accept(self.store, request)
        return request

    async def decided(self, request: Any) -> Any:
        publisher = Publisher(self.store, self.objects)
        fence = await self.fence()
        uses = await self.uses()
        deleter = Deleter(
            self.store,
            References(self.store, fence),
            lambda subject: [use for use in uses if use.reference.subject == subject],
            SOURCE,
        )

        async def decide(undecided: Any) -> Any:
            if request.spec.subject.startswith("artifact/"):
                return await deleter.decide(undecided, self.clock.now())
            return await with_patience(lambda: publisher.decide(undecided, self.clock.now(), SOURCE))

        intake = Intake(
            Service.ARTIFACTS, "-", fence, decide, store=self.store, clock=self.clock, source=SOURCE, resync_seconds=60
        )
        task = asyncio.create_task(intake.run())

        async def done() -> bool:
            if task.done():
                task.result()
            return str((await self.all(REQUEST).get(request.id, request.tenant)).phase) != "Accepted"

        try:
            await self.until(done, seconds=20)
        finally:
            await _end(task)
        return await self.all(REQUEST).get(request.id, request.tenant)

    async def publish(
        self,
        name: str,
        data: bytes,
        version: str | None = None,
        *,
        tenant: str = "default",
        overrides: dict[str, Any] | None = None,
    ) -> Any:
        """Uploads and publishes; the request as it was decided."""
        key = staging_key(tenant, "uploads", digest_of(data))
        await self.objects.put(key, data)
        body = {
            "name": name,
            "staging": key,
            "digest": digest_of(data),
            "bytes": len(data),
            "overrides": overrides or {},
        }
        if version is not None:
            body["version"] = version
        return await self.decided(await self.ask("publish", name, body, tenant))

    # -- instances -------------------------------------------------------------------------------------------------

    async def instance(self, name: str = "ins-a-1", phase: str = "Pending", **spec: Any) -> Any:
        body = {
            "reservation": "rsv-a",
            "seat": 7,
            "definition": "small@1.0.0",
            "pool": "default",
            "worker": "default-003",
            "ports": {"r1": 2345},
            "start": MORNING,
            "end": MORNING + timedelta(hours=1),
        }
        return await self.all(INSTANCE).create(
            Instance.model_validate(
                {
                    "metadata": {"id": name, "uid": name, "owner": "grace", "createdAt": MORNING},
                    "spec": body | spec,
                    "status": {"phase": phase},
                }
            )
        )

    async def change(self, name: str, **status: Any) -> Any:
        present = await self.all(INSTANCE).require(name)
        return await self.all(INSTANCE).update(present.observed(**status))

    async def stage(self, name: str, role: Any, files: dict[str, bytes], **lies: str) -> Staged:
        """Files in staging with their manifest; `lies`: a file's false digest. The instance does not know yet."""
        entries = []
        for file, data in files.items():
            key = staging_key("default", name, "1", role, file)
            await self.objects.put(key, data)
            digest = lies.get(file.partition(".")[0], digest_of(data))
            entries.append({"name": file, "key": key, "digest": digest, "bytes": len(data), "mediaType": "text/plain"})
        manifest = manifest_key("default", name, 1, role)
        await self.objects.put(manifest, json.dumps(entries).encode())
        return Staged(manifest=manifest, attempt=1, role=role)

    async def files(self, subject: str = "instance/ins-a-1") -> dict[tuple[str, str], str]:
        """(role, name) → digest of everything that the subject refers to."""
        return {
            (use.reference.role, use.reference.name): use.artifact.id
            for use in await self.uses()
            if use.reference.subject == subject
        }

    async def uses(self) -> list[Use]:
        """All uses of everything, as the store has them."""
        return [
            Use(artifact, reference)
            for artifact in (await self.all(ARTIFACT).list()).items
            async for reference in all_references(self.store, artifact)
        ]

    async def has(self, role: str, name: str, count: int = 1, *, seconds: float = 5) -> None:
        async def there() -> bool:
            return sum(key == (role, name) for key in await self.files()) >= count

        await self.until(there, seconds)

    def left_in_staging(self) -> list[str]:
        return [key for key in self.objects.objects if key.startswith("staging/default/ins-")]

    # -- life ------------------------------------------------------------------------------------------------------

    async def fence(self) -> Fence:
        key = ownership_key(Service.ARTIFACTS, "-")
        found = await self.store.get(key)
        return Fence(key, found.create_revision if found else await self.store.put(key, b"test"))

    async def keep(
        self, objects: Any = None, fence: Fence | None = None, leftovers: Leftovers | None = None
    ) -> asyncio.Task[None]:
        """A keeper that has just taken over; with the `leftovers` of an earlier one, in the same process."""
        caches = Caches(self.store, list(CACHED))
        follow_uses(caches)
        await self._life.enter_async_context(caches)
        await caches.wait_synced()
        files = objects or self.objects
        keeper = Keeper(
            fence or await self.fence(),
            store=self.store,
            caches=caches,
            objects=files,
            renderer=Renderer(files),
            leftovers=leftovers or Leftovers(),
            clock=self.clock,
            resync_seconds=3600,
        )
        task = asyncio.create_task(keeper.run())
        self._life.push_async_callback(_end, task)
        await self.settle()
        return task

    @contextlib.asynccontextmanager
    async def running(self, work: Any) -> AsyncIterator[None]:
        """With this going on beside."""
        task = asyncio.ensure_future(work)
        try:
            yield
        finally:
            await _end(task)

    async def close(self) -> None:
        await self._life.aclose()


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf()
    yield made
    await made.close()


@pytest.fixture
def small() -> bytes:
    """A lab file with one port and all the seat's values."""
    return FILE.encode()
