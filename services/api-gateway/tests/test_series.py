"""Series through the API: checked at the door, accepted like any request, found from the first moment on, rehearsed."""

import asyncio
from typing import Any

import pytest

from lablet_common.intents import SimulatedReservation, SimulateRequested, Simulation
from lablet_common.requests import Inbox, decide_in
from lablet_common.resources.reservation import Explanation
from lablet_common.store import Transaction

PATH = "/api/v1/series"
TERM = {
    "definition": "ospf-basics",
    "seats": 2,
    "start": "2027-03-22T09:00:00+01:00",
    "durationMinutes": 120,
    "rule": "FREQ=WEEKLY;COUNT=3",
    "timezone": "Europe/Berlin",
    "exceptDates": ["2027-03-29"],
}


async def test_a_term_goes_to_the_owner_of_its_first_pool_with_its_definition_resolved(world: Any) -> None:
    client = world.client("ina")
    await world.add(world.pool("spare"))
    answer = await client.post(PATH, json=TERM | {"pools": ["spare", "default"], "labels": {"course": "ccna-1"}})
    assert answer.status_code == 202
    (waiting,) = await world.inbox(shard="spare")
    assert waiting.spec.type == "io.lablet.series.requested.v1"
    template = waiting.spec.data["template"]
    assert (template["definition"], template["pools"], template["durationMinutes"]) == (
        "ospf-basics@1.0.0", ["spare", "default"], 120,
    )  # fmt: skip
    shown = (await client.get(f"{PATH}/{waiting.spec.data['id']}")).json()
    assert (shown["status"]["phase"], shown["metadata"]["labels"]) == ("Pending", {"course": "ccna-1"})
    again = await client.post(PATH, json=TERM, headers={"Idempotency-Key": "k"})
    assert (await client.post(PATH, json=TERM, headers={"Idempotency-Key": "k"})).json()["metadata"]["id"] == (
        again.json()["metadata"]["id"]
    )


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"rule": "FREQ=SECONDLY"}, "rule"),
        ({"rule": "FREQ=DAILY;COUNT=401"}, "rule"),
        ({"timezone": "Europe/Nowhere"}, "timezone"),
        ({"exceptDates": ["2027-03-30"]}, "exceptDates"),
        ({"definition": "opsf-basics"}, "definition"),
        ({"pools": ["nowhere"]}, "pools[0]"),
        ({"start": "2027-02-01T09:00:00Z", "exceptDates": []}, "start"),
        ({"durationMinutes": None}, "end"),
        ({"roster": [{"seat": 3, "user": "bob"}]}, "roster"),
    ],
)
async def test_what_could_never_be_placed_is_told_at_the_door(world: Any, wrong: dict[str, Any], field: str) -> None:
    answer = await world.client("ina").post(PATH, json=TERM | wrong)
    assert answer.status_code == 422
    assert field in [error["path"] for error in answer.json()["errors"]]
    assert await world.inbox() == []


async def test_the_owners_of_a_series_change_and_cancel_it(world: Any) -> None:
    await world.add(world.series())
    client = world.client("ina")
    body = {"scope": "following", "date": "2027-03-08", "seats": 3, "definition": "ospf-basics"}
    assert (await client.patch(f"{PATH}/ser-a", json=body)).status_code == 428
    assert (await client.patch(f"{PATH}/ser-a", json=body, headers={"If-Match": '"1"'})).status_code == 412
    tag = (await client.get(f"{PATH}/ser-a")).headers["etag"]
    assert (await client.patch(f"{PATH}/ser-a", json=body, headers={"If-Match": tag})).status_code == 202
    cancel = {"scope": "this", "date": "2027-03-08", "reason": "holiday"}
    assert (await client.delete(f"{PATH}/ser-a", params=cancel)).status_code == 202
    change, cancelling = await world.inbox()
    assert change.spec.data == body | {"definition": "ospf-basics@1.0.0"}
    assert cancelling.spec.data == cancel


async def test_a_scope_that_needs_a_date_says_so(world: Any) -> None:
    await world.add(world.series())
    client = world.client("ina")
    for answer in (
        await client.delete(f"{PATH}/ser-a", params={"scope": "this"}),
        await client.patch(f"{PATH}/ser-a", json={"scope": "following", "seats": 2}, headers={"If-Match": "*"}),
    ):
        assert answer.status_code == 422, answer.text
        assert [error["path"] for error in answer.json()["errors"]] == ["date"]


@pytest.mark.parametrize("phase", ["Completed", "Refused"])
async def test_nothing_can_be_asked_of_a_series_that_has_ended(world: Any, phase: str) -> None:
    await world.add(world.series(phase=phase))
    assert (await world.client("ina").delete(f"{PATH}/ser-a")).status_code == 409


async def test_series_are_listed_by_tenant_and_by_field(world: Any) -> None:
    await world.add(world.series(), world.series("ser-b", phase="Cancelled"), world.series("ser-c", tenant="acme"))
    listed = (await world.client("ina").get(PATH, params={"fieldSelector": "status.phase=Placed"})).json()["items"]
    assert [item["metadata"]["id"] for item in listed] == ["ser-a"]
    assert (await world.client("admin@acme").get(f"{PATH}/ser-a")).status_code == 404


# -- rehearsing ----------------------------------------------------------------------------------------------------


async def answer(world: Any, shard: str, fits: set[str]) -> SimulateRequested:
    """As the owner of the pool would: dates in `fits` are placed."""
    inbox = Inbox(world.store, "scheduler", shard)
    while not (pending := await inbox.pending()):
        await asyncio.sleep(0)
    asked = SimulateRequested.model_validate(pending[0].request.spec.data)
    found = tuple(
        SimulatedReservation(
            definition=wish.definition,
            seats=wish.seats,
            outcome="placed" if f"{wish.start:%m-%d}" in fits else "waitlisted",
            explanation=Explanation(summary=f"says {shard}"),
        )
        for wish in asked.wishes
    )
    told = Simulation(
        pool=shard, workers=2, reservations=found, worker_hours_before=0, worker_hours_after=2, worker_hours_added=2,
        cost_added_usd=1.5,
    )  # fmt: skip
    txn = Transaction()
    decide_in(txn, pending[0], at=world.now, by="/lablet/scheduler", reason="Simulated", answer=told.to_dict())
    await txn.commit(world.store)
    return asked


async def test_a_dry_run_tells_how_each_date_fits_and_where_what_is_left_would_go(world: Any) -> None:
    await world.add(world.pool("spare"))
    owners = asyncio.gather(answer(world, "default", {"03-22"}), answer(world, "spare", {"04-05"}))
    body = TERM | {"pools": ["default", "spare"]}
    said = (await world.client("ina").post(PATH, params={"dryRun": "true"}, json=body)).json()
    first, second = await owners
    assert [len(first.wishes), len(second.wishes)] == [2, 1], "the second pool is asked for what the first cannot take"
    assert [(one["date"], one["fits"], one.get("pool")) for one in said["dates"]] == [
        ("2027-03-22", True, "default"), ("2027-04-05", True, "spare"),
    ]  # fmt: skip
    assert [one["start"] for one in said["dates"]] == ["2027-03-22T08:00:00Z", "2027-04-05T07:00:00Z"]
    assert (said["granted"], said["workerHoursAdded"], said["costAddedUsd"]) == (True, 4.0, 3.0)
    assert await world.inbox() == []


@pytest.mark.parametrize(("mode", "granted"), [("all", False), ("fits", True)])
async def test_a_dry_run_says_whether_the_series_would_be_granted(world: Any, mode: str, granted: bool) -> None:
    owner = asyncio.ensure_future(answer(world, "default", {"03-22"}))
    said = (await world.client("ina").post(PATH, params={"dryRun": "true"}, json=TERM | {"mode": mode})).json()
    await owner
    assert said["granted"] is granted
    assert [(one["fits"], one["reason"]) for one in said["dates"]] == [(True, "says default"), (False, "says default")]
