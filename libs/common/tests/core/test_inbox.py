"""The inboxes that a service follows: in order, as new as its caches, and hardly ever read from the store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lablet_common import inbox
from lablet_common.acceptance import accept_all
from lablet_common.inbox import FollowedInboxes
from lablet_common.requests import accept, hand_on_in
from lablet_common.resources import Request
from lablet_common.resources.kinds import POOL, REQUEST
from lablet_common.store import MemoryStore, Store, Transaction
from lablet_common.store.cache import Caches

Make = Callable[..., Request]


class Reading:
    """A store that counts the requests that are read from it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def txn(self, compares: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> Any:
        self.reads += len(success)
        return await self._store.txn(compares, success, failure)


@asynccontextmanager
async def following(store: Any) -> AsyncIterator[tuple[FollowedInboxes, Caches]]:
    followed = FollowedInboxes(store, "scheduler")
    caches = Caches(store, [POOL], beside={followed.prefix: followed})
    caches.overhear(REQUEST.prefix, followed.hear)
    async with caches:
        await caches.wait_synced()
        yield followed, caches


async def names(followed: FollowedInboxes, limit: int = 100, shard: str = "default") -> list[str]:
    return [undecided.id for undecided in await followed.pending(shard, limit)]


async def test_what_is_accepted_waits_in_its_order_and_nobody_reads_it_from_the_store(
    store: Store, make_request: Make
) -> None:
    counting = Reading(store)
    async with following(counting) as (followed, caches):
        alone = await accept(store, make_request("first"))
        together = [make_request(f"k{n}") for n in range(70)]
        await accept_all(store, together)
        last = await accept(store, make_request("last"))
        await caches.reached(last.request.revision)
        expected = [alone.request.id, *(request.id for request in together), last.request.id]
        assert await names(followed) == expected
        assert await names(followed, limit=1) == expected[:1]
        assert followed.depth("default") == len(expected), "whatever the limit is"
        assert await names(followed, limit=5) == expected[:61], "what came in one transaction is not divided"
        (waiting, *_) = await followed.pending("default")
        assert waiting.request == alone.request
        assert counting.reads == 0


async def test_what_waited_before_the_start_is_read(store: Store, make_request: Make) -> None:
    accepted = [(await accept(store, make_request(f"k{n}"))).request for n in range(3)]
    counting = Reading(store)
    async with following(counting) as (followed, _):
        assert [undecided.request for undecided in await followed.pending("default")] == accepted
        assert counting.reads == 3


async def test_what_stands_far_back_in_a_long_line_is_read_when_its_turn_has_come(
    memory: MemoryStore, make_request: Make, monkeypatch: Any
) -> None:
    monkeypatch.setattr(inbox, "_REMEMBERED", 4)
    counting = Reading(memory)
    async with following(counting) as (followed, caches):
        accepted = [(await accept(memory, make_request(f"k{n}"))).request for n in range(6)]
        await caches.reached(accepted[-1].revision)
        assert await names(followed, limit=4) == [request.id for request in accepted[:4]]
        assert counting.reads == 0
        assert await names(followed) == [request.id for request in accepted]
        assert counting.reads == 2


async def test_a_request_that_is_handed_on_stands_last_in_its_new_line_as_it_is_now(
    store: Store, make_request: Make
) -> None:
    async with following(store) as (followed, caches):
        await accept(store, make_request("a"))
        there = await accept(store, make_request("b", shard="spare"))
        await caches.reached(there.request.revision)
        (undecided,) = await followed.pending("default")
        txn = Transaction()
        hand_on_in(txn, undecided, "scheduler", "spare")
        done = await txn.commit(store)
        await caches.reached(done.revision)
        assert await names(followed) == []
        assert await names(followed, shard="spare") == [there.request.id, undecided.id]
        assert (await followed.pending("spare"))[1].request.spec.shard == "spare"


async def test_whoever_listens_to_a_shard_hears_of_what_is_new_there(store: Store, make_request: Make) -> None:
    heard: list[str] = []
    async with following(store) as (followed, caches):
        stop = followed.subscribe("default", lambda: heard.append("default"))
        followed.subscribe("spare", lambda: heard.append("spare"))
        await caches.reached((await accept(store, make_request("a"))).request.revision)
        assert heard == ["default"]
        stop()
        await caches.reached((await accept(store, make_request("b"))).request.revision)
        assert heard == ["default"]


async def test_a_pointer_that_cannot_be_read_stops_nobody(store: Store, make_request: Make) -> None:
    async with following(store) as (followed, caches):
        for number, value in enumerate((b"{", b"[]", b"{}", b'{"tenant": 1}')):
            await store.put(f"/inbox/scheduler/default/req-broken-{number}", value)
        accepted = await accept(store, make_request("a"))
        await caches.reached(accepted.request.revision)
        assert await names(followed) == [accepted.request.id]
        await store.delete("/inbox/scheduler/default/req-broken-0")
