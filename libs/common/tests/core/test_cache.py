"""A cache misses nothing: not between list and watch, not over a compaction, not a deletion."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.resources import WorkerTemplate
from lablet_common.resources.kinds import POOL, REQUEST, RESERVATION, TEMPLATE
from lablet_common.store import MemoryStore, Store, StoreUnavailable
from lablet_common.store.cache import Cache, Caches
from lablet_common.store.changes import Unreadable, encode
from lablet_common.store.repository import Repository

Make = Callable[..., WorkerTemplate]
Background = Callable[..., asyncio.Task[Any]]
Eventually = Callable[..., Any]


@pytest.fixture
def templates(store: Store) -> Repository[WorkerTemplate]:
    return Repository(store, TEMPLATE)


@pytest.fixture
def cache(store: Store) -> Cache[WorkerTemplate]:
    return Cache(store, TEMPLATE)


async def test_it_holds_what_was_there_and_what_comes(
    cache: Cache[WorkerTemplate], templates: Repository[WorkerTemplate], make_template: Make, background: Background
) -> None:
    first = await templates.create(make_template("a"))
    assert not cache.synced
    background(cache.run())
    await cache.wait_synced()
    assert cache.items() == [first]
    second = await templates.create(make_template("b"))
    changed = await templates.update(first.relabelled({"x": "y"}))
    await cache.reached(changed.revision)
    assert cache.get("a") == changed
    assert cache.get("b") == second
    await templates.delete(second)
    await cache.reached((await templates.create(make_template("c"))).revision)
    assert {t.id for t in cache.items()} == {"a", "c"}
    assert len(cache) == 2


async def test_a_change_between_the_list_and_the_watch_is_seen(
    tampered: Any,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    background: Background,
    eventually: Eventually,
) -> None:
    cache: Cache[WorkerTemplate] = Cache(tampered, TEMPLATE)
    tampered.before_watch.append(lambda: templates.create(make_template("between")))
    background(cache.run())
    await eventually(lambda: cache.get("between"))
    assert tampered.lists == 1


async def test_a_list_that_overtook_the_watch_is_not_undone_by_older_changes(
    tampered: Any, templates: Repository[WorkerTemplate], make_template: Make, background: Background
) -> None:
    cache: Cache[WorkerTemplate] = Cache(tampered, TEMPLATE)
    told: list[tuple[str | None, str | None, int]] = []
    cache.subscribe(lambda old, new, revision: told.append((old and old.id, new and new.id, revision)))
    background(cache.run())
    await cache.wait_synced()
    tampered.delivering.clear()
    await templates.delete(await templates.create(make_template("short-lived")))
    kept = await templates.create(make_template("kept"))
    await cache.reached(kept.revision)
    tampered.delivering.set()
    last = await templates.create(make_template("last"))
    await cache.reached(last.revision)
    assert told == [(None, "kept", kept.revision), (None, "last", last.revision)]


async def test_after_a_compaction_it_lists_again_and_tells_only_the_difference(
    tampered: Any,
    store: Store,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    background: Background,
    eventually: Eventually,
) -> None:
    kept, changed, gone = [await templates.create(make_template(name)) for name in ("kept", "changed", "gone")]
    cache: Cache[WorkerTemplate] = Cache(tampered, TEMPLATE)
    told: list[tuple[str | None, str | None]] = []
    cache.subscribe(lambda old, new, _: told.append((old and old.id, new and new.id)))

    async def go_on_and_compact() -> None:
        told.clear()
        await templates.update(changed.relabelled({"x": "y"}))
        await templates.delete(gone)
        await store.compact((await templates.create(make_template("new"))).revision)

    tampered.before_watch.append(go_on_and_compact)
    background(cache.run())
    await eventually(lambda: cache.get("new"))
    assert sorted(told, key=str) == [("changed", "changed"), ("gone", None), (None, "new")]
    assert cache.get("kept") == kept
    assert cache.get("gone") is None


async def test_a_watch_that_has_gone_silent_is_healed_by_the_periodic_list(
    memory: MemoryStore, make_template: Make, background: Background, eventually: Eventually
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    gone = await templates.create(make_template("gone"))
    cache: Cache[WorkerTemplate] = Cache(memory, TEMPLATE, resync_seconds=0.05)
    background(cache.run())
    await cache.wait_synced()
    memory._watchers.clear()  # as a server that forgets its watchers without a word
    await templates.delete(gone)
    await templates.create(make_template("new"))
    await eventually(lambda: cache.get("new") and not cache.get("gone"))


async def test_waiting_for_a_revision_of_another_kind_does_not_hang(
    cache: Cache[WorkerTemplate], store: Store, background: Background
) -> None:
    background(cache.run())
    await cache.wait_synced()
    revision = await store.put("/elsewhere", b"x")
    began = time.monotonic()
    await cache.reached(revision)
    assert time.monotonic() - began < 1
    assert cache.revision >= revision


async def test_waiting_for_a_revision_that_never_comes_times_out(
    cache: Cache[WorkerTemplate], background: Background
) -> None:
    background(cache.run())
    with pytest.raises(TimeoutError, match="999999"):
        await cache.reached(999_999, timeout=0.1)


async def test_many_waiters_cost_few_lists(tampered: Any, store: Store, background: Background) -> None:
    cache: Cache[WorkerTemplate] = Cache(tampered, TEMPLATE)
    background(cache.run())
    await cache.wait_synced()
    revision = await store.put("/elsewhere", b"x")
    before = tampered.lists
    await asyncio.gather(*(cache.reached(revision) for _ in range(200)))
    assert tampered.lists - before <= 2


async def test_where_somebody_always_waits_and_nobody_for_long_nothing_is_listed(
    tampered: Any,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    background: Background,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a busy gateway: each call waits a moment for what the watch is about to bring."""
    monkeypatch.setattr("lablet_common.store.mirror._GRACE_SECONDS", 0.25)
    cache: Cache[WorkerTemplate] = Cache(tampered, TEMPLATE)
    background(cache.run())
    await cache.wait_synced()
    last = (await templates.create(make_template("first"))).revision
    await cache.reached(last)
    before = tampered.lists
    waiting = asyncio.create_task(cache.reached(last + 1))
    for number in range(60):
        await asyncio.sleep(0.01)
        served, waiting = waiting, asyncio.create_task(cache.reached(last + 2))
        await asyncio.sleep(0)
        last = (await templates.create(make_template(f"t{number}"))).revision
        await served
    assert tampered.lists == before
    waiting.cancel()


async def test_it_waits_for_etcd_and_outlives_its_absence(
    tampered: Any, templates: Repository[WorkerTemplate], make_template: Make, background: Background
) -> None:
    tampered.fault = StoreUnavailable("etcd is away")
    cache: Cache[WorkerTemplate] = Cache(tampered, TEMPLATE, resync_seconds=0.1)
    task = background(cache.run())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cache.wait_synced(), 0.05)
    tampered.fault = None
    await asyncio.wait_for(cache.wait_synced(), 5)
    tampered.fault = StoreUnavailable("etcd is away again")
    await asyncio.sleep(0.15)  # over a resync, which fails
    made = await templates.create(make_template("a"))
    tampered.fault = None
    await cache.reached(made.revision)
    assert not task.done()


async def test_an_index_follows_every_change(
    cache: Cache[WorkerTemplate], templates: Repository[WorkerTemplate], make_template: Make, background: Background
) -> None:
    cache.add_index("course", lambda t: t.metadata.labels.values())
    first = await templates.create(make_template("a", labels={"one": "x", "two": "y"}))
    background(cache.run())
    await cache.wait_synced()
    assert [t.id for t in cache.by("course", "x")] == ["a"]
    moved = await templates.update(first.relabelled({"one": "y"}))
    await cache.reached(moved.revision)
    assert cache.by("course", "x") == []
    assert cache.by("course", "y") == [moved]
    cache.add_index("late", lambda t: [t.id])
    assert cache.by("late", "a") == [moved]
    await templates.delete(moved)
    await cache.reached((await templates.list()).revision)
    assert cache.by("course", "y") == []


async def test_a_tenant_sees_only_its_own(
    store: Store, make_request: Callable[..., Any], background: Background
) -> None:
    requests: Repository[Any] = Repository(store, REQUEST)
    for tenant in ("acme", "acme-2", "other"):
        await requests.create(make_request("k", tenant=tenant))
    cache: Cache[Any] = Cache(store, REQUEST, tenant="acme")
    background(cache.run())
    await cache.wait_synced()
    assert [r.tenant for r in cache.items()] == ["acme"]


async def test_a_value_that_cannot_be_read_ends_it_loudly(
    cache: Cache[WorkerTemplate], store: Store, background: Background
) -> None:
    task = background(cache.run())
    await cache.wait_synced()
    await store.put("/templates/broken", b"{}")
    with pytest.raises(Unreadable, match="/templates/broken"):
        await asyncio.wait_for(task, 5)


async def test_several_caches_reach_a_revision_together(
    store: Store, templates: Repository[WorkerTemplate], make_template: Make
) -> None:
    async with Caches(store, [TEMPLATE, POOL, RESERVATION]) as caches:
        await caches.wait_synced()
        made = await templates.create(make_template("a"))
        await caches.reached(made.revision)
        assert caches[TEMPLATE].get("a") == made
        assert caches[POOL].revision >= made.revision
        revision = await store.put("/ownership/scheduler/default", b"x")
        began = time.monotonic()
        await caches.reached(revision)
        assert time.monotonic() - began < 0.5
        assert caches[RESERVATION].items() == []


async def test_an_error_inside_the_block_goes_on_as_it_is(memory: MemoryStore) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with Caches(memory, [TEMPLATE]):
            raise LookupError("mine")


async def test_an_error_of_the_caches_ends_the_block(memory: MemoryStore) -> None:
    async def block() -> None:
        async with Caches(memory, [TEMPLATE]) as caches:
            await caches.wait_synced()
            await memory.put("/templates/broken", b"{}")
            await asyncio.Event().wait()

    with pytest.raises(Unreadable):
        await block()


async def test_what_is_kept_is_small_and_the_same(
    cache: Cache[WorkerTemplate], templates: Repository[WorkerTemplate], make_template: Make, background: Background
) -> None:
    created = [await templates.create(make_template(name)) for name in ("a", "b")]
    background(cache.run())
    await cache.wait_synced()
    a, b = cache.items()
    assert [a, b] == created
    for one, other in ((a, b), (a.metadata, b.metadata), (a.spec.capacity, b.spec.capacity)):
        assert one.model_fields_set is other.model_fields_set, "pydantic's notes are shared"
    changed = a.relabelled({"x": "y"})
    assert changed.metadata.model_fields_set is not a.metadata.model_fields_set
    assert encode(changed.relabelled(dict(a.metadata.labels))) == encode(created[0])
