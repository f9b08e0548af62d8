"""The twin is only worth something if it is a twin: the same random calls get the same answers from it and from etcd."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from lablet_common.store import (
    Compare,
    Delete,
    EtcdStore,
    Get,
    InvalidRequest,
    KeyValue,
    MemoryStore,
    Operation,
    Put,
    Store,
    Target,
    WatchBatch,
)

KEYS = [f"/{a}{b}" for a in ("a", "a/", "b/") for b in ("x", "y", "xy")]


class Caller:
    """Makes one random call after another on a store; equal seeds make equal calls. Revisions are told less `base`."""

    def __init__(self, store: Store, seed: int, base: int) -> None:
        self._store = store
        self._dice = random.Random(seed)
        self._base = base

    async def call(self, newest: int) -> object:
        """What the store answers; `newest` is the twin's newest revision."""
        dice = self._dice
        kind = dice.random()
        try:
            if kind < 0.3:
                return await self._store.put(dice.choice(KEYS), b"1") - self._base
            if kind < 0.4:
                return await self._store.delete(dice.choice(KEYS), prefix=dice.random() < 0.5)
            if kind < 0.5:
                at = dice.randrange(1, newest + 1) + self._base
                return self._plain(await self._store.get(dice.choice(KEYS), revision=at))
            if kind < 0.6:
                page = await self._store.range(dice.choice(["/", "/a", "/a/", "/b/"]), limit=dice.randrange(4))
                return self._plain(page.items), page.revision - self._base, page.more, page.count
            compares = [self._compare(newest) for _ in range(dice.randrange(3))]
            success = [self._operation() for _ in range(dice.randrange(5))]
            failure = [self._operation() for _ in range(dice.randrange(3))]
            done = await self._store.txn(compares, success, failure)
            return done.succeeded, done.revision - self._base, self._plain(done.reads)
        except InvalidRequest:
            return "refused"

    def _operation(self) -> Operation:
        dice = self._dice
        key, kind = dice.choice(KEYS), dice.random()
        if kind < 0.5:
            return Put(key, dice.choice([b"1", b"2"]))
        if kind < 0.7:
            return Delete(dice.choice([key, "/a/"]), prefix=dice.random() < 0.3)
        return Get(key[:2], prefix=dice.random() < 0.5)

    def _compare(self, newest: int) -> Compare:
        dice = self._dice
        key, operator, target = dice.choice(KEYS), dice.choice(["=", "!=", "<", ">"]), dice.choice([*Target])
        match target:
            case Target.VALUE:
                return Compare(key, target, operator, dice.choice([b"1", b"2"]))
            case Target.VERSION:
                return Compare(key, target, operator, dice.randrange(4))
            case _:
                return Compare(key, target, operator, dice.randrange(1, newest + 1) + self._base)

    def _plain(self, answer: object) -> object:
        match answer:
            case KeyValue():
                revisions = (answer.mod_revision - self._base, answer.create_revision - self._base)
                return (answer.key, answer.value, *revisions, answer.version, answer.lease)
            case tuple():
                return tuple(map(self._plain, answer))
            case _:
                return answer


async def history(batches: AsyncIterator[WatchBatch], end: int, base: int) -> list[tuple[object, ...]]:
    events: list[tuple[object, ...]] = []
    async with asyncio.timeout(10):
        async for batch in batches:
            for event in batch.events:
                before = event.previous and event.previous.value
                events.append((event.type, event.kv.key, event.kv.value, event.kv.mod_revision - base, before))
            if batch.revision - base >= end:
                break
    return events


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_both_answer_400_random_calls_alike_and_tell_the_same_history(etcd: EtcdStore, seed: int) -> None:
    twin = MemoryStore()
    base = (await etcd.status()).revision - twin.revision
    one, other = Caller(etcd, seed, base), Caller(twin, seed, 0)
    async with twin.watch("/", previous=True) as twin_batches, etcd.watch("/", previous=True) as etcd_batches:
        for step in range(400):
            newest = twin.revision
            expected = await one.call(newest)
            assert await other.call(newest) == expected, f"the twin differs at step {step}"
        end = await twin.put("/end", b"")
        assert await etcd.put("/end", b"") == end + base
        told = await history(etcd_batches, end, base)
        assert await history(twin_batches, end, 0) == told
    assert len(told) > 200
