"""Many callers at once cost etcd little, and none of them pays for another's fault."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

import lablet_gateway.decisions
from lablet_common.intents import INTENTS, Nothing
from lablet_common.requests import Inbox, accept, build_request, decide_in, digest_of, request_key
from lablet_common.resources.kinds import POOL, REQUEST
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.store import Get, InvalidRequest, MemoryStore, StoreUnavailable, Transaction
from lablet_common.store.cache import Caches
from lablet_gateway.decisions import Decisions
from lablet_gateway.gathering import Gathering, Overloaded, acceptance, lookups

AT = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)
PATIENCE = 5.0


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def ask(name: str, reason: str = "") -> Request:
    body = Nothing(reason=reason)
    return build_request(
        INTENTS["io.lablet.reservation.cancel.requested.v1"],
        f"rsv-{name}",
        body,
        key=request_key("default", "ann", "DELETE", name),
        tenant="default",
        principal="ann",
        shard="default",
        digest=digest_of(body.to_dict()),
        at=AT,
    )


async def decide(store: MemoryStore, limit: int = 100) -> None:
    for undecided in await Inbox(store, "scheduler", "default").pending(limit):
        txn = Transaction()
        decide_in(txn, undecided, at=AT, by="/lablet/scheduler", reason="Cancelled")
        await txn.commit(store)


async def test_what_comes_during_a_round_shares_the_next_one() -> None:
    rounds: list[int] = []
    go = asyncio.Event()

    async def work(items: Sequence[int]) -> Sequence[int | Exception]:
        rounds.append(len(items))
        await go.wait()
        return [item * 2 for item in items]

    gathering: Gathering[int, int] = Gathering(work)
    first = asyncio.create_task(gathering.ask(1))
    while not rounds:
        await asyncio.sleep(0)
    later = [asyncio.create_task(gathering.ask(n)) for n in range(2, 12)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(first, *later) == [n * 2 for n in range(1, 12)]
    assert rounds == [1, 10]


async def test_an_item_at_fault_is_told_alone_and_a_broken_round_tells_all() -> None:
    async def work(items: Sequence[int]) -> Sequence[int | Exception]:
        if 0 in items:
            raise StoreUnavailable("away")
        return [ValueError(item) if item < 0 else item for item in items]

    gathering: Gathering[int, int] = Gathering(work)
    outcomes = await asyncio.gather(*map(gathering.ask, (1, -1, 2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, ValueError, int]
    outcomes = await asyncio.gather(*map(gathering.ask, (1, 0)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, StoreUnavailable]
    assert await gathering.ask(3) == 3


async def test_several_that_belong_together_are_asked_in_one_piece_and_each_has_its_outcome() -> None:
    async def work(items: Sequence[int]) -> Sequence[int | Exception]:
        return [ValueError(item) if item < 0 else item * 2 for item in items]

    gathering: Gathering[int, int] = Gathering(work, 4)
    alone, together, none = await asyncio.gather(gathering.ask(5), gathering.ask_all((1, -2, 3)), gathering.ask_all(()))
    assert (alone, together[0], str(together[1]), together[2], none) == (10, 2, "-2", 6, ())
    assert len(await gathering.ask_all(range(5))) == 5, "they get in where one would"
    waiting = asyncio.create_task(gathering.ask_all(range(5)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await gathering.ask_all((1, 2))
    await waiting


async def test_one_who_goes_takes_nothing_from_the_others(store: MemoryStore) -> None:
    await store.put("/a", b"1")
    reading = lookups(store)
    gone, stays = (asyncio.create_task(reading.ask((Get("/a"),))) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    ((found,),) = await stays
    assert found.value == b"1"


async def test_a_request_too_large_to_be_stored_spoils_nothing_for_those_beside_it(store: MemoryStore) -> None:
    accepting = acceptance(store)
    small, large = await asyncio.gather(
        accepting.ask(ask("a")), accepting.ask(ask("b", "x" * 600_000)), return_exceptions=True
    )
    assert not isinstance(small, BaseException)
    assert small.created
    assert isinstance(large, InvalidRequest)


async def test_more_keys_than_one_transaction_reads_are_still_found(store: MemoryStore) -> None:
    for n in range(200):
        await store.put(f"/k/{n}", str(n).encode())
    reading = lookups(store)
    found = await asyncio.gather(*(reading.ask((Get(f"/k/{n}"), Get("/k/0"), Get("/none"))) for n in range(200)))
    assert [one[0][0].value for one in found] == [str(n).encode() for n in range(200)]
    assert all(one[1][0].value == b"0" and one[2] == () for one in found)


@pytest.fixture
async def decisions(store: MemoryStore) -> AsyncIterator[Decisions]:
    """Told by the watch of caches."""
    made = Decisions(store)
    async with Caches(store, [POOL]) as caches:
        caches.overhear(REQUEST.prefix, made.hear)
        await caches.wait_synced()
        yield made


async def test_everybody_who_waits_gets_the_own_decision(store: MemoryStore, decisions: Decisions) -> None:
    asked = [(await accept(store, ask(f"r{n}"))).request for n in range(20)]
    waiting = [asyncio.create_task(decisions.wait(request, PATIENCE)) for request in asked]
    await asyncio.sleep(0)
    began = time.monotonic()
    await decide(store)
    outcomes = await asyncio.gather(*waiting)
    assert [outcome.id for outcome in outcomes] == [request.id for request in asked]
    assert {outcome.status.phase for outcome in outcomes} == {RequestPhase.DECIDED}
    assert time.monotonic() - began < 1, "nobody had to look"


async def test_a_decision_that_was_made_before_the_wait_began_is_not_missed(
    store: MemoryStore, decisions: Decisions
) -> None:
    early = (await accept(store, ask("early"))).request
    await decide(store)
    began = time.monotonic()
    assert (await decisions.wait(early, PATIENCE)).is_final
    assert time.monotonic() - began < 1, "it was remembered"


async def test_who_waits_in_vain_gets_the_request_as_it_stands(store: MemoryStore, decisions: Decisions) -> None:
    request = (await accept(store, ask("r"))).request
    assert (await decisions.wait(request, 0.02)).status.phase is RequestPhase.ACCEPTED
    assert (await decisions.wait(request, 0)).status.phase is RequestPhase.ACCEPTED
    assert not decisions._waiting


async def test_a_decision_that_nobody_overheard_is_found_by_a_look_of_ones_own(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lablet_gateway.decisions, "_LOOK_SECONDS", 0.01)
    request = (await accept(store, ask("r"))).request
    waiting = asyncio.create_task(Decisions(store).wait(request, PATIENCE))
    await asyncio.sleep(0.02)
    await decide(store)
    assert (await waiting).is_final


async def test_what_a_key_brought_before_it_expired_is_not_what_it_brings_now(store: MemoryStore) -> None:
    decisions = Decisions(store)
    request = (await accept(store, ask("r"))).request
    await decide(store)
    known = await store.get(REQUEST.key_of(request))
    assert known is not None
    decisions.hear(known)
    await store.delete(known.key)
    anew = (await accept(store, ask("r"))).request
    assert (await decisions.wait(anew, 0.05)).status.phase is RequestPhase.ACCEPTED
