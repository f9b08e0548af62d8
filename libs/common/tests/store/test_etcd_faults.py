"""What the client does when servers die, fall silent, lose their leader, or lose an answer. Real etcd throughout."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lablet_common.store import (
    Compacted,
    EtcdStore,
    EventType,
    LeaseKeeper,
    LeaseLost,
    OutcomeUnknown,
    Put,
    StoreError,
    StoreUnavailable,
    Transaction,
    settle,
)
from lablet_common.testing.etcd import EtcdServer, find_etcd, free_ports
from lablet_common.testing.proxy import FaultyProxy

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def client(*endpoints: str, **settings: object) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(endpoints, **settings)
    try:
        yield store
    finally:
        await store.close()


async def until_written(store: EtcdStore, key: str) -> None:
    async with asyncio.timeout(10):
        while await store.get(key) is None:
            await asyncio.sleep(0.01)


@pytest.fixture
def any_server(servers) -> EtcdServer:
    return servers("any")


class TestEndpoints:
    async def test_a_dead_endpoint_costs_no_timeout(self, any_server: EtcdServer) -> None:
        dead = f"127.0.0.1:{free_ports(1)[0]}"
        async with client(dead, any_server.endpoint, timeout=10.0) as store:
            began = time.monotonic()
            await store.put("/a", b"")
            assert await store.get("/a") is not None
            async with store.watch("/a"):
                pass
            assert time.monotonic() - began < 1

    async def test_all_endpoints_dead_is_said_at_once_and_names_them(self) -> None:
        dead = [f"127.0.0.1:{port}" for port in free_ports(2)]
        async with client(*dead, timeout=10.0) as store:
            began = time.monotonic()
            for call in (store.put("/a", b""), store.get("/a"), store.range("/"), store.lease_grant(5)):
                with pytest.raises(StoreUnavailable, match=dead[1]) as raised:
                    await call
                assert not isinstance(raised.value, OutcomeUnknown)
            assert time.monotonic() - began < 1

    async def test_a_stopped_server_is_used_again_within_two_seconds_of_its_return(
        self, sound_server: EtcdServer
    ) -> None:
        async with client(sound_server.endpoint) as store:
            await store.put("/a", b"")
            sound_server.kill()
            for _ in range(20):
                with pytest.raises(StoreUnavailable):
                    await store.get("/a")
                await asyncio.sleep(0.05)
            await asyncio.to_thread(sound_server.restart)
            async with asyncio.timeout(2):
                while True:
                    with contextlib.suppress(StoreUnavailable):
                        assert await store.get("/a") is not None
                        return
                    await asyncio.sleep(0.02)

    async def test_reads_go_to_another_endpoint_when_one_is_silent(self, any_server: EtcdServer) -> None:
        async with (
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, any_server.endpoint, timeout=2.0) as store,
        ):
            await store.put("/silent", b"")
            proxy.swallow_answers = True
            began = time.monotonic()
            assert await store.get("/silent") is not None
            assert time.monotonic() - began < 1.5
            began = time.monotonic()
            assert await store.get("/silent") is not None
            assert time.monotonic() - began < 0.5

    async def test_a_closed_store_refuses_calls(self, any_server: EtcdServer) -> None:
        async with client(any_server.endpoint) as store:
            await store.get("/a")
        for call in (store.get("/a"), store.put("/a", b""), store.lease_keep_alive(1)):
            with pytest.raises(StoreUnavailable, match="closed"):
                await call


class TestLostAnswers:
    async def test_a_write_whose_answer_is_lost_has_happened_and_settles_as_done(self, any_server: EtcdServer) -> None:
        async with (
            client(any_server.endpoint, prefix="/lost-1") as witness,
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, any_server.endpoint, prefix="/lost-1") as store,
        ):
            txn = Transaction().require("/k", mod_revision=await store.put("/k", b"1")).put("/k", b"2").put("/l", b"")
            proxy.swallow_answers = True
            committing = asyncio.create_task(txn.commit(store))
            await until_written(witness, "/l")
            proxy.break_off()
            with pytest.raises(OutcomeUnknown):
                await committing
            proxy.swallow_answers = False
            assert await settle(store, txn) is True
            kv = await store.get("/l")
            assert kv is not None
            assert kv.version == 1

    async def test_a_write_that_never_arrived_is_in_doubt_too_and_settles_as_not_done(
        self, any_server: EtcdServer
    ) -> None:
        async with (
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, prefix="/lost-2", timeout=5.0) as store,
        ):
            txn = Transaction().require("/k", mod_revision=await store.put("/k", b"1")).put("/k", b"2")
            proxy.swallow_requests = True
            committing = asyncio.create_task(txn.commit(store))
            async with asyncio.timeout(5):
                while not proxy.swallowed_bytes:
                    await asyncio.sleep(0.005)
            proxy.break_off()
            with pytest.raises(OutcomeUnknown):
                await committing
            proxy.swallow_requests = False
            assert await settle(store, txn) is False
            await txn.commit(store)

    async def test_a_write_without_an_answer_in_time_is_in_doubt(self, any_server: EtcdServer) -> None:
        async with (
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, prefix="/lost-3", timeout=0.5) as store,
        ):
            await store.put("/k", b"1")
            proxy.swallow_answers = True
            with pytest.raises(OutcomeUnknown):
                await store.put("/k", b"2")
            with pytest.raises(StoreUnavailable) as read:
                await store.get("/k")
            assert not isinstance(read.value, OutcomeUnknown)

    async def test_writes_under_breaking_connections_are_done_once_or_in_doubt_never_lost_or_doubled(
        self, any_server: EtcdServer
    ) -> None:
        """200 writes while the connection breaks again and again: acknowledged ones are there, refused ones are not."""
        sure: list[int] = []
        refused: list[int] = []
        doubtful: list[int] = []
        async with (
            client(any_server.endpoint, prefix="/lost-4") as witness,
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, prefix="/lost-4", timeout=5.0) as store,
        ):

            async def write(number: int) -> None:
                try:
                    await store.put(f"/{number:03}", b"")
                except OutcomeUnknown:
                    doubtful.append(number)
                except StoreUnavailable:
                    refused.append(number)
                else:
                    sure.append(number)

            for start in range(0, 200, 10):
                writes = [asyncio.create_task(write(number)) for number in range(start, start + 10)]
                await asyncio.sleep(0.002)
                proxy.break_off()
                await asyncio.gather(*writes)
                async with asyncio.timeout(5):
                    while True:
                        with contextlib.suppress(StoreUnavailable):
                            await store.get("/probe")
                            break
            written = {int(kv.key[1:]): kv.version for kv in (await witness.range("/")).items}
        assert set(sure) <= set(written)
        assert not set(refused) & set(written)
        assert set(written.values()) <= {1}
        assert doubtful
        assert sure


class TestWatches:
    async def test_a_watch_outlives_kill_9_and_restart_without_loss_or_repetition(
        self, sound_server: EtcdServer, take
    ) -> None:
        async with client(sound_server.endpoint) as store, store.watch("/w/") as batches:
            revisions = [await store.put("/w/a", b"") for _ in range(50)]
            seen = await take(batches, 20)
            await asyncio.to_thread(sound_server.kill)
            await asyncio.to_thread(sound_server.restart)
            async with asyncio.timeout(10):
                while len(revisions) < 100:
                    with contextlib.suppress(StoreUnavailable):
                        revisions.append(await store.put("/w/a", b""))
            seen += await take(batches, 100 - len(seen))
        assert [event.kv.mod_revision for event in seen] == revisions

    async def test_a_watch_outlives_connections_that_break(self, any_server: EtcdServer, take) -> None:
        async with (
            client(any_server.endpoint, prefix="/w-2") as writer,
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, prefix="/w-2") as store,
            store.watch("/", previous=True) as batches,
        ):
            revisions = []
            seen = []
            for _ in range(10):
                revisions += [(await writer.txn([], [Put("/a", b""), Put("/b", b"")])).revision for _ in range(5)]
                seen += await take(batches, 4)
                proxy.break_off()
            seen += await take(batches, 100 - len(seen))
            assert proxy.accepted >= 10
        assert [event.kv.mod_revision for event in seen] == [r for r in revisions for _ in range(2)]
        assert [event.kv.key for event in seen] == ["/a", "/b"] * 50

    async def test_a_watch_that_was_away_over_a_compaction_says_so(self, any_server: EtcdServer, take) -> None:
        async with (
            client(any_server.endpoint, prefix="/w-3") as writer,
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, prefix="/w-3") as store,
            store.watch("/") as batches,
        ):
            await writer.put("/a", b"")
            await take(batches, 1)
            proxy.refuse = True
            proxy.break_off()
            await writer.put("/a", b"")
            await writer.compact(await writer.put("/a", b""))
            proxy.refuse = False
            with pytest.raises(Compacted):
                await take(batches, 1)

    async def test_a_silent_watch_is_rebuilt(self, any_server: EtcdServer, take) -> None:
        async with (
            client(any_server.endpoint, prefix="/w-4") as writer,
            FaultyProxy(any_server.endpoint) as proxy,
            client(proxy.endpoint, any_server.endpoint, prefix="/w-4", watch_silence_seconds=0.2) as store,
            store.watch("/") as batches,
        ):
            await writer.put("/a", b"1")
            await take(batches, 1)
            proxy.swallow_answers = True
            await writer.put("/a", b"2")
            began = time.monotonic()
            (event,) = await take(batches, 1)
            assert event.kv.value == b"2"
            assert time.monotonic() - began < 3

    async def test_an_idle_watch_that_answers_is_left_alone(self, tmp_path: Path, take) -> None:
        if find_etcd("any") is None:
            pytest.skip("no etcd on this machine")
        with EtcdServer.start(tmp_path / "etcd") as server:  # with etcd's own interval of notices: ten minutes
            async with (
                FaultyProxy(server.endpoint) as proxy,
                client(proxy.endpoint, watch_silence_seconds=0.1) as store,
                store.watch("/") as batches,
            ):
                reading = asyncio.create_task(take(batches, 1))
                await asyncio.wait({reading}, timeout=1.5)
                assert not reading.done()
                await store.put("/a", b"")
                (event,) = await reading
                assert event.type is EventType.PUT
                assert proxy.accepted == 1

    async def test_a_revision_larger_than_a_message_arrives_whole(self, etcd: EtcdStore) -> None:
        """100 values of 14 KiB with their previous values: more than etcd puts into one message."""
        for value in (b"1", b"2"):
            done = await etcd.txn([], [Put(f"/{i:03}", value * 14 * 1024) for i in range(100)])
        async with etcd.watch("/", start_revision=done.revision, previous=True) as batches, asyncio.timeout(10):
            while not (batch := await anext(batches)).events:
                pass
        assert [event.kv.key for event in batch.events] == [f"/{i:03}" for i in range(100)]
        assert all(event.previous and event.previous.value[:1] == b"1" for event in batch.events)

    async def test_many_watches_at_once_each_see_their_own(self, etcd: EtcdStore, take) -> None:
        async with contextlib.AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(etcd.watch(f"/{i}/")) for i in range(150)]
            for i in range(150):
                await etcd.put(f"/{i}/k", b"")
            for i, batches in enumerate(watches):
                (event,) = await take(batches, 1)
                assert event.kv.key == f"/{i}/k"


class TestCluster:
    @pytest.fixture
    def members(self, tmp_path: Path) -> Iterator[list[EtcdServer]]:
        if find_etcd("sound") is None:
            pytest.skip("killing etcd needs a sound one (etcd issue 13766): set ETCD_BIN or install etcd-server")
        members = EtcdServer.start_cluster(tmp_path, 3, "sound")
        try:
            yield members
        finally:
            for member in members:
                member.kill()

    async def test_writes_watches_and_leases_go_on_when_any_member_dies(self, members: list[EtcdServer], take) -> None:
        async with (
            client(*(member.endpoint for member in members), timeout=10.0) as store,
            LeaseKeeper(store, 6.0) as keeper,
            store.watch("/w/") as batches,
        ):
            written: list[bytes] = []
            for victim in (members[0], members[1]):
                await store.put("/leased", b"", lease=keeper.lease)
                victim.kill()
                for _ in range(20):
                    value = b"%d" % len(written)
                    async with asyncio.timeout(10):
                        while True:
                            try:
                                await store.put("/w/a", value)
                                break
                            except OutcomeUnknown:
                                kv = await store.get("/w/a")
                                if kv is not None and kv.value == value:
                                    break
                            except StoreUnavailable:
                                await asyncio.sleep(0.05)
                    written.append(value)
                await asyncio.to_thread(victim.restart)
            seen: list[bytes] = []
            while len(seen) < len(written):
                seen += [event.kv.value for event in await take(batches, 1)]
            assert list(dict.fromkeys(seen)) == written
            assert keeper.alive
            assert await store.get("/leased") is not None

    async def test_a_member_that_stands_still_is_left(self, members: list[EtcdServer], take) -> None:
        """Its connections stand, and gRPC would ask after 13 s."""
        async with (
            client(*(one.endpoint for one in members), timeout=30.0) as store,
            LeaseKeeper(store, 8.0) as keeper,
            store.watch("/w/") as batches,
        ):
            await store.put("/w/a", b"1")
            await take(batches, 1)
            used = store._calls._endpoints[store._calls._current].address
            (member,) = (one for one in members if one.endpoint == used)
            member.pause()
            try:
                async with asyncio.timeout(30):
                    began = time.monotonic()
                    with pytest.raises(OutcomeUnknown):
                        await store.put("/w/a", b"2")
                    await store.get("/w/a")
                    written = False
                    while not written:
                        with contextlib.suppress(StoreUnavailable):
                            await store.put("/w/a", b"3")
                            written = True
                    while all(event.kv.value != b"3" for event in await take(batches, 1)):  # a batch may bring several
                        pass
                    assert time.monotonic() - began < 8.0
                    assert keeper.alive
            finally:
                member.resume()

    async def test_a_member_without_quorum_refuses_instead_of_hanging(self, members: list[EtcdServer]) -> None:
        async with client(members[0].endpoint, timeout=3.0) as store:
            await store.put("/a", b"")
            members[1].kill()
            members[2].kill()
            async with asyncio.timeout(20):
                while (await store.status()).leader:
                    await asyncio.sleep(0.05)
            with pytest.raises(StoreUnavailable, match="no leader") as write:
                await store.put("/a", b"")
            assert not isinstance(write.value, OutcomeUnknown)
            with pytest.raises(StoreUnavailable):
                await store.get("/a")
            assert await store.get("/a", serializable=True) is not None
            with pytest.raises(StoreError):
                async with store.watch("/a"):
                    pass


async def test_a_lease_of_a_stopped_server_is_given_up_by_the_local_clock(sound_server: EtcdServer) -> None:
    async with client(sound_server.endpoint, timeout=5.0) as store:
        keeper = LeaseKeeper(store, 2.0)
        async with keeper:
            sound_server.pause()
            began = time.monotonic()
            async with asyncio.timeout(4):
                await keeper.lost.wait()
            assert time.monotonic() - began < 2.0
            with pytest.raises(LeaseLost):
                keeper.check()
            sound_server.resume()
