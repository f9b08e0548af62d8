"""What waits to be decided is bounded: new work beyond it is sent away, and nothing that was accepted suffers for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from lablet_common.intents import INTENTS, Nothing
from lablet_common.requests import accept, build_request, digest_of, request_key
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.store import MemoryStore
from lablet_common.telemetry.metrics import SHED
from lablet_gateway.admission import NEW_WORK, Admission, Crowded
from lablet_gateway.app import create_app
from lablet_gateway.gathering import acceptance

AT = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)
RESERVE = "io.lablet.reservation.requested.v1"
CANCEL = "io.lablet.reservation.cancel.requested.v1"
BODY = {"definition": "ospf-basics", "seats": 1, "start": "2027-03-02T09:00:00Z", "durationMinutes": 60}
TYPE = "https://lablet.io/problems/overloaded"
Client = Callable[[str], httpx.AsyncClient]


class Wall:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(name: str, intent: str = RESERVE, shard: str = "default") -> Request:
    return build_request(
        INTENTS[intent],
        f"rsv-{name}",
        Nothing(),
        key=request_key("default", "ann", "POST", name),
        tenant="default",
        principal="ann",
        shard=shard,
        digest=digest_of({"name": name}),
        at=AT,
    )


def counted(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The inboxes that are counted in the store from now on."""
    looks: list[str] = []
    known = store.range

    async def looked(prefix: str, **more: Any) -> Any:
        looks.append(prefix)
        return await known(prefix, **more)

    monkeypatch.setattr(store, "range", looked)
    return looks


@asynccontextmanager
async def gateway(world: Any, **settings: Any) -> AsyncIterator[Client]:
    """Another gateway on the same store."""
    known = world.parts.settings.model_copy(update=settings)
    app = create_app(replace(world.parts, settings=known))
    clients: list[httpx.AsyncClient] = []

    def client(name: str) -> httpx.AsyncClient:
        clients.append(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://gateway/api/v1",
                headers={"Authorization": f"Bearer secret-of-{name}"},
            )
        )
        return clients[-1]

    yield client
    for one in clients:
        await one.aclose()


async def patient(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Again until it is not sent away: a count is taken for true for a moment."""
    async with asyncio.timeout(5):
        while (answer := await call()).status_code == 503:
            await asyncio.sleep(0.005)
    return answer


def test_only_what_asks_for_more_is_new_work() -> None:
    assert set(INTENTS) >= NEW_WORK
    assert not any("cancel" in name or "drain" in name or "stop" in name for name in NEW_WORK)


async def test_beyond_the_depth_new_work_is_sent_away_and_what_takes_back_is_let_in() -> None:
    admission = Admission(MemoryStore(), 4, Wall())
    judged = await admission.judge([ask(f"r{number}") for number in range(6)])
    assert [one is None for one in judged] == [True] * 4 + [False] * 2
    judged = await admission.judge([ask(f"c{number}", CANCEL) for number in range(4)])
    assert [one is None for one in judged] == [True] * 2 + [False] * 2, "half as many again, and no more"
    other = await admission.judge([ask("o", shard="other")])
    assert other == [None], "each inbox has a depth of its own"


async def test_what_has_been_decided_makes_room_and_others_replicas_count(monkeypatch: pytest.MonkeyPatch) -> None:
    store, wall = MemoryStore(), Wall()
    admission = Admission(store, 2, wall)
    for number in range(3):
        await accept(store, ask(f"elsewhere{number}"))
    (no,) = await admission.judge([ask("a")])
    assert isinstance(no, Crowded)
    assert (no.service, no.shard, no.waiting) == ("scheduler", "default", 3)
    looks = counted(store, monkeypatch)
    assert all(isinstance(one, Crowded) for one in await admission.judge([ask("a")] * 50))
    assert looks == [], "who is sent away costs no count of their own"
    await store.delete("/inbox/scheduler/default/", prefix=True)
    wall.now += 0.03
    assert await admission.judge([ask("a"), ask("b")]) == [None, None]
    assert len(looks) == 1


async def test_a_round_accepts_whom_there_is_room_for_and_tells_the_others() -> None:
    store = MemoryStore()
    accepting = acceptance(store, deepest=3)
    before = SHED.labels("inbox")._value.get()
    outcomes = await asyncio.gather(*(accepting.ask(ask(f"r{n}")) for n in range(10)), return_exceptions=True)
    assert sum(isinstance(one, Crowded) for one in outcomes) == 7
    kept = {kv.key.rpartition("/")[2] for kv in (await store.range("/inbox/")).items}
    assert kept == {one.request.id for one in outcomes if not isinstance(one, BaseException)}
    assert len(kept) == 3
    assert SHED.labels("inbox")._value.get() == before + 7


@pytest.mark.parametrize("definition", ["ospf-basics", "ospf-basics@1.0.0"])  # looked up, or known already
async def test_a_full_inbox_is_503_with_when_to_come_back_and_a_repeated_key_still_gets_its_answer(
    world: Any, definition: str
) -> None:
    async with gateway(world, gateway_max_undecided=2) as client:
        ina = client("ina")
        one = BODY | {"definition": definition}
        first = await ina.post("/reservations", json=one, headers={"Idempotency-Key": "one"})
        await ina.post("/reservations", json=BODY)
        shed = await ina.post("/reservations", json=BODY, headers={"Idempotency-Key": "two"})
        assert (shed.status_code, shed.headers["content-type"]) == (503, "application/problem+json")
        assert int(shed.headers["retry-after"]) >= 1
        said = shed.json()
        assert (said["type"], said["service"], said["shard"], said["waiting"]) == (TYPE, "scheduler", "default", 2)
        again = await ina.post("/reservations", json=one, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()["metadata"]["id"]) == (202, first.json()["metadata"]["id"])
        assert (await ina.get("/reservations")).status_code == 200, "reads go on"
        cancel = await ina.delete(f"/reservations/{first.json()['spec']['subject'].partition('/')[2]}")
        assert cancel.status_code == 202, "what is given back is let in"
        for _ in range(3):
            await world.decide(problem=None)
        taken = await patient(lambda: ina.post("/reservations", json=BODY, headers={"Idempotency-Key": "two"}))
        assert taken.status_code == 202
        assert len(await world.inbox()) == 1
        assert {waiting.status.phase for waiting in await world.inbox()} == {RequestPhase.ACCEPTED}


@pytest.mark.parametrize(
    ("path", "body"), [("/reservations:simulate", BODY), ("/pools/default:optimise", {"dryRun": True})]
)
async def test_a_question_that_waits_already_is_not_sent_away_when_it_is_repeated(
    world: Any, path: str, body: Any
) -> None:
    async with gateway(world, gateway_max_undecided=1) as client:
        admin, headers = client("admin@default"), {"Idempotency-Key": "one", "Prefer": "wait=0"}
        first = await admin.post(path, json=body, headers=headers)
        again = await admin.post(path, json=body, headers=headers)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.headers["location"] == again.headers["location"]
        assert (await admin.post(path, json=body, headers={"Prefer": "wait=0"})).status_code == 503


async def test_events_in_a_batch_beyond_the_depth_are_503_and_may_be_sent_again_as_they_are(world: Any) -> None:
    def event(number: int) -> dict[str, Any]:
        return {"specversion": "1.0", "id": f"e{number}", "source": "/lms", "type": RESERVE, "data": BODY}

    batch = {"content-type": "application/cloudevents-batch+json"}
    async with gateway(world, gateway_max_undecided=3) as client:
        ina = client("ina")
        shed = await ina.post("/events", json=[event(number) for number in range(5)], headers=batch)
        assert (shed.status_code, shed.json()["type"]) == (503, TYPE)
        assert int(shed.headers["retry-after"]) >= 1
        while waiting := len(await world.inbox()):
            for _ in range(waiting):
                await world.decide(problem=None)
        answer = await patient(lambda: ina.post("/events", json=[event(number) for number in range(5)], headers=batch))
        assert answer.status_code == 202
        assert [one["result"] for one in answer.json()["results"]] == ["accepted"] * 5
        assert len(await world.inbox()) == 2, "the first three were decided before"
