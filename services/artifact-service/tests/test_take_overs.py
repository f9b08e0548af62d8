"""A service that loses its lease again and again and gets it back is as large after the hundredth time as after the first."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import CoroutineType, FrameType, SimpleNamespace, TracebackType
from typing import Any

import pytest

from lablet_artifacts.app import ArtifactService
from lablet_artifacts.settings import ArtifactSettings
from lablet_common.bus.memory import PlainLog
from lablet_common.events import Outgoing
from lablet_common.objects import MemoryObjectStore, digest_of
from lablet_common.resources.kinds import INSTANCE, Service, ownership_key
from lablet_common.telemetry.health import Health

SHARDS = ("-", "bridge-artifact", "bridge-definition")
THE_TWINS_OWN = ("lablet_common.store.api", "lablet_common.store.memory")
"""The store's twin keeps all that ever was written, ownership keys among it."""
SHARED = ("lablet_common.resources",)
"""Resources: what this process has seen last is kept, up to a bound of its own."""


class Idle:
    """A consumer to which nothing comes."""

    async def run(self) -> None:
        await asyncio.Event().wait()


class Bus(PlainLog):
    def __init__(self) -> None:
        super().__init__(self._take)
        self.published: list[str] = []

    async def _take(self, outgoing: Outgoing) -> None:
        self.published.append(outgoing.subject)

    def consumer(self, *_: Any) -> Idle:
        return Idle()


class Life:
    """The whole service, and the words of the test."""

    def __init__(self, shelf: Any, **settings: Any) -> None:
        self.shelf, self.bus, self.rounds = shelf, Bus(), 0
        parts: Any = SimpleNamespace(
            store=shelf.store, bus=self.bus, clock=shelf.clock, health=Health(), replica="r1",
            source="/lablet/artifact-service",
        )  # fmt: skip
        usual: dict[str, Any] = {"ownership_lease_ttl_seconds": 2.0}
        self.service = ArtifactService(parts, ArtifactSettings(**usual | settings), shelf.objects)

    @property
    def fences(self) -> dict[str, int]:
        return {shard: fence.create_revision for shard, fence in self.service._ownership.owned.items()}

    async def owned_anew(self, before: dict[str, int]) -> None:
        async def all_are() -> bool:
            now = self.fences
            return now.keys() == set(SHARDS) and all(now[shard] > before.get(shard, 0) for shard in SHARDS)

        await self.shelf.until(all_are, seconds=20)

    async def some_work(self) -> None:
        """Something collected, and published."""
        self.rounds += 1
        told = len(self.bus.published)
        staged = await self.shelf.stage("ins-a-1", "collected", {"r1.cfg": f"round {self.rounds}".encode()})
        await self.shelf.change("ins-a-1", staged=staged)

        async def published() -> bool:
            return len(self.bus.published) > told and not self.shelf.left_in_staging()

        await self.shelf.until(published, seconds=20)

    async def lose(self, *, lease: bool) -> None:
        """By another hand that deletes its keys; or the lease itself, as a starved process does."""
        await self.owned_anew({})  # a crowded machine may have lost it the lease already
        before = self.fences
        if lease:
            held = await self.shelf.store.get(ownership_key(Service.ARTIFACTS, "-"))
            if held is not None:
                await self.shelf.store.lease_revoke(held.lease)
        else:
            for shard in SHARDS:
                await self.shelf.store.delete(ownership_key(Service.ARTIFACTS, shard))
        await self.owned_anew(before)


@pytest.fixture
async def life(shelf: Any) -> AsyncIterator[Life]:
    made = Life(shelf)
    for number in range(20):
        await shelf.instance(f"ins-{number}-1", phase="Terminated")
    await shelf.instance(phase="Collecting")
    async with shelf.running(made.service.run()):
        await made.owned_anew({})
        yield made


@contextmanager
def nobody_looks_for_circles() -> Iterator[None]:
    """Services have Python look for circles of garbage seldom: what stays in one stays for hours."""
    logging.disable()  # pytest keeps what was logged, with errors and their frames
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


def alive() -> Counter[str]:
    """What there is of ours, and of what holds others: by type."""
    kinds = (type(one) for one in gc.get_objects())
    names = (
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if kind in (CoroutineType, FrameType, TracebackType, asyncio.Task, asyncio.TaskGroup)
        or (str(kind.__module__).startswith("lablet_") and not str(kind.__module__).startswith(THE_TWINS_OWN + SHARED))
    )
    return Counter(names)


@pytest.mark.parametrize("lease", [False, True], ids=["its keys are deleted", "its lease is lost"])
async def test_nothing_of_a_term_outlives_it(life: Life, lease: bool) -> None:
    """The soak's find: a starved artifact-service grew from 330 to 1,000 MiB while it lost its lease again and again."""
    await life.some_work()
    await life.lose(lease=lease)
    await life.some_work()
    with nobody_looks_for_circles():
        await life.lose(lease=lease)
        await life.some_work()
        await life.shelf.settle()
        before = alive()
        for _ in range(4):
            await life.lose(lease=lease)
            await life.some_work()
            await life.shelf.settle()
        grown = alive() - before
    assert {name: more for name, more in grown.items() if more >= 4} == {}, "of each, one or more with each take-over"


class SlowToRead(MemoryObjectStore):
    """Manifests are read once somebody lets them."""

    def __init__(self, real: MemoryObjectStore) -> None:
        super().__init__()
        self.objects, self.modified = real.objects, real.modified
        self.let = asyncio.Event()

    async def get(self, key: str) -> bytes:
        if key.endswith("manifest.json"):
            await self.let.wait()
        return await super().get(key)


async def test_an_instance_leaves_etcd_only_after_what_it_left_was_taken_over(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that was away for longer than the archive waits: its archiver was faster than its keeper, the instance was
    deleted, and what it had in staging went as nobody's. So did its rendered file's only way to be let go."""
    ended = await shelf.instance(phase="Terminated")
    released = ended.metadata.model_copy(update={"finalizers": ("archive",)})
    await shelf.all(INSTANCE).update(ended.model_copy(update={"metadata": released}))
    await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"a day's work"})
    await shelf.clock.advance(timedelta(hours=25))
    shelf.objects = SlowToRead(shelf.objects)
    service = Life(shelf, archive_look_seconds=0.02).service

    looks = 0
    taken = shelf.store.range

    async def counted(prefix: str, **how: Any) -> Any:
        nonlocal looks
        looks += prefix == "/archived/instance/"
        return await taken(prefix, **how)

    monkeypatch.setattr(shelf.store, "range", counted)

    async def looked() -> bool:
        return looks > 3

    async def asked() -> bool:
        return bool((await taken("/archived/instance/")).items)

    async with shelf.running(service.run()):
        await shelf.until(looked)
        assert not await asked()
        shelf.objects.let.set()
        await shelf.until(asked)
    assert await shelf.files() == {("collected", "r1.cfg"): digest_of(b"a day's work")}
