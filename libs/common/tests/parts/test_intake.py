"""The loop around decisions: in order, once each, fenced, and decided again after a conflict."""

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from lablet_common.clock import ManualClock
from lablet_common.intake import Decision, Intake, refused, target_of
from lablet_common.intents import INTENTS, PoolApply
from lablet_common.ownership import Fence, NotOwner
from lablet_common.requests import Inbox, accept, build_request, request_key
from lablet_common.resources.kinds import POOL, REQUEST, ownership_key
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import PoolSpec, PoolStatus, WorkerPool
from lablet_common.store import Conflict, InvalidRequest, MemoryStore
from lablet_common.store.api import MAX_VALUE_BYTES
from lablet_common.store.repository import Repository
from lablet_common.tasks import together
from lablet_common.telemetry.metrics import INBOX_DEPTH

NOW = datetime(2027, 3, 1, 7, tzinfo=UTC)
APPLY = INTENTS["io.lablet.pool.apply.requested.v1"]


class Bench:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock(NOW)
        self.seen: list[str] = []

    async def ask(self, name: str, key: str = "", meant_for: int | None = None) -> str:
        body = PoolApply(spec=PoolSpec(template="t", max=1))
        request = build_request(
            APPLY,
            name,
            body,
            key=request_key("default", "me", "pools", name + str(len(self.seen)) + key),
            tenant="default",
            principal="me",
            shard="-",
            digest=name,
            at=NOW,
            meant_for=meant_for,
        )
        return (await accept(self.store, request)).request.id

    async def fence(self) -> Fence:
        key = ownership_key("worker-controller", "-")
        return Fence(key, await self.store.put(key, b"me"))

    def pool(self, name: str) -> WorkerPool:
        spec = PoolSpec(template="t", max=1)
        return WorkerPool(metadata=Metadata(id=name, uid=name, created_at=NOW), spec=spec, status=PoolStatus())

    def intake(self, fence: Fence, decide) -> Intake:
        return Intake(
            "worker-controller", "-", fence, decide, store=self.store, clock=self.clock, source="/x", resync_seconds=60
        )

    async def run(self, intake: Intake) -> None:
        task = asyncio.create_task(intake.run())
        async with asyncio.timeout(5):
            while await Inbox(self.store, "worker-controller", "-").depth() and not task.done():
                await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def bench():
    return Bench()


async def test_requests_are_decided_once_each_in_the_order_of_their_acceptance(bench):
    for name in ("b", "a", "c"):
        await bench.ask(name)

    async def decide(undecided):
        bench.seen.append(target_of(undecided))
        return Decision("Created", bench.pool(target_of(undecided)))

    await bench.run(bench.intake(await bench.fence(), decide))
    assert bench.seen == ["b", "a", "c"]
    assert [pool.id for pool in (await Repository(bench.store, POOL).list()).items] == ["a", "b", "c"]


async def test_the_depth_that_is_told_is_the_whole_inboxs_and_not_the_batchs(bench):
    for number in range(250):
        await bench.ask(f"p{number}")
    told = []

    async def decide(undecided):
        told.append(INBOX_DEPTH.labels("worker-controller", "-")._value.get())
        return Decision("Created", bench.pool(target_of(undecided)))

    await bench.run(bench.intake(await bench.fence(), decide))
    assert (told[0], told[100]) == (250, 150)


async def test_the_outcome_stands_in_the_request(bench):
    granted, declined = await bench.ask("good"), await bench.ask("bad")

    async def decide(undecided):
        if target_of(undecided) == "bad":
            return refused("nonsense", "No such thing", "that is no pool", 422, path="spec.max")
        return Decision("Created", bench.pool("good"))

    await bench.run(bench.intake(await bench.fence(), decide))
    requests = Repository(bench.store, REQUEST)
    assert (await requests.get(granted)).status.resource == "pool/good"
    problem = (await requests.get(declined)).status.problem
    assert (problem.status, problem.errors[0]["path"]) == (422, "spec.max")


async def test_after_a_conflict_it_is_decided_again_from_what_is_true_then(bench):
    await bench.ask("a")
    pools = Repository(bench.store, POOL)

    async def decide(undecided):
        bench.seen.append("look")
        known = await pools.get("a")
        if len(bench.seen) == 1:
            await pools.create(bench.pool("a"))
        return Decision("Changed", known.observed()) if known else Decision("Created", bench.pool("a"))

    await bench.run(bench.intake(await bench.fence(), decide))
    assert bench.seen == ["look", "look"]
    assert (await pools.get("a")).status.last_fact.name == "changed"


async def test_what_its_maker_could_not_write_for_a_conflict_is_decided_again_too(bench):
    """A decision may write for itself before it is committed."""
    await bench.ask("a")

    async def decide(undecided):
        bench.seen.append("look")
        if len(bench.seen) == 1:
            raise Conflict(["/pools/a"], 1)
        return Decision("Created", bench.pool("a"))

    await bench.run(bench.intake(await bench.fence(), decide))
    assert bench.seen == ["look", "look"]


async def test_what_can_never_be_stored_is_refused_and_holds_up_nobody(bench):
    large, sound = await bench.ask("large"), await bench.ask("sound")

    async def decide(undecided):
        name = target_of(undecided)
        made = bench.pool(name)
        if name == "large":
            made = made.relabelled({"note": "x" * MAX_VALUE_BYTES})
        return Decision("Created", made)

    await bench.run(bench.intake(await bench.fence(), decide))
    requests = Repository(bench.store, REQUEST)
    assert (await requests.get(sound)).phase == "Decided"
    problem = (await requests.get(large)).status.problem
    assert (problem.status, problem.type.rpartition("/")[2]) == (413, "too-large")
    assert "the value of /pools/large has" in problem.detail


async def test_what_etcd_refuses_for_want_of_a_right_refuses_no_request(bench, monkeypatch):
    asked = await bench.ask("a")

    async def decide(undecided):
        return Decision("Created", bench.pool("a"))

    async def refuse(*_):
        raise InvalidRequest("etcd refuses txn: permission denied")

    intake = bench.intake(await bench.fence(), decide)
    monkeypatch.setattr(bench.store, "txn", refuse_writes(bench.store.txn, refuse))
    with pytest.raises(InvalidRequest, match="permission denied"):
        await bench.run(intake)
    assert (await Repository(bench.store, REQUEST).get(asked)).phase == "Accepted"


def refuse_writes(txn, refuse):
    """A transaction that reads goes through."""

    async def writes_nothing(compares, success, failure=()):
        return await (refuse() if compares else txn(compares, success, failure))

    return writes_nothing


async def test_a_stalled_owner_writes_nothing_and_learns_of_it(bench):
    name = await bench.ask("a")
    stale = await bench.fence()
    await bench.store.delete(stale.key)
    await bench.fence()

    async def decide(undecided):
        return Decision("Created", bench.pool("a"))

    with pytest.raises(NotOwner):
        await bench.run(bench.intake(stale, decide))
    assert (await Repository(bench.store, REQUEST).get(name)).phase == "Accepted"
    assert await Repository(bench.store, POOL).get("a") is None


async def test_together_ends_all_when_one_fails_and_raises_its_error_bare():
    ended = []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails():
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await together(waits(), fails())
    assert ended == ["waits"]


async def test_what_is_meant_for_an_earlier_state_changes_nothing(bench):
    stored = await Repository(bench.store, POOL).create(bench.pool("a"))
    asked = [await bench.ask("a", key, stored.revision) for key in ("first", "second")] + [await bench.ask("a", "any")]

    async def decide(undecided):
        present = await Repository(bench.store, POOL).require("a")
        return Decision("Changed", present.respecified(max=present.spec.max + 1))

    await bench.run(bench.intake(await bench.fence(), decide))
    problems = [(await Repository(bench.store, REQUEST).require(one)).status.problem for one in asked]
    assert [problem and problem.status for problem in problems] == [None, 412, None]
    assert (await Repository(bench.store, POOL).require("a")).spec.max == 3
