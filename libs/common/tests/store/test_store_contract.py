"""What every store promises, held against the twin and against real servers."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from lablet_common.store import (
    Compacted,
    Compare,
    Conflict,
    Delete,
    EventType,
    Get,
    InvalidRequest,
    KeyValue,
    LeaseLost,
    MemoryStore,
    Operation,
    Put,
    Store,
    StoreUnavailable,
    Target,
    Transaction,
)

KIB = 1024


async def expect_compacted(call: Awaitable[object]) -> Compacted:
    with pytest.raises(Compacted) as raised:
        await call
    return raised.value


class TestReads:
    async def test_an_absent_key_is_none(self, store: Store) -> None:
        assert await store.get("/absent") is None

    async def test_a_key_carries_its_revisions_and_version(self, store: Store) -> None:
        first = await store.put("/k", b"one")
        second = await store.put("/k", b"two")
        assert second == first + 1
        assert await store.get("/k") == KeyValue("/k", b"two", second, first, version=2)

    async def test_an_old_revision_can_be_read(self, store: Store) -> None:
        first = await store.put("/k", b"one")
        await store.put("/k", b"two")
        old = await store.get("/k", revision=first)
        assert old is not None
        assert old.value == b"one"

    async def test_a_deleted_key_can_be_read_at_its_old_revision(self, store: Store) -> None:
        first = await store.put("/k", b"one")
        await store.delete("/k")
        assert await store.get("/k") is None
        assert await store.get("/k", revision=first) is not None

    async def test_a_revision_in_the_future_is_refused(self, store: Store) -> None:
        now = await store.put("/k", b"one")
        with pytest.raises(InvalidRequest):
            await store.get("/k", revision=now + 1000)

    async def test_a_serializable_read_sees_what_is_there(self, store: Store) -> None:
        await store.put("/k", b"one")
        assert await store.get("/k", serializable=True) is not None
        assert len((await store.range("/", serializable=True)).items) == 1

    async def test_a_list_is_in_key_order_and_holds_only_its_prefix(self, store: Store) -> None:
        for key in ("/b/2", "/b/10", "/a/1", "/b", "/c", "/b/1"):
            await store.put(key, key.encode())
        page = await store.range("/b/")
        assert [kv.key for kv in page.items] == ["/b/1", "/b/10", "/b/2"]
        assert [kv.value for kv in page.items] == [b"/b/1", b"/b/10", b"/b/2"]
        assert (page.more, page.count) == (False, 3)

    async def test_an_empty_list_knows_its_revision(self, store: Store) -> None:
        revision = await store.put("/k", b"")
        page = await store.range("/nothing/")
        assert (page.items, page.revision) == ((), revision)

    async def test_pages_are_of_one_revision_whatever_is_written_between(self, store: Store) -> None:
        for i in range(7):
            await store.put(f"/p/{i}", b"old")
        first = await store.range("/p/", limit=3)
        assert (first.more, first.count) == (True, 7)
        await store.delete("/p/5")
        await store.put("/p/4", b"new")
        await store.put("/p/9", b"new")
        seen = list(first.items)
        page = first
        while page.more:
            page = await store.range("/p/", limit=3, start_after=seen[-1].key, revision=first.revision)
            assert page.revision == first.revision
            seen += page.items
        assert [(kv.key, kv.value) for kv in seen] == [(f"/p/{i}", b"old") for i in range(7)]

    async def test_a_list_of_keys_leaves_the_values_out(self, store: Store) -> None:
        revision = await store.put("/k", b"value")
        (only,) = (await store.range("/", keys_only=True)).items
        assert only == KeyValue("/k", b"", revision, revision)

    async def test_a_list_in_the_order_of_creation(self, store: Store) -> None:
        for key in ("/q/c", "/q/a", "/q/b"):
            await store.put(key, b"")
        await store.put("/q/c", b"changed later")
        page = await store.range("/q/", order_by_create=True, limit=2)
        assert [kv.key for kv in page.items] == ["/q/c", "/q/a"]
        assert page.more

    async def test_keys_without_a_slash_are_refused(self, store: Store) -> None:
        for call in (store.get("k"), store.range("k"), store.put("k", b""), store.delete("")):
            with pytest.raises(InvalidRequest):
                await call

    async def test_status_tells_revision_and_leader(self, store: Store) -> None:
        revision = await store.put("/k", b"")
        status = await store.status()
        assert status.revision == revision
        assert status.leader
        assert status.version


class TestWrites:
    async def test_delete_tells_how_many_there_were(self, store: Store) -> None:
        for key in ("/d/1", "/d/2", "/d", "/e"):
            await store.put(key, b"")
        assert await store.delete("/e") == 1
        assert await store.delete("/e") == 0
        assert await store.delete("/d/", prefix=True) == 2
        assert [kv.key for kv in (await store.range("/")).items] == ["/d"]

    async def test_a_key_made_again_begins_anew(self, store: Store) -> None:
        await store.put("/k", b"")
        await store.put("/k", b"")
        await store.delete("/k")
        again = await store.put("/k", b"")
        kv = await store.get("/k")
        assert kv is not None
        assert (kv.create_revision, kv.version) == (again, 1)

    async def test_a_value_of_the_largest_size_is_kept_and_a_larger_one_refused(self, store: Store) -> None:
        await store.put("/big", b"x" * 512 * KIB)
        kv = await store.get("/big")
        assert kv is not None
        assert len(kv.value) == 512 * KIB
        with pytest.raises(InvalidRequest, match="/bigger"):
            await store.put("/bigger", b"x" * (512 * KIB + 1))

    async def test_any_bytes_and_any_text_come_back_as_they_were(self, store: Store) -> None:
        value = bytes(range(256))
        await store.put("/ключ/€ x", value)
        kv = await store.get("/ключ/€ x")
        assert kv is not None
        assert (kv.key, kv.value) == ("/ключ/€ x", value)


class TestTransactions:
    async def test_all_of_a_branch_happens_at_one_revision(self, store: Store) -> None:
        await store.put("/gone", b"")
        done = await store.txn([], [Put("/a", b"1"), Put("/b", b"2"), Delete("/gone")])
        assert done.succeeded
        for key in ("/a", "/b"):
            kv = await store.get(key)
            assert kv is not None
            assert kv.mod_revision == done.revision
        assert await store.get("/gone") is None

    async def test_a_failed_comparison_runs_the_other_branch(self, store: Store) -> None:
        revision = await store.put("/k", b"one")
        stale = Compare("/k", Target.MOD, "=", revision - 1)
        done = await store.txn([stale], [Put("/k", b"two")], [Get("/k")])
        assert not done.succeeded
        assert done.revision == revision
        ((found,),) = done.reads
        assert found.value == b"one"

    async def test_reads_stand_in_order_and_see_what_was_written_before_them(self, store: Store) -> None:
        await store.put("/r/1", b"")
        done = await store.txn([], [Get("/r/2"), Put("/r/2", b""), Get("/r/", prefix=True), Get("/none")])
        assert [[kv.key for kv in read] for read in done.reads] == [[], ["/r/1", "/r/2"], []]

    @pytest.mark.parametrize(
        ("target", "operator", "offset", "holds"),
        [
            (Target.MOD, "=", 0, True),
            (Target.MOD, "!=", 0, False),
            (Target.MOD, "<", 1, True),
            (Target.MOD, ">", 0, False),
            (Target.MOD, ">", -1, True),
            (Target.CREATE, "=", -1, True),
            (Target.CREATE, "=", 0, False),
        ],
    )
    async def test_revisions_are_compared(
        self, store: Store, target: Target, operator: str, offset: int, holds: bool
    ) -> None:
        await store.put("/k", b"")
        revision = await store.put("/k", b"")
        done = await store.txn([Compare("/k", target, operator, revision + offset)], [])
        assert done.succeeded is holds

    @pytest.mark.parametrize(
        ("target", "operator", "operand", "holds"),
        [
            (Target.VERSION, "=", 1, True),
            (Target.VERSION, ">", 1, False),
            (Target.VALUE, "=", b"m", True),
            (Target.VALUE, "<", b"z", True),
            (Target.VALUE, ">", b"z", False),
            (Target.VALUE, "!=", b"m", False),
        ],
    )
    async def test_versions_and_values_are_compared(
        self, store: Store, target: Target, operator: str, operand: int | bytes, holds: bool
    ) -> None:
        await store.put("/k", b"m")
        assert (await store.txn([Compare("/k", target, operator, operand)], [])).succeeded is holds

    async def test_an_absent_key_has_revision_and_version_zero_and_no_value(self, store: Store) -> None:
        for target in (Target.MOD, Target.CREATE, Target.VERSION):
            assert (await store.txn([Compare("/absent", target, "=", 0)], [])).succeeded
        for operator in ("=", "!=", "<", ">"):
            assert not (await store.txn([Compare("/absent", Target.VALUE, operator, b"")], [])).succeeded

    async def test_128_operations_and_comparisons_are_taken_and_129_refused(self, store: Store) -> None:
        def puts(count: int) -> list[Operation]:
            return [Put(f"/n/{i}", b"") for i in range(count)]

        def absent(count: int) -> list[Compare]:
            return [Compare(f"/n/{i}", Target.MOD, "=", 0) for i in range(count)]

        with pytest.raises(InvalidRequest, match="129 operations"):
            await store.txn([], puts(129))
        with pytest.raises(InvalidRequest, match="129 comparisons"):
            await store.txn(absent(129), [])
        assert (await store.txn(absent(128), puts(128))).succeeded
        assert (await store.range("/n/")).count == 128

    @pytest.mark.parametrize(
        "branch",
        [
            [Put("/k", b"1"), Put("/k", b"2")],
            [Put("/k", b"1"), Delete("/k")],
            [Delete("/", prefix=True), Put("/k", b"1")],
        ],
    )
    async def test_writing_a_key_twice_is_refused_in_either_branch(self, store: Store, branch: list[Operation]) -> None:
        with pytest.raises(InvalidRequest, match="/k"):
            await store.txn([], branch)
        with pytest.raises(InvalidRequest, match="/k"):
            await store.txn([], [], branch)
        assert await store.get("/k") is None

    async def test_a_transaction_too_large_for_etcd_is_refused_whole(self, store: Store) -> None:
        with pytest.raises(InvalidRequest):
            await store.txn([], [Put(f"/k/{i}", b"x" * 500 * KIB) for i in range(4)])
        assert (await store.range("/k/")).count == 0

    async def test_of_eight_writers_exactly_one_wins_each_of_200_rounds(self, store: Store) -> None:
        await store.put("/round", b"0")
        wins = dict.fromkeys(range(8), 0)
        for _ in range(200):
            before = await store.get("/round")
            assert before is not None
            revision = before.mod_revision

            async def write(writer: int, revision: int = revision) -> bool:
                txn = Transaction().require("/round", mod_revision=revision).put("/round", b"%d" % writer)
                try:
                    await txn.commit(store)
                except Conflict:
                    return False
                return True

            results = await asyncio.gather(*map(write, wins))
            assert results.count(True) == 1
            wins[results.index(True)] += 1
            after = await store.get("/round")
            assert after is not None
            assert after.value == b"%d" % results.index(True)
        assert sum(wins.values()) == 200

    async def test_of_eight_claimers_each_job_goes_to_exactly_one_and_none_is_lost(self, store: Store) -> None:
        for start in range(0, 200, 100):
            await store.txn([], [Put(f"/jobs/{i:03}", b"") for i in range(start, start + 100)])
        handed_out: list[str] = []

        async def claim_all(claimer: int) -> None:
            order = random.Random(claimer)
            while jobs := list((await store.range("/jobs/", limit=50)).items):
                order.shuffle(jobs)
                for job in jobs[:10]:
                    claim = Transaction().require(job.key, mod_revision=job.mod_revision).delete(job.key)
                    claim.put(f"/taken{job.key}", b"%d" % claimer)
                    try:
                        await claim.commit(store)
                    except Conflict:
                        continue
                    handed_out.append(job.key)

        await asyncio.gather(*map(claim_all, range(8)))
        assert sorted(handed_out) == [f"/jobs/{i:03}" for i in range(200)]
        assert (await store.range("/taken/jobs/", keys_only=True)).count == 200


class TestWatches:
    async def test_a_watch_from_now_sees_all_that_comes_after_it_was_entered(self, store: Store, take) -> None:
        await store.put("/w/before", b"")
        async with store.watch("/w/") as batches:
            await store.put("/w/a", b"1")
            await store.put("/elsewhere", b"")
            await store.delete("/w/a")
            put, delete = await take(batches, 2)
        assert (put.type, put.kv.key, put.kv.value) == (EventType.PUT, "/w/a", b"1")
        assert (delete.type, delete.kv.key, delete.kv.value) == (EventType.DELETE, "/w/a", b"")
        assert delete.kv.mod_revision == put.kv.mod_revision + 2
        assert put.previous is None
        assert delete.previous is None

    async def test_a_watch_from_a_list_on_misses_nothing(self, store: Store, take) -> None:
        await store.put("/w/1", b"")
        page = await store.range("/w/")
        await store.put("/w/2", b"")
        async with store.watch("/w/", start_revision=page.revision + 1) as batches:
            await store.put("/w/3", b"")
            events = await take(batches, 2)
        assert [event.kv.key for event in events] == ["/w/2", "/w/3"]

    async def test_a_watch_begins_at_the_named_revision_itself(self, store: Store, take) -> None:
        await store.put("/w", b"1")
        second = await store.put("/w", b"2")
        async with store.watch("/w", start_revision=second) as batches:
            (event,) = await take(batches, 1)
        assert event.kv.value == b"2"

    async def test_a_watch_from_a_future_revision_leaves_out_what_comes_before(self, store: Store, take) -> None:
        now = await store.put("/w", b"0")
        async with store.watch("/w", start_revision=now + 3) as batches:
            for value in (b"1", b"2", b"3"):
                await store.put("/w", value)
            (event,) = await take(batches, 1)
        assert event.kv.value == b"3"

    async def test_previous_values_come_along_when_asked_for(self, store: Store, take) -> None:
        await store.put("/w", b"1")
        async with store.watch("/w", previous=True) as batches:
            await store.put("/w", b"2")
            await store.delete("/w")
            await store.put("/w", b"3")
            events = await take(batches, 3)
        assert [event.previous and event.previous.value for event in events] == [b"1", b"2", None]

    async def test_a_revision_is_delivered_whole_and_in_the_order_of_the_transaction(self, store: Store) -> None:
        keys = [f"/w/{i}" for i in (5, 3, 9, 1)]
        async with store.watch("/w/") as batches:
            for _ in range(20):
                await store.txn([], [Put(key, b"") for key in keys])
            seen: dict[int, list[str]] = {}
            async with asyncio.timeout(10):
                while len(seen) < 20:
                    batch = await anext(batches)
                    for event in batch.events:
                        seen.setdefault(event.kv.mod_revision, []).append(event.kv.key)
                    if batch.events:
                        assert batch.revision == batch.events[-1].kv.mod_revision
                        assert seen[batch.revision] == keys
        assert list(seen) == sorted(seen)
        assert all(changed == keys for changed in seen.values())

    async def test_several_watches_see_the_same_changes(self, store: Store, take) -> None:
        async with store.watch("/w/") as one, store.watch("/w/") as two, store.watch("/w/2") as three:
            await store.put("/w/1", b"")
            await store.put("/w/2", b"")
            assert await take(one, 2) == await take(two, 2)
            assert [event.kv.key for event in await take(three, 1)] == ["/w/2"]

    async def test_a_compaction_while_the_watcher_is_away_is_said_and_not_slept_through(self, store: Store) -> None:
        first = await store.put("/w", b"1")
        for _ in range(5):
            last = await store.put("/w", b"2")
        await store.compact(last)

        async def watch() -> None:
            async with store.watch("/w", start_revision=first) as batches:
                async for _ in batches:
                    pass

        async with asyncio.timeout(10):
            compacted = await expect_compacted(watch())
        assert compacted.compact_revision == last

    async def test_a_watch_from_the_revision_that_was_compacted_to_is_refused_and_from_the_next_one_is_whole(
        self, store: Store, take
    ) -> None:
        """etcd would let it begin there, without the deletions of that revision and without what stood before its puts."""
        await store.put("/w/gone", b"1")
        await store.put("/w/kept", b"1")
        await store.delete("/w/gone")
        oldest = (await store.range("/w/")).revision
        await store.put("/w/kept", b"2")
        await store.compact(oldest)

        async def watch() -> None:
            async with store.watch("/w/", start_revision=oldest, previous=True) as batches:
                async for _ in batches:
                    pass

        async with asyncio.timeout(10):
            compacted = await expect_compacted(watch())
        assert compacted.compact_revision == oldest
        async with store.watch("/w/", start_revision=oldest + 1, previous=True) as batches:
            (event,) = await take(batches, 1)
        assert (event.kv.value, event.previous.value) == (b"2", b"1")

    async def test_a_slow_reader_gets_what_stood_before_each_change_or_is_told_that_it_is_gone(
        self, store: Store
    ) -> None:
        """etcd would leave it out without a word: a deletion tells of nothing then, and a change looks like a beginning."""
        begin = await store.put("/w/slow", b"0")
        lacking = 0
        async with store.watch("/w/", start_revision=begin + 1, previous=True) as batches:
            last = await store.put("/w/slow", b"1")
            await anext(batches)
            for _ in range(40):  # more than what travels unread
                last = await store.put("/w/slow", bytes(400_000))
            await store.compact(last)
            try:
                async with asyncio.timeout(20):
                    while (batch := await anext(batches)).revision < last:
                        lacking += sum(event.previous is None for event in batch.events)
            except Compacted:
                assert not isinstance(store, MemoryStore), "its changes come with what stood before"
            else:
                assert isinstance(store, MemoryStore)
        assert not lacking

    async def test_a_watch_that_is_up_to_date_survives_a_compaction(self, store: Store, take) -> None:
        async with store.watch("/w") as batches:
            revision = await store.put("/w", b"1")
            await take(batches, 1)
            await store.compact(revision)
            await store.put("/w", b"2")
            (event,) = await take(batches, 1)
        assert event.kv.value == b"2"

    async def test_a_notice_of_progress_tells_how_far_an_idle_watch_has_come(self, store: Store) -> None:
        async with store.watch("/idle/") as batches:
            revision = await store.put("/busy", b"")
            if isinstance(store, MemoryStore):
                store.notify_progress()
            async with asyncio.timeout(10):
                while (batch := await anext(batches)).revision < revision:
                    assert not batch.events
        assert not batch.events

    async def test_closing_the_store_ends_its_watches(self, store: Store) -> None:
        async with store.watch("/w") as batches:

            async def read_on() -> None:
                async for _ in batches:
                    pass

            reading = asyncio.create_task(read_on())
            await asyncio.sleep(0)
            await store.close()
            async with asyncio.timeout(10):
                with pytest.raises(StoreUnavailable):
                    await reading


Expire = Callable[[Store, int], Awaitable[None]]


@pytest.fixture
def run_out() -> Expire:
    """Lets a lease run out: the twin at once, a real etcd in its own time."""

    async def expire(store: Store, lease: int) -> None:
        if isinstance(store, MemoryStore):
            store.expire(lease)
            return
        async with asyncio.timeout(10):
            while True:
                try:
                    await store.put("/probe-of-the-lease", b"", lease=lease)
                except LeaseLost:
                    return
                await asyncio.sleep(0.1)

    return expire


class TestLeases:
    async def test_keys_go_with_their_lease_and_watches_see_it(self, store: Store, take, run_out: Expire) -> None:
        lease = await store.lease_grant(1)
        await store.put("/l/1", b"", lease=lease)
        kept = await store.put("/l/kept", b"")
        async with store.watch("/l/", previous=True) as batches:
            await run_out(store, lease)
            (gone,) = await take(batches, 1)
        assert (gone.type, gone.kv.key) == (EventType.DELETE, "/l/1")
        assert gone.previous is not None
        assert gone.previous.lease == lease
        assert [kv.mod_revision for kv in (await store.range("/l/")).items] == [kept]

    async def test_a_lease_that_is_gone_says_so(self, store: Store) -> None:
        lease = await store.lease_grant(60)
        await store.put("/l", b"", lease=lease)
        await store.lease_revoke(lease)
        assert await store.get("/l") is None
        with pytest.raises(LeaseLost):
            await store.lease_keep_alive(lease)
        with pytest.raises(LeaseLost):
            await store.put("/l", b"", lease=lease)
        with pytest.raises(LeaseLost):
            await store.txn([], [Put("/other", b""), Put("/l", b"", lease)])
        assert await store.get("/other") is None
        await store.lease_revoke(lease)

    async def test_keep_alive_tells_the_seconds_left(self, store: Store) -> None:
        lease = await store.lease_grant(60)
        assert await store.lease_keep_alive(lease) == 60

    async def test_a_key_put_again_without_its_lease_outlives_it(self, store: Store) -> None:
        lease = await store.lease_grant(60)
        await store.put("/l", b"", lease=lease)
        await store.put("/l", b"")
        await store.lease_revoke(lease)
        kv = await store.get("/l")
        assert kv is not None
        assert kv.lease == 0

    async def test_a_key_moved_to_another_lease_goes_with_that_one(self, store: Store) -> None:
        first, second = await store.lease_grant(60), await store.lease_grant(60)
        await store.put("/l", b"", lease=first)
        await store.put("/l", b"", lease=second)
        await store.lease_revoke(first)
        assert await store.get("/l") is not None
        await store.lease_revoke(second)
        assert await store.get("/l") is None

    async def test_a_lease_of_no_time_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidRequest):
            await store.lease_grant(0)


class TestCompaction:
    async def test_old_revisions_are_forgotten_and_the_newest_state_stays(self, store: Store) -> None:
        first = await store.put("/k", b"1")
        second = await store.put("/k", b"2")
        await store.put("/k", b"3")
        await store.compact(second)
        assert (await expect_compacted(store.get("/k", revision=first))).compact_revision == second
        await expect_compacted(store.range("/", revision=first))
        at_second = await store.get("/k", revision=second)
        assert at_second is not None
        assert at_second.value == b"2"

    async def test_compacting_again_is_said(self, store: Store) -> None:
        await store.put("/k", b"1")
        second = await store.put("/k", b"2")
        await store.compact(second)
        assert (await expect_compacted(store.compact(second - 1))).compact_revision == second
        await expect_compacted(store.compact(second))

    async def test_the_future_cannot_be_compacted(self, store: Store) -> None:
        now = await store.put("/k", b"1")
        with pytest.raises(InvalidRequest):
            await store.compact(now + 1000)
