"""The compactor forgets what is old, and never what a bridge has not published."""

import json

import pytest

from lablet_common.compaction import Compactor, lowest_cursor
from lablet_common.ownership import Fence
from lablet_common.resources.kinds import INSTANCE, WORKER, cursor_key
from lablet_common.store import Compacted, MemoryStore


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def store():
    made = MemoryStore()
    for number in range(20):
        await made.put("/x", str(number).encode())
    return made


async def publish(store, kind, revision):
    await store.put(cursor_key(kind.name), json.dumps({"revision": revision}).encode())


def compactor(store, clock):
    fence = Fence("/ownership/x", 1)
    return Compactor(store, fence, [WORKER, INSTANCE], history_seconds=600, clock=clock)


async def test_nothing_is_forgotten_before_it_is_old_enough(store, clock):
    for kind in (WORKER, INSTANCE):
        await publish(store, kind, 20)
    one = compactor(store, clock)
    assert await one.look() == 0
    clock.now = 599
    assert await one.look() == 0
    clock.now = 601
    assert await one.look() == 20


async def test_the_slowest_bridge_holds_its_history(store, clock):
    await publish(store, WORKER, 20)
    await publish(store, INSTANCE, 7)
    one = compactor(store, clock)
    await one.look()
    clock.now = 700
    assert await one.look() == 7
    assert (await store.get("/x", revision=8)) is not None
    with pytest.raises(Compacted):
        await store.get("/x", revision=5)


async def test_a_bridge_that_has_published_nothing_holds_everything(store, clock):
    await publish(store, WORKER, 20)
    assert await lowest_cursor(store, [WORKER, INSTANCE]) == 0
    one = compactor(store, clock)
    await one.look()
    clock.now = 700
    assert await one.look() == 0


async def test_what_was_compacted_already_is_no_error(store, clock):
    for kind in (WORKER, INSTANCE):
        await publish(store, kind, 10)
    await store.compact(15)
    one = compactor(store, clock)
    await one.look()
    clock.now = 700
    assert await one.look() == 0
