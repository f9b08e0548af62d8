"""What one caller may ask for, what is taken while etcd is slow, and what pages may load."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from lablet_gateway.app import create_app
from lablet_gateway.gathering import Gathering, Overloaded
from lablet_gateway.throttle import Buckets


def token_of(name: str) -> str:
    return f"secret-of-{name}"


class Wall:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_taken_and_then_the_rate() -> None:
    wall = Wall()
    buckets = Buckets(10.0, 5, wall)
    assert [buckets.take("default", "ann") for _ in range(5)] == [0.0] * 5
    assert buckets.take("default", "ann") == pytest.approx(0.1)
    assert buckets.take("default", "bob") == 0.0, "everybody has a bucket of their own"
    assert buckets.take("acme", "ann") == 0.0, "and so has the ann of another tenant"
    wall.now = 0.1
    assert buckets.take("default", "ann") == 0.0
    assert buckets.take("default", "ann") > 0.0
    wall.now = 100.0
    assert [buckets.take("default", "ann") for _ in range(6)].count(0.0) == 5, "no more than a burst is saved up"


def test_full_buckets_are_forgotten_and_empty_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lablet_gateway.throttle._REMEMBERED", 10)
    wall = Wall()
    buckets = Buckets(1.0, 2, wall)
    for number in range(9):
        buckets.take("default", f"n{number}")
    wall.now = 60.0
    for _ in range(3):
        buckets.take("default", "busy")
    buckets.take("default", "new")
    assert len(buckets) == 2
    assert buckets.take("default", "busy") > 0.0


def test_of_callers_that_never_rest_no_more_are_remembered_and_who_calls_most_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lablet_gateway.throttle._REMEMBERED", 20)
    wall = Wall()
    buckets, taken = Buckets(0.01, 5, wall), 0
    for number in range(100):
        wall.now += 0.1
        buckets.take("default", f"n{number}")
        taken += [buckets.take("default", "busy") for _ in range(5)].count(0.0)
        assert len(buckets) <= 20
    assert taken == 5, "the burst at first, and then the rate"


async def test_a_caller_beyond_the_rate_is_told_when_to_come_back_and_others_are_not_held(world: Any) -> None:
    settings = world.parts.settings.model_copy(update={"gateway_rate_limit": 0.5, "gateway_rate_burst": 3})
    app = create_app(replace(world.parts, settings=settings))

    async def call(name: str) -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token_of(name)}"})

    assert [(await call("ann")).status_code for _ in range(3)] == [200] * 3
    refused = await call("ann")
    assert (refused.status_code, refused.json()["type"]) == (429, "https://lablet.io/problems/too-many-requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert refused.headers["x-request-id"]
    assert (await call("bob")).status_code == 200
    assert (await call("nobody")).status_code == 401


async def test_without_a_rate_nobody_is_counted(world: Any) -> None:
    settings = world.parts.settings.model_copy(update={"gateway_rate_limit": 0.0, "gateway_rate_burst": 1})
    app = create_app(replace(world.parts, settings=settings))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        for _ in range(5):
            answer = await client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token_of('ann')}"})
            assert answer.status_code == 200


async def test_what_would_wait_too_long_is_refused_at_once_and_the_waiting_are_served() -> None:
    slow = asyncio.Event()

    async def work(items: Any) -> Any:
        await slow.wait()
        return list(items)

    gathering: Gathering[int, int] = Gathering(work, most=2)
    first = asyncio.create_task(gathering.ask(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(gathering.ask(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls wait"):
        await gathering.ask(3)
    slow.set()
    assert await asyncio.gather(first, *waiting) == [0, 1, 2]
    assert await gathering.ask(4) == 4


async def test_while_etcd_is_slow_calls_beyond_the_queue_are_503_and_name_it(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, txn = asyncio.Event(), world.store.txn

    async def late(*args: Any, **more: Any) -> Any:
        await slow.wait()
        return await txn(*args, **more)

    settings = world.parts.settings.model_copy(update={"gateway_max_waiting": 3})
    app = create_app(replace(world.parts, settings=settings))
    monkeypatch.setattr(world.store, "txn", late)
    headers = {"Authorization": f"Bearer {token_of('admin@default')}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        calls = [asyncio.create_task(client.get("/api/v1/workers/default-001", headers=headers)) for _ in range(10)]
        async with asyncio.timeout(5):
            while sum(call.done() for call in calls) < 6:
                await asyncio.sleep(0.01)
        slow.set()
        answers = await asyncio.gather(*calls)
    shed = [answer for answer in answers if answer.status_code == 503]
    assert len(shed) >= 6
    assert all(answer.json()["dependency"] == "etcd" and answer.headers["retry-after"] for answer in shed)
    assert all(answer.status_code == 200 for answer in answers if answer not in shed)


async def test_pages_load_only_what_they_say(world: Any) -> None:
    client = world.client(None)
    policies = {
        path: (await client.get(path)).headers["content-security-policy"] for path in ("/", "/api/docs", "/livez")
    }
    assert "script-src 'self'" in policies["/"]
    assert "cdn.jsdelivr.net" in policies["/api/docs"]
    assert policies["/livez"] == "default-src 'none'; frame-ancestors 'none'"
    assert all("frame-ancestors 'none'" in policy for policy in policies.values())
    described = await client.get("/api/docs/openapi.json")
    assert described.headers["content-security-policy"] == policies["/livez"]
    assert described.headers["cross-origin-opener-policy"] == "same-origin"
