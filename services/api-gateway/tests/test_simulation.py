"""What-ifs: resolved and checked like real bookings, answered from the request, nothing booked."""

import asyncio
from typing import Any

import pytest

from lablet_common.intents import SimulateRequested
from lablet_common.requests import Inbox, decide_in
from lablet_common.store import Transaction

WISH = {"definition": "ospf-basics", "start": "2027-03-01T09:00:00Z", "durationMinutes": 30, "seats": 2}
ANSWER = {"pool": "default", "workers": 2, "reservations": []}


async def answer_as_the_scheduler_would(world: Any) -> SimulateRequested:
    inbox = Inbox(world.store, "scheduler", "default")
    while not (pending := await inbox.pending()):
        await asyncio.sleep(0)
    txn = Transaction()
    decide_in(txn, pending[0], at=world.now, by="/lablet/scheduler", reason="Simulated", answer=ANSWER)
    await txn.commit(world.store)
    return SimulateRequested.model_validate(pending[0].request.spec.data)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (":simulate", WISH),
        (":simulate", [WISH, WISH | {"seats": 3}]),
        (":simulate", {"reservations": [WISH], "workers": -1, "template": "simulated"}),
        ("?dryRun=true", WISH),
    ],
)
async def test_the_answer_comes_back_and_the_scheduler_gets_the_question_resolved(
    world: Any, path: str, body: Any
) -> None:
    deciding = asyncio.create_task(answer_as_the_scheduler_would(world))
    answer = await world.client("ann").post(f"/api/v1/reservations{path}", json=body)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    asked = await deciding
    assert {wish.definition for wish in asked.wishes} == {"ospf-basics@1.0.0"}
    assert len(asked.wishes) == (len(body) if isinstance(body, list) else 1)
    assert (asked.shape is not None) == ("template" in body)
    assert (await world.client("ann").get("/api/v1/reservations")).json()["items"] == []


async def test_when_nobody_answers_in_time_it_is_202_with_the_request(world: Any) -> None:
    answer = await world.client().post("/api/v1/reservations:simulate", json=WISH, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    assert (await world.client().get(answer.headers["location"])).json()["status"]["phase"] == "Accepted"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (WISH | {"definition": "none"}, "reservations[0].definition"),
        (WISH | {"start": "2027-02-01T09:00:00Z"}, "reservations[0].start"),
        (WISH | {"pool": "none"}, "reservations[0].pool"),
        ([WISH, WISH | {"pool": "other"}], "reservations"),
        ({"reservations": [WISH], "template": "none"}, "template"),
    ],
)
async def test_what_could_never_be_answered_is_refused_with_the_field_named(world: Any, body: Any, path: str) -> None:
    answer = await world.client().post("/api/v1/reservations:simulate", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == path
    assert await world.inbox() == []


TERM = {
    "definition": "ospf-basics", "start": "2027-03-22T09:00:00+01:00", "durationMinutes": 30, "seats": 4,
    "rule": "FREQ=WEEKLY;COUNT=2", "timezone": "Europe/Berlin",
}  # fmt: skip


async def test_what_is_misspelt_in_a_question_gets_the_nearest(world: Any) -> None:
    for body, remedy in (
        (WISH | {"pools": ["defualt"]}, "did you mean default?"),
        ({"reservations": [WISH], "template": "simulatd"}, "did you mean simulated?"),
    ):
        answer = await world.client().post("/api/v1/reservations:simulate", json=body)
        assert answer.json()["errors"][0]["remedy"] == remedy


@pytest.mark.parametrize(
    ("body", "starts"),
    [
        (TERM, ["03-22 08:00", "03-29 07:00"]),
        ([WISH, TERM], ["03-01 09:00", "03-22 08:00", "03-29 07:00"]),
        ({"series": [TERM, TERM], "workers": 2}, ["03-22 08:00", "03-29 07:00"] * 2),
    ],
)
async def test_every_date_of_a_series_is_asked_for(world: Any, body: Any, starts: list[str]) -> None:
    deciding = asyncio.create_task(answer_as_the_scheduler_would(world))
    answer = await world.client("ina").post("/api/v1/reservations:simulate", json=body)
    assert answer.status_code == 200
    asked = await deciding
    assert [f"{wish.start:%m-%d %H:%M}" for wish in asked.wishes] == starts
    assert {wish.definition for wish in asked.wishes} == {"ospf-basics@1.0.0"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (TERM | {"rule": "FREQ=HOURLY"}, "series[0].rule"),
        ({"series": [TERM | {"rule": "FREQ=DAILY;COUNT=300"}] * 2}, "series"),
        ({}, "reservations"),
        (TERM | {"pool": "defualt"}, "series[0].pool"),
        (TERM | {"pools": ["defualt"]}, "series[0].pools[0]"),
    ],
)
async def test_a_series_that_cannot_be_simulated_is_told_by_field(world: Any, body: Any, field: str) -> None:
    answer = await world.client("ina").post("/api/v1/reservations:simulate", json=body)
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == [field]
