"""The lease of an agent: who may renew it, when a session is over, and that only etcd's word makes labs lost."""

import asyncio
from typing import Any

import pytest

from lablet_common.agents import Grant, Heartbeat
from lablet_common.resources.kinds import worker_lease_key
from lablet_common.store import KeyValue, MemoryStore
from lablet_workers.agents.leases import Door, Leases
from lablet_workers.providers.agent import AgentProvider
from lablet_workers.providers.port import InsufficientCapacity, LaunchOrder, MachineState, NotFound

ONE, TWO = "epoch-one", "epoch-two"


def beat(epoch: str = ONE, **more: Any) -> Heartbeat:
    return Heartbeat(epoch=epoch, number=more.pop("number", 1), host="h1", **more)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def leases(store: MemoryStore) -> Leases:
    return Leases(store, 10.0, lambda worker: worker != "stranger")


async def expire(store: MemoryStore, worker: str = "w1") -> None:
    """What etcd does when nobody renews."""
    found = await store.get(worker_lease_key(worker))
    assert found is not None
    await store.lease_revoke(found.lease)


async def test_the_first_heartbeat_begins_a_session_and_the_next_renew_it(leases: Leases, store: MemoryStore) -> None:
    granted = await leases.beat("w1", beat(first=True, number=7))
    assert (granted.seconds, granted.number, granted.refused) == (10.0, 7, "")
    kept = await store.get(worker_lease_key("w1"))
    assert kept is not None
    assert kept.lease
    assert (await leases.beat("w1", beat(number=8))).seconds == 10.0
    assert (await store.get(worker_lease_key("w1"))) == kept


async def test_etcds_lease_outlasts_what_is_granted(leases: Leases, store: MemoryStore) -> None:
    await leases.beat("w1", beat(first=True))
    found = await store.get(worker_lease_key("w1"))
    assert found is not None
    assert await store.lease_keep_alive(found.lease) >= 12.0


@pytest.mark.parametrize(
    "payload",
    [b"[" * 1500, b"{}", b"\xff", b'{"epoch": "epoch-one", "number": 1, "first": true, "host": "%s"}' % (b"h" * 300)],
    ids=["deep", "empty", "no text", "long"],
)
async def test_what_is_no_heartbeat_is_dropped_with_a_line_in_the_log(
    leases: Leases, store: MemoryStore, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    class Connected:
        async def listen(self, _: str, listener: Any, **__: Any) -> None:
            heard.append(listener)

    connection: Any = Connected()
    await Door(connection, leases).open()
    await heard[0]("lablet.agent.w1.heartbeat", payload)
    assert "not a heartbeat" in caplog.text
    assert await store.get(worker_lease_key("w1")) is None


async def test_a_heartbeat_that_waits_for_etcd_keeps_no_other_worker_waiting() -> None:
    heard: list[Any] = []
    said: list[tuple[str, int]] = []
    etcd = asyncio.Event()

    class Connected:
        async def listen(self, _: str, listener: Any, **__: Any) -> None:
            heard.append(listener)

        async def say(self, subject: str, payload: bytes) -> None:
            said.append((subject.split(".")[2], Grant.model_validate_json(payload).number))

    class Slow:
        async def beat(self, worker: str, one: Heartbeat) -> Grant:
            if worker == "w1":
                await etcd.wait()
            return Grant(epoch=one.epoch, number=one.number, seconds=10)

    connection, slow = Connected(), Slow()
    door = Door(connection, slow)  # type: ignore[arg-type]  # what it needs of them
    await door.open()
    async with asyncio.timeout(5):
        for number in range(1, 5):
            for worker in ("w1", "w2"):
                await heard[0](f"lablet.agent.{worker}.heartbeat", beat(number=number).to_json())
            while ("w2", number) not in said:
                await asyncio.sleep(0)
        assert [one for one in said if one[0] == "w1"] == []
        etcd.set()
        while door._answering:
            await asyncio.sleep(0)
    assert [number for worker, number in said if worker == "w1"] == [1, 4], "of what waits only the last is answered"


async def test_two_replicas_that_begin_a_session_by_two_of_its_heartbeats_do_not_refuse_it() -> None:
    """The agent would take the refusal for its session's end."""

    class Far(MemoryStore):
        async def get(self, key: str, **more: Any) -> KeyValue | None:
            found = await super().get(key, **more)
            await asyncio.sleep(0)
            return found

    store = Far()
    leases = [Leases(store, 10.0, lambda _: True) for _ in range(2)]
    given = await asyncio.gather(*(one.beat("w1", beat(first=True, number=n)) for n, one in enumerate(leases)))
    assert [grant.refused for grant in given] == ["", ""]


async def test_whoever_has_not_registered_gets_nothing(leases: Leases, store: MemoryStore) -> None:
    assert (await leases.beat("stranger", beat(first=True))).refused == "not-registered"
    assert await store.get(worker_lease_key("stranger")) is None


async def test_a_session_that_is_over_cannot_be_renewed(leases: Leases, store: MemoryStore) -> None:
    await leases.beat("w1", beat(first=True))
    await expire(store)
    late = await leases.beat("w1", beat())
    assert (late.refused, late.seconds) == ("session-over", 0)
    assert await store.get(worker_lease_key("w1")) is None


async def test_two_agents_in_one_name_do_not_share_it(leases: Leases, store: MemoryStore) -> None:
    await leases.beat("w1", beat(ONE, first=True))
    assert (await leases.beat("w1", beat(TWO, first=True))).refused == "other-session"
    assert (await leases.beat("w1", beat(TWO))).refused == "other-session"
    assert (await leases.beat("w1", beat(ONE))).seconds == 10.0
    await expire(store)
    assert (await leases.beat("w1", beat(TWO, first=True))).seconds == 10.0


async def test_who_names_the_session_that_it_replaces_need_not_wait(leases: Leases) -> None:
    await leases.beat("w1", beat(ONE, first=True))
    assert (await leases.beat("w1", beat(TWO, first=True, replaces=ONE))).seconds == 10.0
    assert (await leases.beat("w1", beat(ONE))).refused == "other-session"


async def test_an_agent_that_leaves_is_gone_at_once(leases: Leases, store: MemoryStore) -> None:
    await leases.beat("w1", beat(first=True))
    await leases.beat("w1", beat(leaving=True))
    assert await store.get(worker_lease_key("w1")) is None


async def test_a_revoked_session_is_not_renewed_and_stays_until_its_lease_runs_out(
    leases: Leases, store: MemoryStore
) -> None:
    provider = AgentProvider(leases)
    await leases.beat("w1", beat(first=True))
    machine = await provider.launch(LaunchOrder("t", "w1", "host"))
    await provider.terminate(machine.id)
    assert (await leases.beat("w1", beat())).refused == "session-over"
    assert (await provider.describe(machine.id)).state is MachineState.TERMINATING
    with pytest.raises(InsufficientCapacity):
        await provider.launch(LaunchOrder("t", "w1", "host"))
    await expire(store)
    with pytest.raises(NotFound):
        await provider.describe(machine.id)


async def test_a_host_is_there_while_its_session_is(leases: Leases) -> None:
    provider = AgentProvider(leases)
    with pytest.raises(InsufficientCapacity, match="start it on its host"):
        await provider.launch(LaunchOrder("t", "w1", "host"))
    await leases.beat("w1", beat(ONE, first=True))
    machine = await provider.launch(LaunchOrder("t", "w1", "host"))
    assert (machine.id, machine.state, machine.url, machine.host) == (
        f"w1/{ONE}",
        MachineState.RUNNING,
        "agent://w1",
        "h1",
    )
    assert await provider.launch(LaunchOrder("t", "w1", "host")) == machine
    await leases.beat("w1", beat(TWO, first=True, replaces=ONE))
    with pytest.raises(NotFound, match="its labs with it"):
        await provider.describe(machine.id)
