"""What is true of every answer: ids, headers, problem documents, health; dead letters; the expiry of requests."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn

from lablet_common.bus.messages import DeadLetter
from lablet_common.store.changes import Unreadable
from lablet_common.telemetry.health import EmbeddedServer
from lablet_common.telemetry.metrics import REGISTRY
from lablet_gateway.expiry import Expiry
from lablet_gateway.graveyard import Graveyard
from lablet_gateway.rights import OPEN


async def test_every_answer_has_a_request_id_and_security_headers(world: Any) -> None:
    client = world.client()
    for path in ("/livez", "/api/v1/whoami", "/api/v1/nowhere"):
        answer = await client.get(path, headers={"X-Request-Id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    unsound = await client.get("/livez", headers={"X-Request-Id": "a b\t<script>"})
    assert unsound.headers["x-request-id"] != "a b\t<script>"


async def test_unknown_addresses_and_methods_are_problems(world: Any) -> None:
    client = world.client()
    for method, path, status in (("GET", "/api/v1/nowhere", 404), ("PUT", "/api/v1/whoami", 405)):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["requestId"] == answer.headers["x-request-id"]


async def test_a_defect_is_answered_without_its_details(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(world.store, "range", broken)
    answer = await world.client().get("/api/v1/workers")
    assert (answer.status_code, answer.json()["type"]) == (500, "https://lablet.io/problems/internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == answer.json()["requestId"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    (told,) = [record for record in caplog.records if record.message == "a request failed"]
    assert told.__dict__["request_id"] == answer.json()["requestId"], "the log has it under the request id"


async def test_what_is_stored_and_cannot_be_read_is_told_to_the_log_alone(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be another tenant's."""

    async def broken(*_: Any, **__: Any) -> Any:
        raise Unreadable("/reservations/rsv-a", "spec.roster: input_value='dora'")

    monkeypatch.setattr(world.store, "txn", broken)
    answer = await world.client().get("/api/v1/workers/default-001")
    assert (answer.status_code, answer.json()["type"]) == (500, "https://lablet.io/problems/internal")
    assert "dora" not in answer.text
    assert "rsv-a" not in answer.text
    (told,) = [record.__dict__ for record in caplog.records if "dora" in str(record.__dict__)]
    assert told["request_id"] == answer.json()["requestId"]


async def test_who_cannot_be_looked_up_is_told_who_is_away(world: Any) -> None:
    labels = {"method": "GET", "route": "unmatched", "status": "503"}
    before = REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) or 0
    world.store.unavailable = True
    unknown = f"lbk_default_{'a' * 26}_{'A' * 43}"
    answer = await world.client(None).get("/api/v1/whoami", headers={"Authorization": f"Bearer {unknown}"})
    assert (answer.status_code, answer.json()["dependency"]) == (503, "etcd")
    assert answer.headers["x-request-id"] == answer.json()["requestId"]
    assert REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) == before + 1


async def test_a_call_that_a_stop_does_not_wait_for_is_told_to_come_again(world: Any) -> None:
    """Its server cancels it, and would answer 500, as if something had gone wrong."""
    began = asyncio.Event()

    async def slow() -> None:
        began.set()
        await asyncio.sleep(60)

    world.app.add_api_route("/slow", slow)
    config = uvicorn.Config(
        world.app, host="127.0.0.1", port=0, lifespan="off", log_level="warning", ws="none", http="httptools",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = EmbeddedServer(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=15, trust_env=False) as http:
            asking = asyncio.create_task(http.get("/slow"))
            await began.wait()
            server.should_exit = True
            answer = await asking
        await serving
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["x-request-id"]
    assert answer.json()["type"].endswith("/unavailable")
    assert answer.json()["dependency"] == "api-gateway"


async def test_durations_are_counted_by_route_and_status(world: Any) -> None:
    labels = {"method": "GET", "route": "/api/v1/workers/{worker}", "status": "404"}
    before = REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) or 0
    await world.client().get("/api/v1/workers/nope")
    assert REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) == before + 1


def _api_series() -> set[tuple[str, ...]]:
    (family,) = (one for one in REGISTRY.collect() if one.name == "lablet_api_request_duration_seconds")
    return {tuple(sample.labels[name] for name in ("method", "route", "status")) for sample in family.samples}


async def test_the_number_of_series_is_bounded_whatever_is_asked(world: Any) -> None:
    async def ask(turn: int) -> None:
        for method in ("GET", "PUT", "PROPFIND", f"M{turn}", "TRACE"):
            for path in (f"/api/v1/reservations/rsv-{turn}", f"/api/v1/nowhere-{turn}", f"/{turn}", "/api/v1/whoami"):
                for name in ("ann", "admin@acme", None):
                    await clients[name].request(method, path, params={"limit": turn})

    clients = {name: world.client(name) for name in ("ann", "admin@acme", None)}
    await ask(0)
    first = _api_series()
    for turn in range(1, 4):
        await ask(turn)
    assert _api_series() == first
    assert {method for method, _, _ in first} <= {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"}
    assert ("other", "/api/v1/whoami", "405") in first


async def test_readiness_names_what_is_missing(world: Any) -> None:
    async def away() -> None:
        raise ConnectionError("nobody there")

    world.parts.health.add("etcd", away)
    answer = await world.client(None).get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["etcd"] == "failed: ConnectionError: nobody there"


async def test_who_what_and_when_are_told(world: Any) -> None:
    client = world.client("ann")
    assert (await client.get("/api/v1/whoami")).json() == {"name": "ann", "role": "learner", "tenant": "default"}
    assert (await client.get("/api/v1/clock")).json() == {"now": "2027-03-01T08:00:00Z", "speed": 1.0}
    assert (await client.get("/api/v1/version")).json()["api"] == "v1"


async def test_dead_letters_are_listed_read_and_replayed(world: Any) -> None:
    letter = DeadLetter(
        subject="lablet.intent.scheduler.default.reservation.rsv-a", headers={"ce-id": "1"}, payload=b"{}",
        stream="INTENTS_SCHEDULER", stream_sequence=5, consumer="scheduler-default", reason="poison", attempts=5,
        at=datetime(2027, 3, 1, tzinfo=UTC),
    )  # fmt: skip
    world.dead.letters = {3: letter, 4: letter}
    client = world.client("operator@default")
    page = (await client.get("/api/v1/dead-letters", params={"limit": 1})).json()
    assert [item["sequence"] for item in page["items"]] == [3]
    rest = (await client.get("/api/v1/dead-letters", params={"cursor": page["nextCursor"]})).json()
    assert [(item["sequence"], item["reason"]) for item in rest["items"]] == [(4, "poison")]
    assert (await client.post("/api/v1/dead-letters/4/replay")).status_code == 200
    assert world.dead.replayed == [(letter.subject, letter)]
    assert list(world.dead.letters) == [3], "what was sent again leaves the queue"
    assert (await client.post("/api/v1/dead-letters/9/replay")).status_code == 404


class _Published:
    """A bridge that has published everything up to `cursor`."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor


class _Fence:
    def __init__(self, holds: bool = True) -> None:
        self._holds = holds

    def guard(self, txn: Any) -> None:
        if not self._holds:
            txn.require_create_revision("/ownership/api-gateway/bridge-request", 999_999)


@pytest.fixture
def expiry(world: Any) -> Callable[..., Expiry]:
    def make(cursor: int = 10**9, holds: bool = True) -> Expiry:
        return Expiry(world.store, world.clock, _Fence(holds), _Published(cursor), timedelta(hours=24))  # type: ignore[arg-type]  # twins

    return make


async def test_a_decided_request_expires_after_a_day_and_an_undecided_one_never(
    world: Any, booking: Any, expiry: Any
) -> None:
    client = world.client("ina")
    decided = (await client.post("/api/v1/reservations", json=booking())).headers["location"]
    await world.decide()
    waiting = (await client.post("/api/v1/reservations", json=booking())).headers["location"]
    await world.clock.advance(timedelta(hours=23))
    assert await expiry().sweep() == 0
    await world.clock.advance(timedelta(hours=2))
    assert await expiry(cursor=1).sweep() == 0  # its outcome has not been published yet
    assert await expiry(holds=False).sweep() == 0  # another replica owns the requests now
    assert await expiry().sweep() == 1
    assert (await client.get(decided)).status_code == 404
    assert (await client.get(waiting)).status_code == 200


async def test_who_has_just_taken_over_sweeps_as_soon_as_the_bridge_knows_how_far_it_is(
    world: Any, booking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soak's find: an owner that is lost every few minutes never swept, as its first look came too early."""
    monkeypatch.setattr("lablet_gateway.expiry._BEGIN_SECONDS", 0.001)
    decided = (await world.client("ina").post("/api/v1/reservations", json=booking())).headers["location"]
    await world.decide()
    await world.clock.advance(timedelta(hours=25))
    bridge = _Published(0)
    owner = Expiry(world.store, world.clock, _Fence(), bridge, timedelta(hours=24))  # type: ignore[arg-type]  # twins
    sweeping = asyncio.create_task(owner.run())
    try:
        await asyncio.sleep(0.02)
        assert (await world.client("ina").get(decided)).status_code == 200
        bridge.cursor = 10**9
        async with asyncio.timeout(5):
            while (await world.client("ina").get(decided)).status_code != 404:
                await asyncio.sleep(0.005)
    finally:
        sweeping.cancel()
        await asyncio.wait({sweeping})


async def test_every_operation_documents_its_answers(world: Any) -> None:
    schema = world.app.openapi()
    assert schema["openapi"].startswith("3.1")
    names = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if (method.upper(), path) in OPEN:
                continue
            assert {"401", "403", "422", "503"} <= set(operation["responses"]), (method, path)
            assert operation["description"], (method, path)
            assert operation["security"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert "application/problem+json" in answer["content"], (method, path, status)
                elif status != "204":
                    content = answer.get("content", {})
                    assert content, (method, path, status)
                    assert all(media["schema"] for media in content.values()), (method, path, status)


def _letter(consumer: str) -> DeadLetter:
    return DeadLetter(
        subject="lablet.event.default.reservation.default.rsv-a", headers={}, payload=b"{}", stream="EVENTS",
        stream_sequence=5, consumer=consumer, reason="poison", attempts=5, at=datetime(2027, 3, 1, tzinfo=UTC),
    )  # fmt: skip


async def test_dead_letters_are_narrowed_forgotten_and_purged(world: Any) -> None:
    world.dead.letters = {number: _letter("webhook-lms" if number % 2 else "scheduler") for number in range(1, 7)}
    client, path = world.client("operator@default"), "/api/v1/dead-letters"
    listed = (await client.get(path, params={"consumer": "webhook-lms"})).json()["items"]
    assert [item["sequence"] for item in listed] == [1, 3, 5]
    assert (await client.delete(f"{path}/1")).status_code == 204
    assert (await client.delete(f"{path}/1")).status_code == 404
    assert (await client.delete(path, params={"consumer": "webhook-lms"})).json() == {"purged": 2}
    assert sorted(world.dead.letters) == [2, 4, 6]
    assert (await client.delete(path)).json() == {"purged": 3}
    assert world.dead.letters == {}


async def test_a_letter_that_is_not_whole_is_not_replayed_and_says_why(world: Any) -> None:
    world.dead.letters = {1: replace(_letter("scheduler"), without="payload"), 2: _letter("scheduler")}
    client, path = world.client("operator@default"), "/api/v1/dead-letters"
    assert [item["without"] for item in (await client.get(path)).json()["items"]] == ["payload", ""]
    refused = await client.post(f"{path}/1/replay")
    assert refused.status_code == 409
    assert "was kept without its payload" in refused.json()["detail"]
    assert (world.dead.replayed, sorted(world.dead.letters)) == ([], [1, 2])
    assert (await client.post(f"{path}/2/replay")).status_code == 200
    assert world.dead.replayed == [("lablet.event.default.reservation.default.rsv-a", _letter("scheduler"))]


async def test_how_many_dead_letters_there_are_is_a_metric(world: Any) -> None:
    world.dead.letters = {1: _letter("scheduler"), 2: _letter("scheduler")}
    await Graveyard(world.dead).count()
    assert REGISTRY.get_sample_value("lablet_dead_letters") == 2
    world.dead.unavailable = True
    await Graveyard(world.dead).count()
    assert REGISTRY.get_sample_value("lablet_dead_letters") == 2, "what cannot be counted is not zero"


async def test_who_counts_dead_letters_no_more_leaves_no_number_behind(world: Any) -> None:
    """On the replica that counted before, it would be an alert until that ends."""
    world.dead.letters = {1: _letter("scheduler")}
    counting = asyncio.create_task(Graveyard(world.dead).count_for_ever())
    async with asyncio.timeout(5):
        while REGISTRY.get_sample_value("lablet_dead_letters") != 1:
            await asyncio.sleep(0.001)
    counting.cancel()
    await asyncio.wait({counting})
    assert REGISTRY.get_sample_value("lablet_dead_letters") == 0
