"""Stores, clocks and resources for the tests of what stands on the store. `store` runs each test twice: on the twin in
memory and on a real etcd."""

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.intents import INTENTS, Nothing
from lablet_common.ownership import Fence
from lablet_common.requests import build_request, digest_of, new_ids, request_key
from lablet_common.resources import Metadata, Request, WorkerTemplate
from lablet_common.resources.kinds import RESERVATION, ownership_key
from lablet_common.resources.worker import Capacity, SimpleStatus, TemplateSpec
from lablet_common.store import EtcdStore, MemoryStore, Store
from lablet_common.testing.etcd import EtcdServer, find_etcd

AT = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    if find_etcd() is None:
        pytest.skip("no etcd on this machine")
    with EtcdServer.start(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.integration)])
async def open_client(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Store]]:
    """Another client of the same store, as another replica would have."""
    clients: list[Store] = []
    if request.param == "memory":
        shared = MemoryStore()

        def opened() -> Store:
            return shared
    else:
        server: EtcdServer = request.getfixturevalue("etcd")
        prefix = f"/test{next(_numbers)}"

        def opened() -> Store:
            clients.append(EtcdStore([server.endpoint], prefix=prefix))
            return clients[-1]

    yield opened
    for client in clients:
        await client.close()


@pytest.fixture
def store(open_client: Callable[[], Store]) -> Store:
    return open_client()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def background() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """Runs a coroutine until the test ends."""
    tasks: list[asyncio.Task[Any]] = []

    def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Waits until a condition (which may be a coroutine) holds; fails when it does not in time."""

    async def wait(condition: Callable[[], Any], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not (await held if inspect.isawaitable(held := condition()) else held):
            assert time.monotonic() < deadline, "the condition did not come about in time"
            await asyncio.sleep(0.002)

    return wait


@pytest.fixture
def make_template() -> Callable[..., WorkerTemplate]:
    def make(name: str, **metadata: Any) -> WorkerTemplate:
        return WorkerTemplate(
            metadata=Metadata(id=name, uid=f"uid-{name}-{next(_numbers)}", created_at=AT, **metadata),
            spec=TemplateSpec(
                instance_type="m5",
                capacity=Capacity(cpu_cores=8, memory_gb=32, storage_gb=100),
                license="ENTERPRISE",
                max_nodes=0,
                node_definitions=("iosv", "csr"),
            ),
            status=SimpleStatus(),
        )

    return make


@pytest.fixture
def make_request() -> Callable[..., Request]:
    """A request to cancel a reservation, under an idempotency key."""

    def make(key: str, *, reason: str = "", tenant: str = "acme", shard: str = "default") -> Request:
        uuid = request_key(tenant, "learner-17", "POST /reservations", key)
        body = Nothing(reason=reason)
        return build_request(
            INTENTS["io.lablet.reservation.cancel.requested.v1"],
            new_ids(RESERVATION, uuid)[1],
            body,
            key=uuid,
            tenant=tenant,
            principal="learner-17",
            shard=shard,
            digest=digest_of(body.to_dict()),
            at=AT,
        )

    return make


@pytest.fixture
def make_fence() -> Callable[..., Awaitable[Fence]]:
    """An ownership key without a lease, and the fence of its owner."""

    async def make(store: Store, shard: str = "default") -> Fence:
        key = ownership_key("scheduler", shard)
        return Fence(key, await store.put(key, b"me"))

    return make


class Tampered:
    """A store with moments at which a test may step in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before_watch: list[Callable[[], Awaitable[object]]] = []
        self.fault: Exception | None = None
        """Raised by every call while set; open watches go on."""
        self.lists = 0
        self.delivering = asyncio.Event()
        """Cleared: watches hold back what they have."""
        self.delivering.set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            if self.fault is not None:
                raise self.fault
            return await method(*args, **options)

        return call

    async def range(self, *args: Any, **options: Any) -> Any:
        self.lists += 1
        if self.fault is not None:
            raise self.fault
        return await self._store.range(*args, **options)

    @asynccontextmanager
    async def watch(self, prefix: str, **options: Any) -> AsyncIterator[Any]:
        while self.before_watch:
            await self.before_watch.pop(0)()
        async with self._store.watch(prefix, **options) as batches:
            yield self._deliver(batches)

    async def _deliver(self, batches: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for batch in batches:
            await self.delivering.wait()
            yield batch


@pytest.fixture
def tampered(store: Store) -> Tampered:
    return Tampered(store)


@pytest.fixture
def tamper() -> Callable[[Store], Tampered]:
    return Tampered
