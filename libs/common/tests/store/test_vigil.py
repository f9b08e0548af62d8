"""What the client does about a member that owes an answer, by members that say what they are told to say."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from lablet_common.store import EtcdStore, OutcomeUnknown, StoreUnavailable, vigil
from lablet_common.store.channels import Endpoint
from lablet_common.store.proto import etcd_pb2 as pb

FOREVER = 60.0
"""The store's timeout: whatever ends before was not ended by it."""
SOON = 10.0
"""For what is waited for; a tenth of a second where nothing else runs."""


class Member:
    """One of a cluster, in this process."""

    def __init__(self) -> None:
        self.address = ""
        self.leader = 1
        self.term = 2
        self.held = False
        """What needs a leader is taken and not answered."""
        self.mute = False
        """Nor is the question how it is."""
        self.asked: Counter[str] = Counter()
        self._server = grpc.aio.server()
        self._let_go = asyncio.Event()

    async def __aenter__(self) -> "Member":
        unary: dict[str, dict[str, tuple[Any, Any]]] = {
            "KV": {"Range": (pb.RangeRequest, pb.RangeResponse), "Put": (pb.PutRequest, pb.PutResponse)},
            "Lease": {"LeaseGrant": (pb.LeaseGrantRequest, pb.LeaseGrantResponse)},
        }
        for service, methods in unary.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(name, response), request.FromString, response.SerializeToString
                )
                for name, (request, response) in methods.items()
            }
            if service == "Lease":  # as etcd has it
                handlers["LeaseKeepAlive"] = grpc.stream_stream_rpc_method_handler(
                    self._keep_alive,
                    pb.LeaseKeepAliveRequest.FromString,
                    pb.LeaseKeepAliveResponse.SerializeToString,
                )
            self._serve(service, handlers)
        watch = grpc.stream_stream_rpc_method_handler(
            self._watch, pb.WatchRequest.FromString, pb.WatchResponse.SerializeToString
        )
        status = grpc.unary_unary_rpc_method_handler(
            self._status, pb.StatusRequest.FromString, pb.StatusResponse.SerializeToString
        )
        self._serve("Watch", {"Watch": watch})
        self._serve("Maintenance", {"Status": status})
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.stop(None)

    def _serve(self, service: str, handlers: dict[str, Any]) -> None:
        generic = grpc.method_handlers_generic_handler(f"etcdserverpb.{service}", handlers)
        self._server.add_generic_rpc_handlers((generic,))

    @property
    def header(self) -> pb.ResponseHeader:
        return pb.ResponseHeader(revision=7, raft_term=self.term)

    def let_go(self) -> None:
        """What is held is answered."""
        self._let_go.set()

    async def until_asked(self, method: str, times: int = 1) -> None:
        async with asyncio.timeout(SOON):
            while self.asked[method] < times:
                await asyncio.sleep(0.005)

    async def _wait(self, method: str) -> None:
        self.asked[method] += 1
        if self.held:
            await self._let_go.wait()

    def _answering(self, method: str, response: Any) -> Any:
        async def answer(_: Any, context: Any) -> Any:
            del context
            await self._wait(method)
            return response(header=self.header)

        return answer

    async def _status(self, _: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        del context
        self.asked["Status"] += 1
        if self.mute:
            await self._let_go.wait()
        return pb.StatusResponse(header=self.header, leader=self.leader)

    async def _keep_alive(self, requests: AsyncIterator[pb.LeaseKeepAliveRequest], _: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await self._wait("LeaseKeepAlive")
            yield pb.LeaseKeepAliveResponse(header=self.header, ID=request.ID, TTL=9)

    async def _watch(self, requests: AsyncIterator[pb.WatchRequest], _: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            self.asked["Watch"] += 1
            yield pb.WatchResponse(header=self.header, created=True)
            await self._let_go.wait()
            event = pb.Event(kv=pb.KeyValue(key=b"/lablet/a", mod_revision=8))
            yield pb.WatchResponse(header=self.header, events=[event])


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PATIENCE", "_AGAIN", "_SETTLED", "_SILENCE", "_OTHERS"):
        monkeypatch.setattr(vigil, name, getattr(vigil, name) / 5)


@pytest.fixture
async def members() -> AsyncIterator[tuple[Member, Member]]:
    async with Member() as first, Member() as second:
        yield first, second


@pytest.fixture
async def store(members: tuple[Member, Member]) -> AsyncIterator[EtcdStore]:
    """A client of both, which asks the first."""
    one = EtcdStore([member.address for member in members], timeout=FOREVER)
    yield one
    await one.close()


class TestAMemberWithoutALeader:
    async def test_a_write_that_it_has_taken_ends_in_doubt_and_the_next_one_goes_elsewhere(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held, first.leader = True, 0
        async with asyncio.timeout(SOON):
            with pytest.raises(OutcomeUnknown, match="no leader"):
                await store.put("/a", b"")
            assert second.asked["Put"] == 0
            await store.put("/a", b"")
        assert (first.asked["Put"], second.asked["Put"]) == (1, 1)

    async def test_reads_grants_and_renewals_are_asked_of_another(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held, first.leader = True, 0
        async with asyncio.timeout(SOON):
            for call in (store.get("/a"), store.lease_grant(5), store.lease_keep_alive(3)):
                store._calls._current = 0
                await call
        for method in ("Range", "LeaseGrant", "LeaseKeepAlive"):
            assert (first.asked[method], second.asked[method]) == (1, 1), method

    async def test_all_that_wait_are_let_go_together(self, members: tuple[Member, Member], store: EtcdStore) -> None:
        first, second = members
        first.held = True
        writes = [asyncio.create_task(store.put(f"/{i}", b"")) for i in range(5)]
        reads = [asyncio.create_task(store.get(f"/{i}")) for i in range(5)]
        await first.until_asked("Status", 2)
        assert not any(task.done() for task in (*writes, *reads))
        first.leader = 0
        async with asyncio.timeout(SOON):
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            await asyncio.gather(*reads)
        assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
        assert second.asked["Range"] == 5

    async def test_a_watch_goes_elsewhere_as_soon_as_that_is_noticed(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        async with store.watch("/") as batches:
            reading = asyncio.ensure_future(anext(batches))
            assert (first.asked["Watch"], second.asked["Watch"]) == (1, 0)
            first.held, first.leader = True, 0
            with contextlib.suppress(OutcomeUnknown):
                await store.put("/a", b"")
            await second.until_asked("Watch")
            second.let_go()
            async with asyncio.timeout(SOON):
                assert (await reading).events

    async def test_one_that_says_so_at_once_is_asked_again_until_its_watches_can_leave_it(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        async with store.watch("/") as batches:
            reading = asyncio.ensure_future(anext(batches))
            first.leader = second.leader = 0
            store._calls.vigil(store._calls._endpoints[0]).suspect()
            await first.until_asked("Status", 3)
            assert second.asked["Watch"] == 0
            second.leader = 1
            await second.until_asked("Watch")
            reading.cancel()


class TestAnElection:
    """Leaving is of use only where others are better off."""

    async def test_nothing_is_given_up_while_nobody_has_a_leader(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        async with store.watch("/"):
            first.held, first.leader, second.leader = True, 0, 0
            writing = asyncio.create_task(store.put("/a", b""))
            await first.until_asked("Status", 6)
            assert second.asked["Status"] >= 5
            first.leader = second.leader = 1
            first.let_go()
            await writing
            assert second.asked["Watch"] == 0

    async def test_one_of_several_is_not_believed_to_have_one(self) -> None:
        """It may be the former leader, cut off and not yet aware of it."""
        async with Member() as first, Member() as second, Member() as third:
            store = EtcdStore([member.address for member in (first, second, third)], timeout=FOREVER)
            first.held, first.leader, third.leader = True, 0, 0
            writing = asyncio.create_task(store.put("/a", b""))
            await first.until_asked("Status", 6)
            assert not writing.done()
            third.leader = 1
            async with asyncio.timeout(SOON):
                with pytest.raises(OutcomeUnknown):
                    await writing
            await store.close()

    async def test_one_that_has_the_leader_is_gone_to(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            five = [await stack.enter_async_context(Member()) for _ in range(5)]
            store = EtcdStore([member.address for member in five], timeout=FOREVER)
            five[0].held, five[0].leader, five[1].leader = True, 0, 0
            async with asyncio.timeout(SOON):
                with pytest.raises(OutcomeUnknown):
                    await store.put("/a", b"")
                await store.put("/a", b"")
            await store.close()
        assert [member.asked["Put"] for member in five] == [1, 0, 1, 0, 0]

    async def test_a_watch_is_asked_for_again_when_grpc_forgot_why_it_was_refused(
        self, members: tuple[Member, Member], store: EtcdStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It overwrites the refusal when the stream's first message comes too late (grpc issue 36066)."""
        open_stream, refused = Endpoint.open, 0

        class Refused:
            async def write(self, _: object) -> None:
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Internal error from Core")

            def cancel(self) -> bool:
                return False

        def refuse_four(endpoint: Endpoint, *arguments: Any) -> Any:
            nonlocal refused
            refused += 1
            return Refused() if refused <= 4 else open_stream(endpoint, *arguments)

        monkeypatch.setattr(Endpoint, "open", refuse_four)
        async with store.watch("/"):
            assert sum(member.asked["Watch"] for member in members) == 1

    async def test_a_silent_member_is_kept_while_the_others_are_silent_too(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held = first.mute = second.mute = True
        writing = asyncio.create_task(store.put("/a", b""))
        await second.until_asked("Status", 2)
        first.let_go()
        await writing


class TestALaterTerm:
    async def test_what_was_sent_before_ends_in_doubt_and_the_member_is_kept(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        await store.put("/a", b"")  # which tells the term
        first.held = True
        writing = asyncio.create_task(store.put("/a", b""))
        await first.until_asked("Put", 2)
        first.term += 1
        async with asyncio.timeout(SOON):
            with pytest.raises(OutcomeUnknown, match="another leader"):
                await writing
            first.held = False
            await store.put("/a", b"")
        assert second.asked["Put"] == 0

    async def test_a_read_is_asked_again_of_the_same_member(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        await store.put("/a", b"")
        first.held = True
        reading = asyncio.create_task(store.get("/a"))
        await first.until_asked("Status")
        first.held, first.term = False, first.term + 1
        async with asyncio.timeout(SOON):
            await reading
        assert (first.asked["Range"], second.asked["Range"]) == (2, 0)

    async def test_what_is_sent_in_it_is_waited_for(self, members: tuple[Member, Member], store: EtcdStore) -> None:
        first, second = members
        await store.put("/a", b"")
        second.term = first.term = 5
        await store.get("/a")  # which tells the new one
        first.held = True
        writing = asyncio.create_task(store.put("/a", b""))
        await first.until_asked("Status", 8)
        first.let_go()
        await writing


class TestASilentMember:
    async def test_a_write_ends_in_doubt_and_the_next_one_goes_elsewhere(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held = first.mute = True
        async with asyncio.timeout(SOON):
            with pytest.raises(OutcomeUnknown, match="silent"):
                await store.put("/a", b"")
            await store.put("/a", b"")
        assert second.asked["Put"] == 1

    async def test_it_is_not_silent_while_it_answers_anything(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held = first.mute = True
        writing = asyncio.create_task(store.put("/a", b""))
        await first.until_asked("Status")
        first.held = False
        async with asyncio.timeout(SOON):
            while first.asked["Status"] < 3 and not writing.done():
                await store.get("/a")
                await asyncio.sleep(0.01)
        first.let_go()
        await writing
        assert second.asked["Range"] == 0

    async def test_whoever_stops_waiting_for_it_leaves_it_to_the_next_to_ask_another(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held = first.mute = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(vigil._PATIENCE * 2):
                await store.lease_keep_alive(3)
        async with asyncio.timeout(SOON):
            assert await store.lease_keep_alive(3) == 9
        assert (first.asked["LeaseKeepAlive"], second.asked["LeaseKeepAlive"]) == (1, 1)


class TestPatience:
    async def test_a_slow_member_is_waited_for_and_asked_now_and_then(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, second = members
        first.held = True
        writing = asyncio.create_task(store.put("/a", b""))
        await first.until_asked("Status", 8)
        assert not writing.done()
        first.let_go()
        await writing
        assert second.asked["Put"] == 0

    async def test_nobody_asks_a_member_that_answers(self, members: tuple[Member, Member], store: EtcdStore) -> None:
        end = time.monotonic() + vigil._PATIENCE * 3
        while time.monotonic() < end:
            await store.put("/a", b"")
        assert members[0].asked["Status"] == 0

    async def test_the_only_member_is_not_asked(self, members: tuple[Member, Member]) -> None:
        only = members[0]
        only.held, only.leader = True, 0
        alone = EtcdStore([only.address], timeout=vigil._PATIENCE * 4)
        with pytest.raises(OutcomeUnknown):
            await alone.put("/a", b"")
        await alone.close()
        assert only.asked["Status"] == 0

    async def test_a_cancelled_caller_is_cancelled_and_told_nothing_else(
        self, members: tuple[Member, Member], store: EtcdStore
    ) -> None:
        first, _ = members
        first.held = True
        writing = asyncio.create_task(store.put("/a", b""))
        await first.until_asked("Put")
        over = store._calls.vigil(store._calls._endpoints[0])
        over._give_up(next(iter(over._waiting)), vigil.GivenUp("", elsewhere=True))
        writing.cancel()  # and given up, in the same moment
        with pytest.raises(asyncio.CancelledError):
            await writing

    async def test_a_store_that_is_closed_asks_nobody(self, members: tuple[Member, Member]) -> None:
        first, _ = members
        first.held = True
        store = EtcdStore([member.address for member in members], timeout=FOREVER)
        writing = asyncio.create_task(store.put("/a", b""))
        await first.until_asked("Status")
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await writing
        asked = first.asked["Status"]
        await asyncio.sleep(vigil._AGAIN * 3)
        assert first.asked["Status"] == asked
