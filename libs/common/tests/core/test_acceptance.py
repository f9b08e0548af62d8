"""Requests that are accepted together have the outcomes they would have alone, and stay in their order."""

from collections.abc import Callable

import pytest

from lablet_common.acceptance import accept_all
from lablet_common.requests import Accepted, Inbox, KeyReused, accept
from lablet_common.resources import Request
from lablet_common.store import InvalidRequest, MemoryStore, Store, StoreUnavailable

Make = Callable[..., Request]


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return Inbox(store, "scheduler", "default")


async def test_all_are_stored_and_wait_in_the_order_in_which_they_were_given(
    store: Store, inbox: Inbox, make_request: Make
) -> None:
    requests = [make_request(f"k{n}") for n in range(150)]
    outcomes = await accept_all(store, requests)
    assert all(isinstance(outcome, Accepted) and outcome.created for outcome in outcomes)
    names = [request.id for request in requests]
    assert names != sorted(names)
    assert [undecided.id for undecided in await inbox.pending(limit=150)] == names


async def test_what_came_in_one_transaction_is_never_divided_by_a_limit(
    store: Store, inbox: Inbox, make_request: Make
) -> None:
    requests = [make_request(f"k{n}") for n in range(70)]
    await accept_all(store, requests)
    names = [request.id for request in requests]
    assert [undecided.id for undecided in await inbox.pending(limit=5)] == names[:60]


async def test_few_transactions_bring_many_requests(memory: MemoryStore, make_request: Make) -> None:
    before = (await memory.status()).revision
    await accept_all(memory, [make_request(f"k{n}") for n in range(120)])
    assert (await memory.status()).revision - before == 2


async def test_keys_that_were_used_before_spoil_nothing_for_the_others(
    store: Store, inbox: Inbox, make_request: Make
) -> None:
    known = await accept(store, make_request("b", reason="rain"))
    other = await accept(store, make_request("d", reason="rain"))
    asked = [make_request("a"), make_request("b", reason="rain"), make_request("c"), make_request("d", reason="snow")]
    a, b, c, d = await accept_all(store, asked)
    assert isinstance(a, Accepted)
    assert isinstance(c, Accepted)
    assert a.created
    assert c.created
    assert b == Accepted(known.request, created=False)
    assert isinstance(d, KeyReused)
    assert d.request == other.request
    assert await inbox.depth() == 4


async def test_the_same_key_twice_in_one_batch_is_one_request(store: Store, inbox: Inbox, make_request: Make) -> None:
    first, again, other = await accept_all(
        store, [make_request("k"), make_request("k"), make_request("k", reason="another")]
    )
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert (first.created, again.created) == (True, False)
    assert again.request == first.request
    assert isinstance(other, KeyReused)
    assert await inbox.depth() == 1


async def test_a_lost_answer_makes_nothing_twice(memory: MemoryStore, make_request: Make) -> None:
    memory.lose_answer = True
    outcomes = await accept_all(memory, [make_request("a"), make_request("b")])
    assert all(isinstance(outcome, Accepted) and outcome.created for outcome in outcomes)
    assert await Inbox(memory, "scheduler", "default").depth() == 2


async def test_while_etcd_is_away_nothing_is_said_to_be_accepted(memory: MemoryStore, make_request: Make) -> None:
    memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await accept_all(memory, [make_request("a"), make_request("b")])


async def test_what_cannot_be_stored_is_refused(memory: MemoryStore, make_request: Make) -> None:
    with pytest.raises(InvalidRequest):
        await accept_all(memory, [make_request("a", reason="x" * 600_000)])
