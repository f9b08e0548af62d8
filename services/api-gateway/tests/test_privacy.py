"""Whoever sits in a class sees their own seats: at no door do they learn who has the others, where, or how it went there."""

import asyncio
import json
from typing import Any

import pytest

from lablet_common.events import derive
from lablet_common.requests import Inbox, decide_in
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.reservation import Claim, Slot
from lablet_common.store import Transaction
from lablet_common.store.changes import update_in
from lablet_common.store.repository import Repository

URL = "/api/v1/reservations"
SECRETS = ("bob", "ins-class-2", "2002", "Failed", "c" * 64)
"""Of the class: who has the other seat, its lab, its port, how it ended, and a link that is out."""
WHOLE = ("ina", "admin@default", "operator@default", "instructor@default", "machine@default")
"""Who sees all of it: whoever booked it, and the tenant's staff and machines."""


def a_class(world: Any, phase: str = "Active", **more: Any) -> Any:
    booked = world.reservation("rsv-class", owner="ina", phase=phase, roster={1: "ann", 2: "bob"}, seats=3, **more)
    spec = booked.spec.model_copy(
        update={"claims": (Claim(seat=3, sha256="c" * 64),), "extendable_minutes": 60, "seats": 3}
    )
    status = booked.status.model_copy(update={"outcomes": {"1": "Terminated", "2": "Failed"}})
    return booked.model_copy(update={"spec": spec, "status": status})


def check(text: str) -> None:
    """It is told, with one's own seat and nothing of the others."""
    assert '"user":"ann"' in text.replace(" ", "")
    assert "ins-class-1" in text
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize(
    "way",
    ["/rsv-class", "/rsv-class?consistency=cache", "", "?consistency=cache", "?fieldSelector=spec.roster.user=ann"],
)
async def test_reading_a_class_shows_a_learner_their_own_seat(world: Any, way: str) -> None:
    await world.add(a_class(world))
    await world.caught_up()
    answer = await world.client("ann").get(URL + way)
    assert answer.status_code == 200, answer.text
    check(answer.text)
    for name in WHOLE:
        text = (await world.client(name).get(URL + way)).text
        assert "bob" in text, name
        assert "ins-class-2" in text, name


@pytest.mark.parametrize("way", ["", "&consistency=cache", "&archived=true"])
@pytest.mark.parametrize(
    "guess", ["spec.roster.user=bob", "status.placement.instance=ins-class-2", "spec.claims.seat=3"]
)
async def test_a_field_selector_cannot_be_used_to_guess_who_has_the_other_seats(
    world: Any, way: str, guess: str
) -> None:
    if "archived" in way:
        await world.archive(a_class(world, "Completed"))
    else:
        await world.add(a_class(world))
        await world.caught_up()
    query = f"{URL}?fieldSelector={guess}{way}"
    assert (await world.client("ann").get(query)).json()["items"] == []
    assert len((await world.client("ina").get(query)).json()["items"]) == 1


@pytest.mark.parametrize("way", ["/rsv-class", "?archived=true"])
async def test_an_archived_class_shows_no_more(world: Any, way: str) -> None:
    await world.archive(a_class(world, "Completed"))
    check((await world.client("ann").get(URL + way)).text)
    assert "bob" in (await world.client("ina").get(URL + way)).text


async def test_the_reasons_name_nobody(world: Any) -> None:
    await world.add(a_class(world))
    answer = await world.client("ann").get(f"{URL}/rsv-class/explanation")
    assert answer.status_code == 200
    assert "bob" not in answer.text


async def test_the_answer_to_asking_for_more_time_shows_no_more(world: Any) -> None:
    await world.add(a_class(world))
    asked = asyncio.create_task(
        world.client("ann").patch(
            f"{URL}/rsv-class", json={"end": "2027-03-01T11:30:00Z"}, headers={"If-Match": "*", "Prefer": "wait=5"}
        )
    )
    async with asyncio.timeout(5):
        while not (pending := await Inbox(world.store, "scheduler", "default").pending()):
            await asyncio.sleep(0.01)
    found = await Repository(world.store, RESERVATION).require("rsv-class")
    longer = found.observed("moved", slot=Slot(start=found.slot.start, end=found.slot.end.replace(minute=30)))
    txn = Transaction()
    update_in(txn, longer)
    decide_in(txn, pending[0], at=world.clock.now(), by="/lablet/scheduler", reason="Extended", resource=longer)
    await txn.commit(world.store)
    answer = await asked
    assert answer.status_code == 200, answer.text
    check(answer.text)
    assert "11:30:00Z" in answer.text


async def test_taking_a_link_again_shows_no_more(world: Any) -> None:
    await world.add(a_class(world))
    code = f"class-{'a' * 32}"
    answer = await world.client("ann").post(f"/api/v1/claims/{code}")
    assert answer.status_code == 200, answer.text
    check(answer.text)


def published(resource: Any, revision: int) -> Any:
    (outgoing,) = derive(RESERVATION, None, resource.at_revision(revision), revision, source="/lablet/scheduler")
    return outgoing.event


async def test_events_tell_a_learner_no_more_live_resumed_or_as_history(world: Any, listen: Any) -> None:
    booked = a_class(world)
    await world.add(booked)
    await world.caught_up()
    async with listen(token="ann") as stream:
        world.log.append(published(booked, 900))
        frame = await stream.next()
    check(frame["data"])
    told = json.loads(frame["data"])
    assert told["subject"] == "reservation/rsv-class"
    assert told["sequence"].endswith("900")
    before = frame["id"].rpartition("-")
    async with listen(token="ann", last=f"{before[0]}-{int(before[2]) - 1}") as stream:
        assert (await stream.next())["data"] == frame["data"]
    story = await world.client("ann").get("/api/v1/events?subject=reservation/rsv-class")
    check(story.text)
    async with listen(token="ina") as stream:
        world.log.append(published(booked, 901))
        assert "bob" in (await stream.next())["data"]


async def test_who_has_left_the_roster_sees_nothing_any_more(world: Any) -> None:
    await world.add(a_class(world))
    cy = world.client("learner@default")
    assert (await cy.get(f"{URL}/rsv-class")).status_code == 404
    assert (await cy.get(URL)).json()["items"] == []
