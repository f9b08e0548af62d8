"""Every shard has one owner: spread over the replicas, handed over without a gap, and never two that can write."""

import asyncio
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lablet_common import ownership
from lablet_common.ownership import Fence, Ownership, rightful_owner
from lablet_common.resources.kinds import IMPORTING_KEY, TEMPLATE
from lablet_common.resources.worker import WorkerTemplate
from lablet_common.store import Conflict, EtcdStore, MemoryStore, Store, StoreUnavailable, Transaction
from lablet_common.store.cache import Cache
from lablet_common.telemetry.metrics import REGISTRY
from lablet_common.testing.etcd import EtcdServer

SHARDS = [f"pool-{n}" for n in range(12)]
TTL = 2.0
Background = Callable[..., asyncio.Task[Any]]
Eventually = Callable[..., Any]


class Replica:
    """A service replica whose work is to be there; it notes every moment at which two replicas work on one shard."""

    def __init__(
        self, store: Store, name: str, at_work: Counter[str], shards: list[str] = SHARDS, ttl: float = TTL
    ) -> None:
        self.name = name
        self.at_work = at_work
        self.doubled: list[str] = []
        self.fences: list[Fence] = []
        self.stopped_at = 0.0
        self.ownership = Ownership(store, "scheduler", name, ttl_seconds=ttl, shards=lambda: list(shards))

    async def run(self) -> None:
        await self.ownership.run(self.serve)

    async def serve(self, shard: str, fence: Fence) -> None:
        self.fences.append(fence)
        self.at_work[shard] += 1
        if self.at_work[shard] > 1:
            self.doubled.append(shard)
        try:
            await asyncio.Event().wait()
        finally:
            self.at_work[shard] -= 1
            self.stopped_at = time.monotonic()

    @property
    def owned(self) -> set[str]:
        return set(self.ownership.owned)


def one_owner_each(replicas: Iterable[Replica], shards: list[str] = SHARDS) -> bool:
    owned = Counter(shard for replica in replicas for shard in replica.owned)
    return owned == Counter(shards)


async def owner_keys(store: Store, count: int) -> bool:
    return (await store.range("/ownership/scheduler/")).count == count


def test_a_replica_that_goes_moves_only_its_own_shards() -> None:
    members = ["a", "b", "c", "d"]
    before = {shard: rightful_owner(shard, members) for shard in map(str, range(2000))}
    after = {shard: rightful_owner(shard, members[:3]) for shard in before}
    assert all(after[shard] == owner for shard, owner in before.items() if owner != "d")
    shares = Counter(before.values())
    assert min(shares.values()) > 400
    assert rightful_owner("x", []) is None


async def test_shards_are_spread_and_handed_over_without_two_at_work(
    open_client: Callable[[], Store], background: Background, eventually: Eventually
) -> None:
    at_work: Counter[str] = Counter()
    one = Replica(open_client(), "one", at_work)
    background(one.run())
    await eventually(lambda: one_owner_each([one]) and len(one.fences) == len(SHARDS))
    fences = {fence.key: fence.create_revision for fence in one.fences}

    two = Replica(open_client(), "two", at_work)
    joined = time.monotonic()
    second = background(two.run())
    await eventually(lambda: two.owned and one_owner_each([one, two]))
    assert time.monotonic() - joined < 1
    assert all(fence.create_revision > fences[fence.key] for fence in two.fences)

    left = time.monotonic()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await eventually(lambda: one_owner_each([one]))
    assert time.monotonic() - left < 1
    assert one.doubled == two.doubled == []


async def test_after_a_crash_the_other_replica_takes_over_within_ttl_and_two_seconds(
    open_client: Callable[[], Store], tamper: Callable[[Store], Any], background: Background, eventually: Eventually
) -> None:
    at_work: Counter[str] = Counter()
    dying_store = tamper(open_client())
    dying, heir = Replica(dying_store, "dying", at_work), Replica(open_client(), "heir", at_work)
    background(dying.run())
    background(heir.run())
    await eventually(lambda: dying.owned and heir.owned and one_owner_each([dying, heir]))
    cut = time.monotonic()
    dying_store.fault = StoreUnavailable("the cable was cut")
    await eventually(lambda: len(heir.owned) == len(SHARDS), TTL + 2)
    took = time.monotonic() - cut
    assert took < TTL + 2
    assert not dying.owned
    assert dying.stopped_at < cut + TTL, "the cut-off owner works on after its lease has ended"
    assert dying.doubled == heir.doubled == []


async def test_nobody_owns_anything_while_an_import_has_not_been_finished(
    memory: MemoryStore, background: Background, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what there was is there: whoever decided from it would give away what is taken."""
    looks = 0
    taken = memory.get

    async def counted(key: str, **how: Any) -> Any:
        nonlocal looks
        looks += key == IMPORTING_KEY
        return await taken(key, **how)

    monkeypatch.setattr(memory, "get", counted)
    monkeypatch.setattr(ownership, "_IMPORT_SECONDS", 0.01)
    await memory.put(IMPORTING_KEY, b"{}")
    replica = Replica(memory, "one", Counter(), ["a"])
    background(replica.run())
    await eventually(lambda: looks > 3)
    assert not (await memory.range("/ownership/")).items
    assert not (await memory.range("/members/")).items
    await memory.delete(IMPORTING_KEY)
    await eventually(lambda: replica.owned)


async def test_an_owner_whose_loop_was_blocked_stops_and_begins_anew(
    memory: MemoryStore, background: Background, eventually: Eventually
) -> None:
    replica = Replica(memory, "one", Counter(), ["a"], ttl=0.6)
    background(replica.run())
    await eventually(lambda: replica.owned)
    time.sleep(0.8)  # a computation that never lets the loop run
    await eventually(lambda: len(replica.fences) == 2)
    assert replica.fences[1].create_revision > replica.fences[0].create_revision
    assert not await replica.fences[0].stands(memory)


async def test_a_paused_process_writes_nothing_after_its_lease(
    etcd: EtcdServer, background: Background, eventually: Eventually
) -> None:
    """The owner is a process of its own; it is stopped past its lease, somebody else takes over, it is resumed."""
    prefix = f"/paused-{time.time_ns()}"
    program = textwrap.dedent(f"""
        import asyncio
        from lablet_common.ownership import Ownership
        from lablet_common.store import Conflict, EtcdStore, Transaction

        async def main():
            store = EtcdStore(["{etcd.endpoint}"], prefix="{prefix}")
            async def write_for_ever(fence):
                while True:
                    txn = Transaction().put("/work", b"old")
                    fence.guard(txn)
                    try:
                        await txn.commit(store)
                        print("wrote", flush=True)
                    except Conflict:
                        print("refused", flush=True)

            stubborn = []

            async def serve(shard, fence):
                stubborn.append(asyncio.create_task(write_for_ever(fence)))  # which no cancellation will reach
                await asyncio.Event().wait()

            await Ownership(store, "scheduler", "old", ttl_seconds={TTL}, shards=lambda: ["a"]).run(serve)

        asyncio.run(main())
    """)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    store = EtcdStore([etcd.endpoint], prefix=prefix)
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"wrote\n"
        process.send_signal(19)  # SIGSTOP
        new = Replica(store, "new", Counter(), ["a"])
        background(new.run())
        # The new one is not rightful for the shard while the old one is a member: it is when the lease has run out.
        await eventually(lambda: new.fences, TTL + 3)
        txn = Transaction().put("/work", b"new")
        new.fences[0].guard(txn)
        written_at = (await txn.commit(store)).revision
        process.send_signal(18)  # SIGCONT
        said = b"wrote\n"
        while said == b"wrote\n":  # printed before the pause
            said = await asyncio.wait_for(process.stdout.readline(), 10)
        assert said == b"refused\n"
        found = await store.get("/work")
        assert found is not None
        assert (found.value, found.mod_revision) == (b"new", written_at)
    finally:
        process.kill()
        await process.wait()
        await store.close()


async def test_new_shards_are_taken_and_vanished_ones_given_up(
    store: Store, background: Background, eventually: Eventually
) -> None:
    shards = ["a"]
    replica = Replica(store, "one", Counter(), shards)
    background(replica.run())
    await eventually(lambda: replica.owned == {"a"})
    shards[:] = ["b", "c"]
    replica.ownership.refresh()
    await eventually(lambda: replica.owned == {"b", "c"})
    await eventually(lambda: owner_keys(store, 2))


async def test_a_shard_that_is_gone_leaves_no_series_behind(
    store: Store, background: Background, eventually: Eventually
) -> None:
    def shown(shard: str) -> float | None:
        return REGISTRY.get_sample_value("lablet_is_owner", {"service": "scheduler", "shard": shard})

    shards = ["pool-stays", "pool-goes"]
    replica = Replica(store, "a", Counter(), shards)
    background(replica.run())
    await eventually(lambda: shown("pool-goes") == 1)
    shards.remove("pool-goes")
    replica.ownership.refresh()
    await eventually(lambda: shown("pool-goes") is None)
    assert shown("pool-stays") == 1


async def test_a_shard_that_another_owns_is_shown_as_not_owned_here(
    store: Store, background: Background, eventually: Eventually
) -> None:
    """So that a shard is missed where nobody owns it, and not where it was deleted."""
    await store.put("/ownership/scheduler/elsewhere", b"b")
    background(Replica(store, "a", Counter(), ["elsewhere", "here"]).run())

    def shown(shard: str) -> float | None:
        return REGISTRY.get_sample_value("lablet_is_owner", {"service": "scheduler", "shard": shard})

    await eventually(lambda: (shown("elsewhere"), shown("here")) == (0, 1))


async def test_an_ownership_key_deleted_by_hand_ends_the_work_and_is_taken_anew(
    store: Store, background: Background, eventually: Eventually
) -> None:
    replica = Replica(store, "one", Counter(), ["a"])
    background(replica.run())
    await eventually(lambda: replica.owned)
    await store.delete("/ownership/scheduler/a")
    await eventually(lambda: len(replica.fences) == 2 and replica.owned)
    assert await replica.fences[1].stands(store)
    assert replica.doubled == []


async def test_a_take_without_an_answer_is_sorted_out(
    memory: MemoryStore, background: Background, eventually: Eventually
) -> None:
    shards = ["first"]
    replica = Replica(memory, "one", Counter(), shards)
    background(replica.run())
    await eventually(lambda: replica.owned)
    shards.append("a")
    memory.lose_answer = True
    replica.ownership.refresh()
    await eventually(lambda: replica.owned == {"first", "a"})
    assert not memory.lose_answer
    assert await replica.fences[-1].stands(memory)


async def test_work_that_fails_by_the_store_is_begun_anew_with_a_new_fence(
    store: Store, background: Background, eventually: Eventually
) -> None:
    fences: list[Fence] = []

    async def serve(_: str, fence: Fence) -> None:
        fences.append(fence)
        if len(fences) == 1:
            raise ExceptionGroup("parts", [StoreUnavailable("away"), Conflict(["/x"], 3)])
        if len(fences) == 2:
            return
        await asyncio.Event().wait()

    background(Ownership(store, "scheduler", "one", ttl_seconds=TTL, shards=lambda: ["a"]).run(serve))
    await eventually(lambda: len(fences) == 3)
    assert [f.create_revision for f in fences] == sorted({f.create_revision for f in fences})


async def test_work_whose_copy_of_the_store_stays_behind_is_begun_anew_and_ends_nobody_else(
    store: Store, background: Background, eventually: Eventually
) -> None:
    began: list[str] = []

    async def serve(shard: str, fence: Fence) -> None:
        began.append(shard)
        if shard == "a":
            keys: Cache[WorkerTemplate] = Cache(store, TEMPLATE)  # which nobody keeps up
            await keys.reached(fence.create_revision, timeout=0.01)
        await asyncio.Event().wait()

    run = background(Ownership(store, "scheduler", "one", ttl_seconds=TTL, shards=lambda: ["a", "b"]).run(serve))
    await eventually(lambda: began.count("a") == 3)
    assert began.count("b") == 1
    assert not run.done()


async def test_a_bug_in_the_work_ends_the_run(store: Store) -> None:
    async def serve(_: str, __: Fence) -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        await asyncio.wait_for(
            Ownership(store, "scheduler", "one", ttl_seconds=TTL, shards=lambda: ["a"]).run(serve), 5
        )
    assert (await store.range("/ownership/")).count == 0
    assert (await store.range("/members/")).count == 0


async def test_slow_work_is_waited_for_before_the_shard_is_given_up(
    open_client: Callable[[], Store], background: Background, eventually: Eventually
) -> None:
    cleaning, clean = asyncio.Event(), asyncio.Event()

    async def slow(_: str, __: Fence) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await clean.wait()

    shards = ["a"]
    store = open_client()
    owner = Ownership(store, "scheduler", "one", ttl_seconds=TTL, shards=lambda: list(shards))
    background(owner.run(slow))
    await eventually(lambda: owner.owned)
    shards.clear()
    owner.refresh()
    await cleaning.wait()
    assert (await store.range("/ownership/scheduler/")).count == 1
    clean.set()
    await eventually(lambda: owner_keys(store, 0))
    assert not owner.owned


async def test_it_waits_for_etcd_and_goes_on_after_an_outage(
    memory: MemoryStore, background: Background, eventually: Eventually
) -> None:
    memory.unavailable = True
    replica = Replica(memory, "one", Counter(), ["a"], ttl=0.5)
    task = background(replica.run())
    await asyncio.sleep(0.05)
    assert not task.done()
    memory.unavailable = False
    await eventually(lambda: replica.owned)
    memory.unavailable = True
    await eventually(lambda: not replica.owned)
    memory.unavailable = False
    await eventually(lambda: replica.owned)


async def test_after_an_outage_it_does_not_wait_for_its_former_lease_to_run_out(
    background: Background, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """etcd counts a lease's time anew when it has a new leader; here it never runs out."""
    memory = MemoryStore(lambda: 0.0)
    replica = Replica(memory, "one", Counter(), ["a"], ttl=0.5)
    background(replica.run())
    await eventually(lambda: replica.owned)
    memory.unavailable = True
    await eventually(lambda: not replica.owned)
    await eventually(lambda: "no lease to own anything under" in caplog.text)
    memory.unavailable = False
    await eventually(lambda: len(replica.fences) == 2)
    assert await replica.fences[1].stands(memory)
