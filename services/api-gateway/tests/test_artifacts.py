"""Stored content over HTTP: listed, linked, deleted on request; a learner keeps own work after the seat has left."""

from typing import Any

import pytest

from lablet_common.references import CARRIED, reference_key
from lablet_common.resources.artifact import Reference
from lablet_gateway import reads

PATH = "/api/v1/artifacts"
ARTIFACTS = ("artifact-service", "-")


async def test_a_learner_fetches_own_work_after_the_seat_has_left_for_the_archive(world: Any) -> None:
    booked = world.reservation("rsv-a", phase="Completed", roster={1: "ann", 2: "bob"})
    work = await world.artifact(b"hostname ann", "instance/ins-a-1")
    await world.add(work)
    await world.archive(booked, world.instance(booked, 1, "Terminated"))
    assert (await world.client("ann").get(f"{PATH}/{work.id}")).content == b"hostname ann"
    assert (await world.client("bob").get(f"{PATH}/{work.id}")).status_code == 404


async def test_the_tenants_objects_are_listed_in_pages_to_staff_alone(world: Any) -> None:
    mine = [await world.artifact(data, "instance/ins-a-1") for data in (b"one", b"two", b"three")]
    await world.add(*mine, await world.artifact(b"one", "instance/ins-z-1", "acme"))
    client = world.client("instructor@default")
    first = (await client.get(PATH, params={"limit": 2})).json()
    rest = (await client.get(PATH, params={"limit": 2, "cursor": first["nextCursor"]})).json()
    ids = [one["metadata"]["id"] for one in first["items"] + rest["items"]]
    assert ids == sorted(one.id for one in mine)
    assert (await world.client("ann").get(PATH)).status_code == 403


async def test_a_link_is_given_to_whoever_may_fetch_the_object(world: Any) -> None:
    booked = world.reservation("rsv-a", owner="ann")
    work = await world.artifact(b"hostname ann", "instance/ins-a-1")
    await world.add(booked, world.instance(booked), work)
    told = (await world.client("ann").get(f"{PATH}/{work.id}/link", params={"minutes": 5})).json()
    assert work.id in told["url"]
    assert told["url"].endswith("expires=300")
    assert (told["digest"], told["bytes"]) == (work.id, len(b"hostname ann"))
    assert (await world.client("bob").get(f"{PATH}/{work.id}/link")).status_code == 404
    assert (await world.client("ann").get(f"{PATH}/{work.id}/link", params={"minutes": 0})).status_code == 422


@pytest.mark.parametrize("gone", [False, True])
async def test_a_deletion_is_asked_of_the_owner_with_its_target_and_role(world: Any, gone: bool) -> None:
    booked = world.reservation("rsv-a", owner="ina", phase="Completed")
    seat = world.instance(booked, 1, "Terminated")
    work = await world.artifact(b"hostname ann", "instance/ins-a-1")
    await world.add(work)
    if gone:
        await world.archive(booked, seat)
    else:
        await world.add(booked, seat)
    ina = world.client("ina")
    assert (await ina.delete(f"{PATH}/{work.id}")).status_code == 202
    assert (await ina.delete("/api/v1/instances/ins-a-1/artifacts", params={"role": "collected"})).status_code == 202
    asked = await world.inbox(*ARTIFACTS)
    assert [(one.spec.subject, one.spec.data.get("role")) for one in asked] == [
        (f"artifact/{work.id}", None),
        ("artifact/ins-a-1", "collected"),
    ]
    assert (await ina.delete(f"{PATH}/{'0' * 64}")).status_code == 404
    assert (await ina.delete("/api/v1/instances/ins-never-1/artifacts")).status_code == 404
    assert (await ina.delete(f"{PATH}/{work.id}", params={"role": "nonsense"})).status_code == 422


async def test_a_deletion_may_be_asked_for_as_an_event_by_those_who_may_delete(world: Any) -> None:
    work = await world.artifact(b"hostname ann", "instance/ins-a-1")
    await world.add(work)
    event = {
        "specversion": "1.0", "id": "1", "source": "/privacy", "type": "io.lablet.artifact.delete.requested.v1",
        "subject": f"artifact/{work.id}", "data": {"reason": "asked by the learner"},
    }  # fmt: skip
    headers = {"Content-Type": "application/cloudevents+json"}
    assert (await world.client("ann").post("/api/v1/events", json=event, headers=headers)).status_code == 403
    assert (await world.client("ina").post("/api/v1/events", json=event, headers=headers)).status_code == 202
    (asked,) = await world.inbox(*ARTIFACTS)
    assert asked.spec.data["reason"] == "asked by the learner"


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_use_that_newer_ones_have_pushed_out_of_its_artifact_is_found(
    world: Any, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands have left the same file: the artifact carries the latest of them."""
    booked = world.reservation("rsv-a", owner="ann", roster={1: "ann"})
    work = await world.artifact(b"hostname Switch", "instance/ins-z-1")
    work = work.observed(older_references=1)
    mine = Reference(subject="instance/ins-a-1", role="rendered", name="sw1.cfg", attempt=1)
    await world.store.put(reference_key("default", work.id, mine), mine.to_json())
    await world.add(booked, world.instance(booked), work)
    if not in_memory:

        async def behind(*_: Any) -> bool:
            return False

        monkeypatch.setattr(reads, "caught_up", behind)
    ann = world.client("ann")
    (file,) = (await ann.get("/api/v1/instances/ins-a-1/artifacts")).json()["items"]
    assert (file["name"], file["digest"]) == ("sw1.cfg", work.id)
    assert (await ann.get(f"{PATH}/{work.id}")).content == b"hostname Switch"
    assert (await world.client("bob").get(f"{PATH}/{work.id}")).status_code == 404


async def test_of_what_thousands_have_left_few_are_looked_for_and_the_seat_that_is_named(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for it read every one of those seats, from the archive most of them: minutes of a gateway's time."""
    booked = world.reservation("rsv-a", phase="Completed", roster={1: "ann", 2: "bob"})
    work = await world.artifact(b"hostname Switch", "instance/ins-z-0")
    latest = tuple(Reference(subject=f"instance/ins-z-{n}", role="collected", name="sw1.cfg") for n in range(400))
    work = work.observed(references=latest, older_references=2)
    for seat in (1, 2):
        mine = Reference(subject=f"instance/ins-a-{seat}", role="collected", name="sw1.cfg", attempt=1)
        await world.store.put(reference_key("default", work.id, mine), mine.to_json())
    await world.add(work)
    await world.archive(booked, *(world.instance(booked, seat, "Terminated") for seat in (1, 2)))
    looks: list[str] = []
    taken = world.objects.list

    async def counted(prefix: str) -> Any:
        looks.append(prefix)
        return await taken(prefix)

    monkeypatch.setattr(world.objects, "list", counted)
    ann = world.client("ann")
    assert (await ann.get(f"{PATH}/{work.id}")).status_code == 404
    assert len(looks) <= 2 * CARRIED
    for path in (f"{PATH}/{work.id}", f"{PATH}/{work.id}/link"):
        assert (await ann.get(path, params={"instance": "ins-a-1"})).status_code == 200
        for other in ("ins-a-2", "ins-z-3", "ins-never-1"):
            assert (await ann.get(path, params={"instance": other})).status_code == 404
    other = await world.artifact(b"hostname other", "instance/ins-z-0")
    await world.add(other)
    assert (await ann.get(f"{PATH}/{other.id}", params={"instance": "ins-a-1"})).status_code == 404


async def test_a_seat_that_was_given_to_somebody_else_is_its_former_users_no_more(world: Any) -> None:
    """What its record says of its user was true when it was made."""
    booked = world.reservation("rsv-a", roster={1: "bob"})
    seat = world.instance(booked)
    seat = seat.model_copy(update={"metadata": seat.metadata.model_copy(update={"owner": "ann"})})
    work = await world.artifact(b"hostname bob", f"instance/{seat.id}")
    await world.add(booked, seat, work)
    assert (await world.client("bob").get(f"{PATH}/{work.id}")).status_code == 200
    for path in (f"{PATH}/{work.id}", f"/api/v1/instances/{seat.id}"):
        assert (await world.client("ann").get(path)).status_code == 404
    assert (await world.client("ann").get("/api/v1/instances")).json()["items"] == []
