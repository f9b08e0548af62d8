"""The steady load: its pace, what becomes of what was accepted, and what is looked for at the end."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from lablet_local.soak import load as module
from lablet_local.soak.ending import kept
from lablet_local.soak.load import SteadyLoad

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)


class Door:
    """A gateway of a few lines: answers every POST with a request, whose outcome is as it is told."""

    def __init__(self) -> None:
        self.outcome = "Decided"
        self.gone: set[str] = set()
        self.late = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.asked: list[str] = []
        self._names = itertools.count(1)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append(f"{request.method} {path}")
        await self.hang.wait()
        if self.late:
            self.late -= 1
            raise httpx.ReadTimeout("late")
        if path == "/clock":
            return httpx.Response(200, json={"now": NOW.isoformat()})
        if path.startswith("/requests/"):
            return httpx.Response(200, json={"status": {"phase": self.outcome}})
        if request.method == "GET":
            return httpx.Response(404 if path.rpartition("/")[2] in self.gone else 200, json={"items": []})
        name = f"r-{next(self._names)}"
        body = {"kind": "Request", "spec": {"subject": f"reservation/{name}"}}
        return httpx.Response(202, json=body, headers={"location": f"/api/v1/requests/q-{name}"})


@pytest.fixture
async def door() -> Door:
    return Door()


@pytest.fixture
async def load(door: Door, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SteadyLoad]:
    monkeypatch.setattr(module, "_ASK_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(module, "_OUTCOME_SECONDS", 0.05)
    made = SteadyLoad(["http://one"], "token", 1, 150.0, b"lab: {}\n", 6000.0, "http://sink/")
    made._clients = [httpx.AsyncClient(base_url="http://one", transport=httpx.MockTransport(door))]
    yield made
    await made.close()


async def test_it_keeps_its_pace_while_nobody_answers(load: SteadyLoad, door: Door) -> None:
    door.hang.clear()
    running = asyncio.create_task(load.run())
    async with asyncio.timeout(10):
        while load.deeds.total() < 60:
            await asyncio.sleep(0.01)
    load.stop()
    door.hang.set()
    await running
    assert len(load.deeds) > 6, "of every kind"


async def test_what_is_accepted_is_followed_to_its_outcome(load: SteadyLoad) -> None:
    await load._reserve(load._rng)
    assert list(load.outcomes.values()) == ["Decided"]
    assert load.made == ["r-1"]
    check = kept(load, await load.lost())
    assert check.ok
    assert check.looked_at == 2


async def test_what_is_never_decided_is_lost(load: SteadyLoad, door: Door) -> None:
    door.outcome = "Pending"
    await load._reserve(load._rng)
    assert len(await load.lost()) == 1
    assert not kept(load, await load.lost()).ok


async def test_what_was_decided_after_its_client_had_gone_is_not_lost(load: SteadyLoad, door: Door) -> None:
    door.outcome = "Pending"
    await load._reserve(load._rng)
    door.outcome = "Decided"
    assert await load.lost() == []


async def test_a_read_that_is_late_is_not_a_reservation_that_is_lost(load: SteadyLoad, door: Door) -> None:
    await load._reserve(load._rng)
    door.late = 2
    assert await load.lost() == []


async def test_what_was_made_and_is_nowhere_is_lost_and_what_was_refused_is_not(load: SteadyLoad, door: Door) -> None:
    await load._reserve(load._rng)
    door.outcome = "Refused"
    await load._reserve(load._rng)
    door.gone = {"r-1", "r-2"}
    assert await load.lost() == ["reservation r-1 was accepted and is nowhere"]


async def test_a_deed_that_fails_is_counted_and_the_others_go_on(load: SteadyLoad) -> None:
    async def broken(_: Any) -> None:
        raise KeyError("metadata")

    await load._do(broken)
    assert load.faults == {"broken KeyError: 'metadata'": 1}


async def test_a_read_that_is_not_answered_is_counted(load: SteadyLoad, door: Door) -> None:
    door.gone = {"usage"}
    assert await load._want("/usage") is None
    assert load.faults == {"usage 404": 1}


async def test_only_recent_bookings_are_changed_and_authors_do_not_write_without_end(load: SteadyLoad) -> None:
    for _ in range(50):
        await load._reserve(load._rng)
    assert len(load._booked) == 30
    assert load._booked[-1] == "r-50"


async def test_subscriptions_come_and_go(load: SteadyLoad, door: Door) -> None:
    await load._subscribe(load._rng)
    await load._subscribe(load._rng)
    made, gone = [one for one in door.asked if "subscriptions" in one]
    assert made == "POST /subscriptions"
    assert gone.startswith("DELETE /subscriptions/soak-")
