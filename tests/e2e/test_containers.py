"""The compose file's mesh with several replicas: shards spread and move, streams resume, and each service is replaced
replica by replica under load without one failed call. Runs with `--mesh compose` only."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import etcd3
import httpx
import pytest

from lablet_client import Client
from lablet_client.events import Event, Filter
from lablet_common.testing.containers import ContainerMesh

pytestmark = [
    pytest.mark.docker,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]
POOLS = 20
LEASE_SECONDS = 5.0
"""Of the compose file: OWNERSHIP_LEASE_TTL_SECONDS."""


def owners(mesh: ContainerMesh, service: str) -> dict[str, str]:
    """Shard → replica, as etcd holds them, read through etcd3-py."""
    host, _, port = mesh.etcd_endpoint.rpartition(":")
    prefix = f"/lablet/ownership/{service}/"
    found = etcd3.Client(host, int(port), timeout=10).range(prefix, prefix=True)
    return {pair.key.decode().removeprefix(prefix): pair.value.decode() for pair in found.kvs or ()}


async def until(what: Any, said: str, *, seconds: float = 30.0) -> Any:
    """Waits until `what()`, run beside the loop, is true."""
    last = None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        last = await asyncio.to_thread(what)
        if last:
            return last
        await asyncio.sleep(0.2)
    pytest.fail(f"not within {seconds:g} s: {said}")


async def make_pools(door: Any) -> None:
    for number in range(POOLS):
        answer = await door.call(
            "PUT",
            f"/pools/shard-{number:02d}",
            json={"spec": {"template": "simulated", "max": 1}},
            headers={"prefer": "wait=10", "idempotency-key": f"pool-{number}"},
        )
        assert answer.status_code in (200, 201), answer.text


async def test_shards_spread_and_those_of_a_killed_scheduler_move(door: Any, containers: ContainerMesh) -> None:
    await make_pools(door)
    definition = await door.publish("vlan-trunking")
    schedulers = containers.containers("scheduler")
    assert len(schedulers) == 3
    names = {containers.hostname(one): one for one in schedulers}

    def spread() -> Counter[str]:
        held = owners(containers, "scheduler")
        return Counter(next(name for name in names if name in owner) for owner in held.values())

    await until(lambda: sum(spread().values()) > POOLS and len(spread()) == 3, "every scheduler owns something")

    held = owners(containers, "scheduler")
    victim = next(name for name in names if name in held["default"])
    await asyncio.to_thread(containers.kill, names[victim])
    killed = time.monotonic()
    try:
        slot = await door.slot(lead=700, minutes=30)
        answer = await door.reserve({"definition": definition, "seats": 1, **slot}, wait=30)
        assert answer.status_code == 201, answer.text
        assert time.monotonic() - killed < LEASE_SECONDS + 10

        def moved() -> bool:
            present = owners(containers, "scheduler")
            return set(present) >= set(held) and not any(victim in owner for owner in present.values())

        await until(moved, "the others own what it owned")
    finally:
        await asyncio.to_thread(containers.begin, names[victim])
    await until(lambda: len(spread()) == 3, "it owns something again")


async def test_worker_controllers_share_the_pools(door: Any, containers: ContainerMesh) -> None:
    await make_pools(door)
    names = [containers.hostname(one) for one in containers.containers("worker-controller")]
    assert len(set(names)) == 2
    await until(
        lambda: all(any(name in owner for owner in owners(containers, "worker-controller").values()) for name in names),
        "both own something",
    )


async def test_a_stream_goes_on_without_gap_or_repeat_when_its_gateway_is_killed(
    door: Any, containers: ContainerMesh
) -> None:
    definition = await door.publish("vlan-trunking")
    seen: list[Event] = []
    lost = asyncio.Event()
    connected = asyncio.Event()

    async with Client(door.url, door.token) as client:

        def state(up: bool) -> None:
            (connected if up else lost).set()

        async def follow() -> None:
            async for event in client.events.watch(Filter(kind="reservation"), on_state=state):
                seen.append(event)  # noqa: PERF401 - it is looked at while it grows

        following = asyncio.create_task(follow())
        try:
            await asyncio.wait_for(connected.wait(), 10)
            made = [await book(door, definition, "before")]
            await until(lambda: any(made[0] in event.subject for event in seen), "the stream tells of a booking")
            for gateway in containers.containers("api-gateway"):
                await asyncio.to_thread(containers.kill, gateway)
                made.append(await book(door, definition, gateway[:6]))
                await asyncio.to_thread(containers.begin, gateway)
                made.append(await book(door, definition, f"{gateway[:6]}-again"))
            await asyncio.wait_for(lost.wait(), 10)
            await until(
                lambda: any(made[-1] in event.subject for event in seen), "the stream tells of the last booking"
            )
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        for name in made:
            story = [event.id for event in await client.events.history(f"reservation/{name}")]
            assert [event.id for event in seen if event.subject.endswith(name)] == story[: len(story)], name


async def book(door: Any, definition: str, key: str) -> str:
    """A booking by a patient client: the same key again until there is an answer."""
    body = {"definition": definition, "seats": 1, **await door.slot(lead=800, minutes=30)}
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await door.call(
                "POST", "/reservations", json=body, headers={"prefer": "wait=10", "idempotency-key": f"book-{key}"}
            )
            if answer.status_code == 201:
                return str(answer.json()["metadata"]["id"])
            assert answer.status_code in (202, 502, 503, 504), answer.text
        assert time.monotonic() < deadline, "no answer came"
        await asyncio.sleep(0.2)


class Load:
    """Four clients that read and book all the time, without patience: whatever is not 2xx has failed."""

    def __init__(self, door: Any, definition: str) -> None:
        self._door = door
        self._definition = definition
        self.answered = 0
        self.failed: list[str] = []

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator["Load"]:
        slot = await self._door.slot(lead=2000, minutes=30)
        clients = [asyncio.create_task(self._client(slot)) for _ in range(4)]
        try:
            yield self
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _client(self, slot: dict[str, str]) -> None:
        while True:
            await self._one("GET", "/reservations?limit=5")
            await self._one("GET", "/workers?consistency=cache")
            body = {"definition": self._definition, "seats": 1, **slot}
            made = await self._one("POST", "/reservations", json=body, headers={"prefer": "wait=5"})
            if made is not None and made.status_code == 201:
                path = f"/reservations/{made.json()['metadata']['id']}"
                await self._one("DELETE", path, headers={"if-match": "*", "prefer": "wait=5"})

    async def _one(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        try:
            answer: httpx.Response = await self._door.call(method, path, **more)
        except httpx.TransportError as error:
            self.failed.append(f"{method} {path}: {error!r}")
            return None
        if answer.status_code in (200, 201, 202, 204):
            self.answered += 1
            return answer
        self.failed.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return None


@pytest.mark.parametrize("service", ["api-gateway", "scheduler", "worker-controller", "artifact-service"])
async def test_a_service_is_replaced_replica_by_replica_without_a_failed_call(
    door: Any, containers: ContainerMesh, service: str
) -> None:
    definition = await door.publish("vlan-trunking")
    async with Load(door, definition).flowing() as load:
        for replica in containers.containers(service):
            before = load.answered
            await asyncio.to_thread(containers.end, replica)
            assert containers.exit_code(replica) == 0, f"{service} did not end in order"
            await asyncio.to_thread(containers.begin, replica)
            await until(lambda before=before: load.answered > before + 20, "calls are answered")
    assert load.failed == []
