"""Pools, templates and workers: changed by intents to their owner, with preconditions; calendars computed on read."""

from datetime import timedelta
from typing import Any

from lablet_common.intents import INTENTS
from lablet_common.loads import Used, WorkerLoad
from lablet_common.resources.kinds import worker_load_key

POOLS = "/api/v1/pools"


async def test_a_new_pool_needs_no_precondition_and_an_old_one_does(world: Any) -> None:
    client = world.client()
    body = {"spec": {"template": "simulated", "max": 4}}
    assert (await client.put(f"{POOLS}/fresh", json=body)).status_code == 202
    assert (await client.put(f"{POOLS}/other", json=body, headers={"If-Match": '"7"'})).status_code == 412
    assert (await client.put(f"{POOLS}/default", json=body)).status_code == 428
    etag = (await client.get(f"{POOLS}/default")).headers["etag"]
    assert (await client.put(f"{POOLS}/default", json=body, headers={"If-Match": etag})).status_code == 202
    requests = await world.inbox("worker-controller", "-")
    assert [request.spec.subject for request in requests] == ["pool/fresh", "pool/default"]


async def test_a_patch_changes_what_it_names_and_keeps_the_rest(world: Any) -> None:
    client = world.client()
    etag = (await client.get(f"{POOLS}/default")).headers["etag"]
    answer = await client.patch(f"{POOLS}/default", json={"spec": {"max": 9}}, headers={"If-Match": etag})
    assert answer.status_code == 202
    (request,) = await world.inbox("worker-controller", "-")
    assert (request.spec.data["spec"]["max"], request.spec.data["spec"]["template"]) == (9, "simulated")
    wrong = await client.patch(f"{POOLS}/default", json={"spec": {"max": -1}}, headers={"If-Match": etag})
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "spec.max")


async def test_a_pool_of_an_unknown_template_is_refused_with_the_nearest(world: Any) -> None:
    answer = await world.client().put(f"{POOLS}/fresh", json={"spec": {"template": "simulatd", "min": 5, "max": 4}})
    errors = {error["path"]: error for error in answer.json()["errors"]}
    assert errors["spec.template"]["remedy"] == "did you mean simulated?"
    assert "spec.min" in errors


async def test_a_pool_is_not_named_like_a_shard_of_a_bridge(world: Any) -> None:
    answer = await world.client().put(f"{POOLS}/bridge-lab", json={"spec": {"template": "simulated", "max": 4}})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "name")


async def test_durations_that_the_calendar_cannot_look_around_are_refused_by_name(world: Any) -> None:
    client = world.client()
    leads = {"scaleDownGraceMinutes": 2880, "bootReserveMinutes": 1441, "turnaroundMinutes": 1440}
    answer = await client.put(f"{POOLS}/fresh", json={"spec": {"template": "simulated", "max": 4} | leads})
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (422, "invalid")
    assert {error["path"]: error["remedy"] for error in answer.json()["errors"]} == {
        "spec.scaleDownGraceMinutes": "at most 1,440",
        "spec.bootReserveMinutes": "at most 1,440",
    }
    etag = (await client.get("/api/v1/templates/simulated")).headers["etag"]
    patch = {"spec": {"bootMinutes": 1441}}
    answer = await client.patch("/api/v1/templates/simulated", json=patch, headers={"If-Match": etag})
    assert [error["path"] for error in answer.json()["errors"]] == ["spec.bootMinutes"]


async def test_worker_actions_go_to_the_workers_pool(world: Any) -> None:
    client = world.client("operator@default")
    path = "/api/v1/workers/default-001"
    assert (await client.post(f"{path}/cordon", json={"reason": "disk"})).status_code == 202
    for verb in ("drain", "cancel-drain", "uncordon", "replace"):
        assert (await client.post(f"{path}/{verb}")).status_code == 202
    assert (await client.post(f"{path}/cordon", json={})).json()["errors"][0]["path"] == "reason"
    assert (await client.post("/api/v1/workers/nope/drain")).status_code == 404
    types = [request.spec.type for request in await world.inbox("worker-controller", "default")]
    assert len(types) == 5
    assert set(types) <= set(INTENTS)


async def test_what_a_machine_uses_is_read_where_its_owner_keeps_it(world: Any) -> None:
    client, path = world.client("operator@default"), "/api/v1/workers/default-001/load"
    assert (await client.get(path)).json() == {"worker": "default-001"}
    told = WorkerLoad(
        worker="default-001",
        at=world.now,
        cpu_cores=Used(used=12, total=48),
        memory_gb=Used(used=50, total=200),
        storage_gb=Used(used=225, total=250),
        nodes=7,
    )
    await world.store.put(worker_load_key("default-001"), told.to_json())
    answer = (await client.get(path)).json()["load"]
    assert (answer["nodes"], answer["storageGb"]) == (7, {"used": 225, "total": 250})
    assert (await client.get("/api/v1/workers/nope/load")).status_code == 404


async def test_a_dry_run_of_a_drain_tells_who_moves_and_who_stays_and_asks_nothing(world: Any) -> None:
    running = world.reservation("rsv-on", phase="Active", start=world.now, end=world.now + timedelta(hours=1))
    late = world.reservation("rsv-long", phase="Active", start=world.now, end=world.now + timedelta(hours=9))
    coming = world.reservation("rsv-next", start=world.now + timedelta(hours=2), end=world.now + timedelta(hours=3))
    after = world.reservation("rsv-after", start=world.now + timedelta(hours=30), end=world.now + timedelta(hours=31))
    labs = [world.instance(booking, seat, "Running") for booking in (running, late) for seat in (1, 2)]
    await world.add(running, late, coming, after, *labs)
    client = world.client("operator@default")
    path = "/api/v1/workers/default-001/drain"
    told = await client.post(path, params={"dryRun": "true"}, json={"deadlineMinutes": 180})
    assert told.status_code == 200
    plan = told.json()
    seats = {seat["reservation"]: (seat["fate"], seat.get("until")) for seat in plan["seats"]}
    assert seats["rsv-on"] == ("stays", "2027-03-01T09:00:00Z")
    assert seats["rsv-long"] == ("ends", "2027-03-01T11:00:00Z")
    assert seats["rsv-next"] == ("moves", None)
    assert "rsv-after" not in seats
    assert (plan["from"], plan["deadline"]) == ("2027-03-01T08:00:00Z", "2027-03-01T11:00:00Z")
    forced = (await client.post(path, params={"dryRun": "true"}, json={"force": True})).json()
    assert {seat["fate"] for seat in forced["seats"]} == {"ends", "moves"}
    wrong = await client.post(path, params={"dryRun": "true"}, json={"until": "2027-02-01T08:00:00Z"})
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "until")
    both = await client.post(path, json={"force": True, "deadlineMinutes": 5})
    assert (both.status_code, both.json()["errors"][0]["path"]) == (422, "deadlineMinutes")
    assert (await client.post("/api/v1/workers/nope/drain", params={"dryRun": "true"})).status_code == 404
    assert await world.inbox("worker-controller", "default") == []


async def test_a_pools_replacement_is_asked_of_the_owner_of_pools(world: Any) -> None:
    client = world.client("operator@default")
    assert (await client.post(f"{POOLS}/default/replace", json={"maxUnavailable": 2})).status_code == 202
    assert (await client.post(f"{POOLS}/default/cancel-replace")).status_code == 202
    wrong = await client.post(f"{POOLS}/default/replace", json={"maxUnavailable": 0})
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "maxUnavailable")
    assert (await client.post(f"{POOLS}/nope/replace")).status_code == 404
    types = [request.spec.type for request in await world.inbox("worker-controller", "-")]
    assert types == ["io.lablet.pool.replace.requested.v1", "io.lablet.pool.replace-cancel.requested.v1"]


async def test_a_pools_calendar_counts_what_is_taken_and_free(world: Any) -> None:
    await world.add(world.worker("default-002"), world.reservation("rsv-a"))
    begin, end = world.now, world.now + timedelta(hours=4)
    told = (
        await world.client().get(f"{POOLS}/default/calendar", params={"from": begin.isoformat(), "to": end.isoformat()})
    ).json()
    steps = [(step["start"][11:16], step["booked"]["seats"], step["free"]["memoryGb"], step["free"]["nodes"])
             for step in told["steps"]]  # fmt: skip
    assert steps == [("08:00", 0, 128, 40), ("09:00", 2, 120, 30), ("11:00", 0, 128, 40)]
    assert [worker["worker"] for worker in told["workers"]] == ["default-001", "default-002"]
    # boot 8, its reserve of 8 and preparation 5 minutes before, turnaround 2 after
    assert told["workers"][0]["powerSpans"] == [{"start": "2027-03-01T08:39:00Z", "end": "2027-03-01T11:02:00Z"}]


async def test_an_overrunning_seat_takes_room_until_its_lab_is_gone(world: Any) -> None:
    late = world.reservation("rsv-late", phase="Active", start=world.now - timedelta(hours=2), end=world.now)
    await world.add(late, world.instance(late, 1, "Stopping"), world.instance(late, 2, "Terminated"))
    world.clock._now = world.now + timedelta(minutes=5)
    told = (
        await world.client().get("/api/v1/workers/default-001/calendar", params={"from": "2027-03-01T07:00:00Z"})
    ).json()
    assert [(b["seat"], b["end"]) for b in told["bookings"]] == [(1, "2027-03-01T08:05:00Z")]


async def test_a_span_that_ends_before_it_begins_is_refused(world: Any) -> None:
    answer = await world.client().get(
        f"{POOLS}/default/calendar", params={"from": "2027-03-02T00:00:00Z", "to": "2027-03-01T00:00:00Z"}
    )
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "to")


async def test_usage_counts_seat_hours_inside_the_span(world: Any) -> None:
    await world.add(world.reservation("rsv-a"), world.reservation("rsv-b", phase="Rejected"))
    told = (
        await world.client().get("/api/v1/usage", params={"from": "2027-03-01T10:00:00Z", "to": "2027-03-02T00:00:00Z"})
    ).json()
    assert (told["seats"], told["seatHours"]) == (2, 2.0)
    assert told["reservations"] == {"Rejected": 1, "Scheduled": 1}
    assert (await world.client().get("/api/v1/usage", params={"tenant": "acme"})).status_code == 404
