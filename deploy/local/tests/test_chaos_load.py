"""The fault runs' clients: what they ask for, again until it is answered, what they keep of the answers, and how they go
home."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from lablet_local.chaos import load as module
from lablet_local.chaos.load import DEEDS, Load

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)


class Door:
    """A gateway of a few lines; `unanswered` so many requests are turned away first."""

    def __init__(self, unanswered: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.unanswered = unanswered
        self.turned_away_with = 503
        self.running: list[str] = []
        """Instances."""
        self.reservations: dict[str, dict[str, Any]] = {}
        self._names = itertools.count(1)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        if request.method == "GET":
            if path == "/clock":
                return httpx.Response(200, json={"now": NOW.isoformat()})
            if path == "/instances":
                return httpx.Response(200, json={"items": [{"metadata": {"id": name}} for name in self.running]})
            found = self.reservations.get(path.rpartition("/")[2])
            return httpx.Response(200, json=found) if found else httpx.Response(404)
        self.keys.append(request.headers["idempotency-key"])
        if self.unanswered:
            self.unanswered -= 1
            return httpx.Response(self.turned_away_with, json={"detail": "it went wrong"})
        self.asked.append((request.method, path))
        name = f"new-{next(self._names)}"
        return httpx.Response(201, json={"kind": "Series", "metadata": {"id": name}})

    def booked(self, name: str, minutes: int, phase: str = "Scheduled") -> None:
        start = (NOW + timedelta(minutes=minutes)).isoformat()
        self.reservations[name] = {
            "metadata": {"id": name},
            "status": {"phase": phase, "slot": {"start": start, "end": start}},
        }


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    made = Door()

    @asynccontextmanager
    async def http(base: str) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=base, transport=httpx.MockTransport(made.answer)) as client:
            yield client

    monkeypatch.setattr(module, "_http", http)
    return made


def clients(**more: Any) -> Load:
    return Load(["http://one", "http://two"], "token", 1, 150.0, b"lab: {}\n", **more)


async def test_what_is_not_answered_is_asked_again_with_the_same_key(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.001)
    door.unanswered = 3
    load = clients()
    await load.publish_first()
    assert len(door.keys) == 4
    assert len(set(door.keys)) == 1
    assert [(one.what, one.status, one.tries) for one in load.seen.asked] == [("publish", 201, 4)]


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504])
async def test_a_gateway_that_fails_by_itself_is_asked_again_and_seen(
    door: Door, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.001)
    door.unanswered, door.turned_away_with = 2, status
    load = clients()
    asking = asyncio.create_task(load.publish_first())
    await asyncio.wait({asking}, timeout=5)
    load.seen.note("GET /pools", httpx.Response(404))
    if status == 501:
        assert [one.status for one in load.seen.asked] == [501], "nothing that trying again would change"
        assert load.seen.by_class == {"501": 1, "4xx": 1}
        return
    assert load.seen.by_class == {str(status): 2, "2xx": 1, "4xx": 1}
    said = f'POST /definitions?name=chaos: {status} {{"detail":"it went wrong"}}'
    assert load.seen.server_errors == ([said] * 2 if status in (500, 502) else [])


async def test_how_long_nothing_was_accepted_is_measured_beside_how_long_nothing_was_read(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    load = clients()
    load._accepted_at = now
    now = 102.0
    await load._publish(random.Random(1))
    now = 107.5
    await load._ask("cancel", "DELETE", "/reservations/rsv-1")  # no POST
    now = 108.0
    await load._publish(random.Random(2))
    load.stop()
    now = 120.0
    await load._publish(random.Random(3))  # when all is over
    assert load.seen.longest_unwritable == 6.0
    now = 131.0
    await load._watch_availability()
    assert load.seen.longest_unwritable == 23.0, "to the end, where nothing was accepted any more"


async def test_what_was_never_accepted_is_asked_for_when_the_faults_are_over(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(module, "_MAKE_UP_SECONDS", 0.1)
    load = clients()
    door.booked("new-1", 20)
    door.reservations["new-1"]["metadata"]["resourceVersion"] = "7"
    await load.publish_first()
    load._booked.append("new-1")
    await load.make_up()
    missing = [names for names in DEEDS if not load.seen.shows(names)]
    assert missing == [("collect",)], "there was no lab"
    door.running.append("ins-1")
    before = len(load.seen.asked)
    await load.make_up()
    assert [one.what for one in load.seen.asked[before:]] == ["collect"], "once, and nothing else anew"


@pytest.mark.parametrize("enough", [True, False])
async def test_at_the_end_terms_are_cancelled_and_where_enough_has_run_who_has_booked_for_later_goes_home(
    door: Door, enough: bool
) -> None:
    load = clients()
    await load._book_series(random.Random(1))
    ran = [f"ran-{number}" for number in range(4 if enough else 2)]
    load._booked += ["near", "far", "begun", *ran]
    for name in ran:
        door.booked(name, -20, phase="Completed")
    door.booked("near", 9)
    door.booked("far", 11)
    door.booked("begun", 20, phase="Active")
    await load.wind_up()
    assert door.asked[0] == ("POST", "/series")
    home = [("DELETE", "/reservations/far")] if enough else []
    assert sorted(door.asked[1:]) == [*home, ("DELETE", "/series/new-1")]


@pytest.mark.parametrize("agents", [False, True])
async def test_jobs_are_run_only_where_there_are_agents(
    door: Door, monkeypatch: pytest.MonkeyPatch, agents: bool
) -> None:
    monkeypatch.setattr(random.Random, "uniform", lambda *_: 0.0)
    load = clients(job=str.encode) if agents else clients()
    running = asyncio.create_task(load.run())
    try:
        async with asyncio.timeout(10):
            while len(load.seen.asked) < 200 and not running.done():
                await asyncio.sleep(0)
    finally:
        load.stop()
        await running
    drawn = {one.what for one in load.seen.asked}
    assert {"reserve", "series", "publish"} <= drawn
    assert ("run" in drawn) is agents
