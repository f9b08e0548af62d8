"""Transactions as values, and what can be told after an answer got lost."""

import pytest

from lablet_common.store import (
    Compare,
    Conflict,
    InvalidRequest,
    MemoryStore,
    OutcomeUnknown,
    Put,
    Store,
    Target,
    Transaction,
    settle,
)


class TestBuilding:
    def test_parts_of_several_authors_become_one(self) -> None:
        mine = Transaction().require("/a", mod_revision=7).put("/a", b"1")
        fence = Transaction().require_create_revision("/owner", 3).require("/a", mod_revision=7)
        whole = mine.merge(fence)
        assert whole.compares == (
            Compare("/a", Target.MOD, "=", 7),
            Compare("/owner", Target.CREATE, "=", 3),
        )
        assert whole.operations == (Put("/a", b"1"),)

    def test_the_same_write_twice_is_one_and_two_different_ones_are_refused(self) -> None:
        txn = Transaction().put("/a", b"1").put("/a", b"1")
        assert len(txn.operations) == 1
        with pytest.raises(InvalidRequest, match="/a"):
            txn.put("/a", b"2")
        with pytest.raises(InvalidRequest, match="/a"):
            txn.delete("/a")

    def test_two_states_of_one_key_cannot_both_be_required(self) -> None:
        with pytest.raises(InvalidRequest, match="/a"):
            Transaction().require_absent("/a").merge(Transaction().require("/a", mod_revision=3))

    def test_a_value_too_large_is_refused_when_it_is_put(self) -> None:
        with pytest.raises(InvalidRequest, match="/big"):
            Transaction().put("/big", b"x" * (512 * 1024 + 1))

    async def test_too_many_parts_are_refused_before_the_store_is_asked(self) -> None:
        store = MemoryStore()
        store.unavailable = True
        txn = Transaction()
        for i in range(129):
            txn.put(f"/{i}", b"")
        with pytest.raises(InvalidRequest, match="129 operations"):
            await txn.commit(store)


class TestCommitting:
    async def test_a_conflict_names_the_keys_compared_and_changes_nothing(self, store: Store) -> None:
        await store.put("/a", b"1")
        with pytest.raises(Conflict, match="/a") as conflict:
            await Transaction().require_absent("/a").put("/b", b"").commit(store)
        assert conflict.value.keys == ("/a",)
        assert await store.get("/b") is None

    async def test_a_fenced_write_of_an_old_owner_is_refused(self, store: Store) -> None:
        old = await store.put("/owner", b"one")
        await store.delete("/owner")
        new = await store.put("/owner", b"two")
        with pytest.raises(Conflict):
            await Transaction().require_create_revision("/owner", old).put("/work", b"old").commit(store)
        await Transaction().require_create_revision("/owner", new).put("/work", b"new").commit(store)
        kv = await store.get("/work")
        assert kv is not None
        assert kv.value == b"new"


class TestSettling:
    async def test_an_update_that_happened_is_known(self) -> None:
        store = MemoryStore()
        txn = Transaction().require("/a", mod_revision=await store.put("/a", b"1")).put("/a", b"2").put("/b", b"x")
        store.lose_answer = True
        with pytest.raises(OutcomeUnknown):
            await txn.commit(store)
        assert await settle(store, txn) is True

    async def test_an_update_that_did_not_happen_is_known(self, store: Store) -> None:
        txn = Transaction().require("/a", mod_revision=await store.put("/a", b"1")).put("/a", b"2")
        assert await settle(store, txn) is False

    async def test_writing_the_value_that_was_there_already_is_not_taken_for_done(self, store: Store) -> None:
        txn = Transaction().require("/a", mod_revision=await store.put("/a", b"same")).put("/a", b"same")
        assert await settle(store, txn) is False
        await txn.commit(store)
        assert await settle(store, txn) is True

    async def test_a_creation_is_known_either_way(self, store: Store) -> None:
        txn = Transaction().require_absent("/a").put("/a", b"mine")
        assert await settle(store, txn) is False
        await txn.commit(store)
        assert await settle(store, txn) is True

    async def test_a_claim_won_by_another_is_not_taken_for_ours(self, store: Store) -> None:
        job = await store.put("/job", b"")
        ours = Transaction().require("/job", mod_revision=job).delete("/job").put("/taken", b"us")
        theirs = Transaction().require("/job", mod_revision=job).delete("/job").put("/taken", b"them")
        await theirs.commit(store)
        assert await settle(store, ours) is None
        assert await settle(store, theirs) is True

    async def test_a_bare_deletion_cannot_be_told_from_another_ones(self, store: Store) -> None:
        txn = Transaction().require("/job", mod_revision=await store.put("/job", b"")).delete("/job")
        assert await settle(store, txn) is False
        await store.delete("/job")
        assert await settle(store, txn) is None

    async def test_a_write_without_comparison_cannot_be_told_once_another_has_written(self, store: Store) -> None:
        txn = Transaction().put("/a", b"1")
        await store.put("/a", b"2")
        assert await settle(store, txn) is None

    async def test_more_keys_than_one_transaction_reads_are_looked_at_together(self, store: Store) -> None:
        txn = Transaction()
        for i in range(100):
            txn.require_absent(f"/compared/{i}").put(f"/written/{i}", b"")
        assert await settle(store, txn) is None
        await txn.commit(store)
        assert await settle(store, txn) is True
