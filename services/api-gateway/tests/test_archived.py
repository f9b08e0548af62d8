"""What has left etcd is found again, by those who might see it before."""

from typing import Any

from lablet_gateway import written

PATH = "/api/v1/reservations"


async def test_an_archived_reservation_and_its_seat_are_found_by_id(world: Any) -> None:
    booked = world.reservation("rsv-a", phase="Completed", roster={1: "ann"})
    seat = world.instance(booked, 1, "Terminated")
    await world.archive(booked, seat)
    for name in ("ina", "ann"):
        client = world.client(name)
        for path, one in ((PATH, booked), ("/api/v1/instances", seat)):
            answer = await client.get(f"{path}/{one.id}")
            assert answer.status_code == 200
            assert answer.headers["Lablet-Archived"] == "true"
            assert answer.json()["status"]["phase"] == one.phase


async def test_what_is_in_etcd_wins_over_the_archive(world: Any) -> None:
    await world.archive(world.reservation("rsv-a", phase="Completed"))
    await world.add(world.reservation("rsv-a", phase="Active"))
    answer = await world.client("ina").get(f"{PATH}/rsv-a")
    assert answer.json()["status"]["phase"] == "Active"
    assert "Lablet-Archived" not in answer.headers


async def test_an_archived_reservation_of_others_is_not_there(world: Any) -> None:
    await world.archive(world.reservation("rsv-a", phase="Completed"))
    for name in ("bob", "admin@acme"):
        assert (await world.client(name).get(f"{PATH}/rsv-a")).status_code == 404
    assert (await world.client().get(f"{PATH}/rsv-never")).status_code == 404


async def test_the_archive_is_listed_by_day_with_selectors_and_pages(world: Any) -> None:
    await world.archive(
        *(world.reservation(f"rsv-{at}", phase="Completed", labels={"course": f"c{at % 2}"}) for at in range(5)),
        world.reservation("rsv-x", phase="Cancelled", labels={"course": "c0"}),
    )
    day = world.now.date().isoformat()
    query = {"archived": "true", "from": day, "to": day, "labelSelector": "course=c0", "limit": 2}
    query["fieldSelector"] = "status.phase=Completed"
    client = world.client()
    first = (await client.get(PATH, params=query)).json()
    assert [one["metadata"]["id"] for one in first["items"]] == ["rsv-0", "rsv-2"]
    rest = (await client.get(PATH, params=query | {"cursor": first["nextCursor"]})).json()
    assert [one["metadata"]["id"] for one in rest["items"]] == ["rsv-4"]
    assert rest["nextCursor"] is None
    assert (await client.get(PATH, params=query | {"to": "2001-01-01"})).status_code == 422
    assert (await client.get(PATH)).json()["items"] == []


async def test_what_is_read_from_the_archive_is_not_remembered(world: Any) -> None:
    """It is another object each time, and pieces of it would lie about among what is kept for long."""
    await world.archive(world.reservation("rsv-a", phase="Completed"))
    day = world.now.date().isoformat()
    remembered = len(written._kept)
    found = (await world.client().get(PATH, params={"archived": "true", "from": day, "to": day})).json()
    assert len(found["items"]) == 1
    assert len(written._kept) == remembered
