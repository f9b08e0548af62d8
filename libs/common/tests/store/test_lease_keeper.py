"""A lease is kept, given up in time by the local clock, and never trusted past it."""

import asyncio

import pytest

from lablet_common.store import LeaseKeeper, LeaseLost, MemoryStore, StoreUnavailable


class SlowStore(MemoryStore):
    """Renewals hang until the test lets them go."""

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.gate = asyncio.Event()
        self.renewals = 0

    async def lease_keep_alive(self, lease: int) -> float:
        self.renewals += 1
        await self.gate.wait()
        return await super().lease_keep_alive(lease)


@pytest.fixture
def twin(manual_time) -> MemoryStore:
    return MemoryStore(manual_time)


def keeper_of(store: MemoryStore, manual_time) -> LeaseKeeper:
    return LeaseKeeper(store, 15.0, manual_time, sleep=manual_time.sleep)


async def test_a_lease_is_renewed_for_as_long_as_it_is_held(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        await twin.put("/l", b"", lease=keeper.lease)
        await manual_time.advance(600)
        assert keeper.alive
        assert await twin.get("/l") is not None
        assert keeper.alive_until - manual_time.now > 15 * (1 - 1 / 3) - 3 - 0.001


async def test_leaving_revokes_it(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        await twin.put("/l", b"", lease=keeper.lease)
    assert await twin.get("/l") is None
    assert not keeper.alive


async def test_it_is_lost_by_the_local_clock_before_etcd_would_end_it(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        await twin.put("/l", b"", lease=keeper.lease)
        twin.unavailable = True
        await manual_time.advance(11.9)
        assert not keeper.lost.is_set()
        await manual_time.advance(0.2)
        assert keeper.lost.is_set()
        twin.unavailable = False
        assert await twin.get("/l") is not None


async def test_a_short_outage_is_survived(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        twin.unavailable = True
        await manual_time.advance(9)
        twin.unavailable = False
        await manual_time.advance(60)
        assert keeper.alive


async def test_the_deadline_counts_from_before_the_renewal_was_sent(manual_time) -> None:
    store = SlowStore(manual_time)
    async with keeper_of(store, manual_time) as keeper:
        start = manual_time.now
        await manual_time.advance(5)
        assert store.renewals == 1
        await manual_time.advance(2)
        store.gate.set()
        await manual_time.settle()
        assert keeper.alive_until == start + 5 + 15 - 3


async def test_a_renewal_that_hangs_is_tried_again_and_does_not_hold_up_the_deadline(manual_time) -> None:
    store = SlowStore(manual_time)
    async with keeper_of(store, manual_time) as keeper:
        await manual_time.advance(11.9)
        assert store.renewals == 2
        assert keeper.alive
        await manual_time.advance(0.2)
        assert keeper.lost.is_set()


async def test_an_expired_lease_is_lost_at_the_next_renewal(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        twin.expire(keeper.lease)
        await manual_time.advance(5)
        assert keeper.lost.is_set()
        with pytest.raises(LeaseLost):
            keeper.check()


async def test_after_a_blocked_loop_the_first_question_gets_the_truth(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        await manual_time.advance(1)
        manual_time.jump(14)
        assert not keeper.lost.is_set()
        assert not keeper.alive
        assert keeper.lost.is_set()


async def test_a_lost_lease_does_not_come_back(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        manual_time.jump(13)
        assert not keeper.alive
        await manual_time.advance(30)
        assert not keeper.alive


async def test_the_lag_of_the_event_loop_is_measured(twin, manual_time) -> None:
    async with keeper_of(twin, manual_time) as keeper:
        await manual_time.advance(1)
        assert keeper.worst_lag_seconds < 0.001
        manual_time.jump(2)
        await manual_time.advance(0.5)
        assert keeper.worst_lag_seconds > 1.5
        assert keeper.lag_seconds < 0.001
        assert keeper.alive


async def test_entering_without_a_store_says_so(twin, manual_time) -> None:
    twin.unavailable = True
    with pytest.raises(StoreUnavailable):
        async with keeper_of(twin, manual_time):
            pass


@pytest.mark.integration
async def test_a_real_lease_outlives_its_ttl_while_it_is_kept(etcd) -> None:
    async with LeaseKeeper(etcd, 2.0) as keeper, etcd.watch("/l") as batches:
        put = await etcd.put("/l", b"", lease=keeper.lease)
        seen = []

        async def read() -> None:
            async for batch in batches:
                seen.extend(batch.events)

        reading = asyncio.create_task(read())
        await asyncio.wait({reading}, timeout=4)
        reading.cancel()
        assert [event.kv.mod_revision for event in seen] == [put]
        assert keeper.alive
    assert await etcd.get("/l") is None
