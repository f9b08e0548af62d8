"""An accepted intent is never lost, never done twice, and always answered."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.acceptance import accept_all
from lablet_common.ownership import Fence
from lablet_common.requests import (
    MOST_BYTES,
    Inbox,
    KeyReused,
    accept,
    decide_in,
    digest_of,
    hand_on_in,
    new_ids,
    refuse_in,
    request_key,
)
from lablet_common.resources import Problem, Request, WorkerTemplate
from lablet_common.resources.kinds import POOL, REQUEST, RESERVATION, inbox_prefix
from lablet_common.resources.request import RequestPhase
from lablet_common.store import (
    Conflict,
    InvalidRequest,
    MemoryStore,
    OutcomeUnknown,
    Store,
    StoreUnavailable,
    Transaction,
)
from lablet_common.store.changes import create_in, encode
from lablet_common.store.repository import Repository

AT = datetime(2027, 3, 1, 7, 5, tzinfo=UTC)
BY = "/lablet/scheduler"
DECIDED = {"at": AT, "by": BY, "reason": "Placed"}
Make = Callable[..., Request]


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return Inbox(store, "scheduler", "default")


def test_the_same_caller_route_and_key_give_the_same_ids() -> None:
    key = request_key("acme", "ann", "POST /reservations", "k1")
    assert key == request_key("acme", "ann", "POST /reservations", "k1")
    request_id, resource_id = new_ids(RESERVATION, key)
    assert request_id.startswith("req-")
    assert resource_id == request_id.replace("req-", "rsv-")
    assert len(request_id) == len("req-") + 26
    assert request_id == request_id.lower()
    assert new_ids(POOL, key)[1].startswith("pool-")


def test_another_tenant_caller_route_or_key_gives_other_ids() -> None:
    parts = ("acme", "ann", "POST /reservations", "k1")
    keys = {request_key(*parts)} | {request_key(*parts[:n], parts[n] + "x", *parts[n + 1 :]) for n in range(4)}
    keys.add(request_key("acm", "eann", *parts[2:]))
    assert len(keys) == 6


def test_the_digest_does_not_depend_on_the_order_of_fields() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


async def test_accepting_leaves_the_request_and_its_pointer(store: Store, inbox: Inbox, make_request: Make) -> None:
    accepted = await accept(store, make_request("k"))
    assert accepted.created
    (waiting,) = await inbox.pending()
    assert waiting.request == accepted.request
    assert await inbox.depth() == 1


def of_size(request: Request, size: int) -> Request:
    """Stored, it has so many bytes."""
    filled = request.respecified(data={"labels": ""})
    return request.respecified(data={"labels": "x" * (size - len(encode(filled)))})


async def test_the_largest_request_that_is_accepted_can_be_closed_with_the_largest_answer(
    store: Store, inbox: Inbox, make_request: Make
) -> None:
    """One that could not would be looked at again and again, and nobody behind it would be decided."""
    await accept(store, of_size(make_request("k"), MOST_BYTES))
    (waiting,) = await inbox.pending()
    txn = Transaction()
    decide_in(txn, waiting, **DECIDED, answer={"simulated": "x" * 128 * 1024})
    await txn.commit(store)
    assert await inbox.depth() == 0


@pytest.mark.parametrize("together", [False, True])
async def test_a_larger_request_is_not_accepted(store: Store, inbox: Inbox, make_request: Make, together: bool) -> None:
    large = of_size(make_request("k"), MOST_BYTES + 1)
    with pytest.raises(InvalidRequest, match=r"the request has 327,681 bytes; the most is 327,680"):
        await (accept_all(store, [large]) if together else accept(store, large))
    assert await inbox.depth() == 0


async def test_the_same_key_and_body_give_the_stored_request(store: Store, inbox: Inbox, make_request: Make) -> None:
    first = await accept(store, make_request("k"))
    again = await accept(store, make_request("k"))
    assert not again.created
    assert again.request == first.request
    assert await inbox.depth() == 1


async def test_the_same_key_after_the_decision_gives_the_outcome_and_no_new_work(
    store: Store, inbox: Inbox, make_request: Make
) -> None:
    await accept(store, make_request("k"))
    txn = Transaction()
    decide_in(txn, (await inbox.pending())[0], **DECIDED)
    await txn.commit(store)
    again = await accept(store, make_request("k"))
    assert again.request.status.phase is RequestPhase.DECIDED
    assert await inbox.pending() == []


async def test_the_same_key_with_another_body_is_refused(store: Store, inbox: Inbox, make_request: Make) -> None:
    first = await accept(store, make_request("k", reason="rain"))
    with pytest.raises(KeyReused) as refused:
        await accept(store, make_request("k", reason="snow"))
    assert refused.value.request == first.request
    assert (await inbox.pending())[0].request.spec.data == {"reason": "rain"}


async def test_many_retries_at_once_make_one_request(open_client: Callable[[], Store], make_request: Make) -> None:
    clients = [open_client() for _ in range(4)]
    answers = await asyncio.gather(*(accept(clients[n % 4], make_request("k")) for n in range(20)))
    assert sum(answer.created for answer in answers) == 1
    assert await Inbox(clients[0], "scheduler", "default").depth() == 1


async def test_an_acceptance_whose_answer_got_lost_is_not_accepted_twice(
    memory: MemoryStore, make_request: Make
) -> None:
    memory.lose_answer = True
    accepted = await accept(memory, make_request("k"))
    assert accepted.created
    assert await Inbox(memory, "scheduler", "default").depth() == 1


async def test_nothing_is_accepted_while_etcd_is_away(memory: MemoryStore, make_request: Make) -> None:
    memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await accept(memory, make_request("k"))
    memory.unavailable = False
    assert await Inbox(memory, "scheduler", "default").depth() == 0


async def test_the_longest_waiting_comes_first(store: Store, inbox: Inbox, make_request: Make) -> None:
    made = [(await accept(store, make_request(f"k{n}"))).request.id for n in range(12)]
    assert made != sorted(made)
    assert [u.id for u in await inbox.pending()] == made
    assert [u.id for u in await inbox.pending(limit=5)] == made[:5]


async def test_more_than_one_transaction_of_requests_can_wait(store: Store, inbox: Inbox, make_request: Make) -> None:
    made = [(await accept(store, make_request(f"k{n}"))).request.id for n in range(150)]
    assert [u.id for u in await inbox.pending(limit=150)] == made


async def test_a_decision_writes_outcome_and_resource_together(
    store: Store, inbox: Inbox, make_request: Make, make_template: Callable[..., WorkerTemplate]
) -> None:
    accepted = await accept(store, make_request("k"))
    (waiting,) = await inbox.pending()
    template = make_template("made")
    txn = Transaction()
    create_in(txn, template)
    decide_in(txn, waiting, resource=template, **DECIDED)
    await txn.commit(store)
    outcome = await Repository(store, REQUEST).require(accepted.request.id, "acme")
    assert outcome.status.phase is RequestPhase.DECIDED
    assert outcome.status.resource == "template/made"
    assert outcome.status.resource_phase == "Active"
    assert outcome.status.decided_at == AT
    assert outcome.status.history[-1].by == BY
    assert outcome.status.last_fact is not None
    assert outcome.status.last_fact.name == "decided"
    assert await inbox.pending() == []


async def test_a_refusal_carries_its_problem(store: Store, inbox: Inbox, make_request: Make) -> None:
    accepted = await accept(store, make_request("k"))
    (waiting,) = await inbox.pending()
    problem = Problem(
        type="https://lablet.io/problems/no-room", title="No room", status=409, detail="pool default is full"
    )
    txn = Transaction()
    refuse_in(txn, waiting, at=AT, by=BY, problem=problem)
    await txn.commit(store)
    outcome = await Repository(store, REQUEST).require(accepted.request.id, "acme")
    assert outcome.status.phase is RequestPhase.REFUSED
    assert outcome.status.problem == problem
    assert await inbox.pending() == []


async def test_of_many_claimers_exactly_one_decides_each_request(
    open_client: Callable[[], Store], make_request: Make
) -> None:
    clients = [open_client() for _ in range(8)]
    made = {(await accept(clients[0], make_request(f"k{n}"))).request.id for n in range(60)}
    decided: list[str] = []

    async def claim(client: Store) -> None:
        own = Inbox(client, "scheduler", "default")
        while waiting := await own.pending(limit=10):
            for undecided in waiting:
                txn = Transaction()
                decide_in(txn, undecided, **DECIDED)
                try:
                    await txn.commit(client)
                except Conflict:
                    continue
                decided.append(undecided.id)

    await asyncio.gather(*(claim(client) for client in clients))
    assert sorted(decided) == sorted(made)


async def test_a_former_owner_cannot_decide(
    store: Store, inbox: Inbox, make_request: Make, make_fence: Callable[..., Any]
) -> None:
    await accept(store, make_request("k"))
    (waiting,) = await inbox.pending()
    old: Fence = await make_fence(store)
    await store.delete(old.key)
    new: Fence = await make_fence(store)
    txn = Transaction()
    decide_in(txn, waiting, **DECIDED)
    old.guard(txn)
    with pytest.raises(Conflict):
        await txn.commit(store)
    assert not await old.stands(store)
    assert await new.stands(store)
    assert await inbox.depth() == 1


@pytest.mark.parametrize("way", ["decide", "refuse", "hand on"])
async def test_without_its_pointer_nothing_can_be_decided(
    store: Store, inbox: Inbox, make_request: Make, way: str
) -> None:
    await accept(store, make_request("k"))
    (waiting,) = await inbox.pending()
    await store.delete(waiting.pointer.key)
    txn = Transaction()
    if way == "decide":
        decide_in(txn, waiting, **DECIDED)
    elif way == "refuse":
        refuse_in(txn, waiting, at=AT, by=BY, problem=Problem(type="about:blank", title="No", status=409))
    else:
        hand_on_in(txn, waiting, "scheduler", "spare")
    with pytest.raises(Conflict):
        await txn.commit(store)


async def test_a_cancel_of_an_undecided_request_decides_both(store: Store, inbox: Inbox, make_request: Make) -> None:
    for key in ("book", "cancel"):
        await accept(store, make_request(key))
    book, cancel = await inbox.pending()
    both = Transaction()
    decide_in(both, book, **DECIDED)
    decide_in(both, cancel, **DECIDED)
    await both.commit(store)
    late = Transaction()
    decide_in(late, book, **DECIDED)
    with pytest.raises(Conflict):
        await late.commit(store)


async def test_handing_on_leaves_exactly_one_owner_at_every_revision(store: Store, make_request: Make) -> None:
    shards = ["default", "spare", "last", "default"]
    accepted = await accept(store, make_request("k"))
    for here, there in itertools.pairwise(shards):
        (waiting,) = await Inbox(store, "scheduler", here).pending()
        txn = Transaction()
        hand_on_in(txn, waiting, "scheduler", there)
        await txn.commit(store)
    (waiting,) = await Inbox(store, "scheduler", "default").pending()
    txn = Transaction()
    closed = decide_in(txn, waiting, **DECIDED)
    end = (await txn.commit(store)).revision
    assert closed.spec.shard == "default"
    for revision in range(accepted.request.revision, end):
        pages = [await store.range(inbox_prefix("scheduler", shard), revision=revision) for shard in set(shards)]
        owners = [kv.key for page in pages for kv in page.items]
        assert len(owners) == 1
        request = await Repository[Request](store, REQUEST).require(accepted.request.id, "acme", revision)
        assert owners == [f"/inbox/scheduler/{request.spec.shard}/{request.id}"]
    assert (await store.range("/inbox/")).count == 0


async def test_two_owners_cannot_hand_on_the_same_request(store: Store, inbox: Inbox, make_request: Make) -> None:
    await accept(store, make_request("k"))
    (waiting,) = await inbox.pending()
    first, second = Transaction(), Transaction()
    hand_on_in(first, waiting, "scheduler", "a")
    hand_on_in(second, waiting, "scheduler", "b")
    await first.commit(store)
    with pytest.raises(Conflict):
        await second.commit(store)
    assert (await store.range("/inbox/")).count == 1


async def test_handing_on_to_oneself_is_a_mistake(memory: MemoryStore, make_request: Make) -> None:
    await accept(memory, make_request("k"))
    (waiting,) = await Inbox(memory, "scheduler", "default").pending()
    with pytest.raises(ValueError, match="already"):
        hand_on_in(Transaction(), waiting, "scheduler", "default")


async def test_a_decision_without_an_answer_is_found_done_when_looked_at_again(
    memory: MemoryStore, make_request: Make
) -> None:
    await accept(memory, make_request("k"))
    inbox = Inbox(memory, "scheduler", "default")
    (waiting,) = await inbox.pending()
    txn = Transaction()
    decide_in(txn, waiting, **DECIDED)
    memory.lose_answer = True
    with pytest.raises(OutcomeUnknown):
        await txn.commit(memory)
    assert await inbox.pending() == []
