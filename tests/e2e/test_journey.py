"""One reservation goes the whole way: from a lab file to collected configurations, with a command typed in between."""

import asyncio
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import etcd3
import pytest

from lablet_common.intents import INTENTS
from lablet_common.requests import accept, build_request
from lablet_common.resources.kinds import INSTANCE, RESERVATION, SERIES, WORKER
from lablet_common.resources.request import Request
from lablet_common.store.etcd import EtcdStore
from lablet_gateway.reference.samples import sample

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)  # the mesh starts in its time
async def test_two_seats_from_the_lab_file_to_the_collected_configuration(door: Any, console: Any) -> None:
    definition = await door.publish("ospf-basics")
    slot = await door.slot(lead=45, minutes=40)
    answer = await door.reserve({"definition": definition, "seats": 2, **slot})
    assert answer.status_code == 201, answer.text
    reservation = answer.json()
    assert reservation["status"]["phase"] == "Scheduled"
    path = f"/reservations/{reservation['metadata']['id']}"

    placement = reservation["status"]["placement"]
    assert [seat["seat"] for seat in placement] == [1, 2]
    taken = [(seat["worker"], port) for seat in placement for port in seat["ports"].values()]
    assert len(set(taken)) == 6, "every port of both seats is its own"

    first = f"/instances/{placement[0]['instance']}"
    running = await door.until_phase(first, "Running")
    assert {node["state"] for node in running["status"]["nodes"]} == {"BOOTED"}
    said = console(
        running["status"]["host"],
        running["spec"]["ports"]["r1_serial"],
        "enable",
        "configure terminal",
        "ip domain name typed-by-a-learner.example",
        "end",
    )
    assert "#" in said

    await door.until_phase(path, "Completed")
    for seat in placement:
        done = await door.get(f"/instances/{seat['instance']}")
        assert done["status"]["phase"] == "Terminated"
        assert {a["role"] for a in done["status"]["artifacts"]} == {"rendered", "collected", "exported"}
    files = (await door.get(f"{first}/artifacts"))["items"]
    (r1,) = [file for file in files if file["role"] == "collected" and file["name"].lower() == "r1.cfg"]
    text = (await door.call("GET", f"/artifacts/{r1['digest']}")).text
    assert "typed-by-a-learner.example" in text

    worker = placement[0]["worker"]
    await door.until_phase(f"/workers/{worker}", "Offline")
    state = [machine for machine in await door.machines() if machine["name"] == worker]
    assert state[-1]["state"] == "stopped"


async def test_every_step_is_an_event_in_order(door: Any) -> None:
    definition = await door.publish("ospf-basics")
    answer = await door.reserve({"definition": definition, "seats": 1, **await door.slot(lead=40, minutes=30)})
    reservation = answer.json()
    name = reservation["metadata"]["id"]
    await door.until_phase(f"/reservations/{name}", "Completed")
    story = door.cli("events", "history", f"reservation/{name}", "-o", "json")
    assert story.returncode == 0, story.stderr
    events = json.loads(story.stdout)
    items = events["items"] if isinstance(events, dict) else events
    facts = [event["type"].removeprefix("io.lablet.reservation.").removesuffix(".v1") for event in items]
    assert [fact for fact in facts if fact in ("scheduled", "active", "completed")] == [
        "scheduled",
        "active",
        "completed",
    ]
    sequences = [event["sequence"] for event in items]
    assert sequences == sorted(sequences)


async def test_what_the_api_says_stands_in_etcd_by_another_clients_word(door: Any) -> None:
    definition = await door.publish("ospf-basics")
    made = (await door.reserve({"definition": definition, "seats": 1, **await door.slot(lead=900, minutes=30)})).json()
    host, _, port = door.etcd_endpoint.rpartition(":")
    found = await asyncio.to_thread(
        lambda: etcd3.Client(host, int(port), timeout=10).range(f"/lablet/reservations/{made['metadata']['id']}")
    )
    (pair,) = found.kvs
    stored = json.loads(pair.value)
    assert stored["spec"]["seats"] == 1
    assert stored["status"]["phase"] == "Scheduled"
    assert [seat["worker"] for seat in stored["status"]["placement"]] == [
        seat["worker"] for seat in made["status"]["placement"]
    ]
    assert str(pair.mod_revision) == made["metadata"]["resourceVersion"]
    await door.call("DELETE", f"/reservations/{made['metadata']['id']}", headers={"if-match": "*"})


async def test_the_status_of_a_mesh_elsewhere_names_services_replicas_and_who_asks(door: Any, tmp_path: Any) -> None:
    told = door.cli("status", "--data", str(tmp_path), "-o", "json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["ready"]
    assert found["me"]["role"] == "admin"
    shards = {one["service"]: sum(replica["shards"] for replica in one["replicas"]) for one in found["services"]}
    assert all(shards[name] > 0 for name in ("api-gateway", "scheduler", "worker-controller", "artifact-service")), (
        shards
    )


async def test_the_command_line_books_explains_and_cancels(door: Any) -> None:
    definition = await door.publish("vlan-trunking")
    made = door.cli("reserve", definition, "--start", "in 3h", "--duration", "1h", "-o", "json")
    assert made.returncode == 0, made.stderr
    name = json.loads(made.stdout)["metadata"]["id"]
    assert "placed" in door.cli("explain", name).stdout
    assert door.cli("cancel", name).returncode == 0
    shown: subprocess.CompletedProcess[str] = door.cli("get", "reservation", name, "-o", "json")
    assert json.loads(shown.stdout)["status"]["phase"] == "Cancelled"


async def test_a_lab_is_stopped_and_started_again_from_the_command_line(door: Any) -> None:
    definition = await door.publish("ospf-basics")
    published = door.cli("definition", "topology", definition)
    assert published.stdout.encode() == (ROOT / "examples/labs/ospf-basics.yaml").read_bytes()
    made = (await door.reserve({"definition": definition, "seats": 1, "asap": True, "durationMinutes": 300})).json()
    name = made["status"]["placement"][0]["instance"]
    await door.until_phase(f"/instances/{name}", "Running", seconds=90)
    again = door.cli("instance", "retry", name)
    assert (again.returncode, f"{name} is Running" in again.stdout) == (0, True), "what runs is not tried again"
    stopped = door.cli("instance", "stop", name)
    assert (stopped.returncode, name in stopped.stdout) == (0, True), stopped.stderr
    await door.until_phase(f"/instances/{name}", "Stopped")
    started = door.cli("instance", "start", name)
    assert (started.returncode, "starting again" in started.stdout) == (0, True), started.stdout + started.stderr
    lab = await door.until_phase(f"/instances/{name}", "Running")
    assert lab["status"]["reason"] == "Restarted"
    assert door.cli("cancel", made["metadata"]["id"]).returncode == 0


async def test_a_worker_is_drained_and_a_replacement_called_off_from_the_command_line(door: Any) -> None:
    pool = await door.get("/pools/default")
    drained = door.cli("worker", "drain", "default-004", "--deadline", "30m", "-m", "new disk")
    assert (drained.returncode, "maintenance" in drained.stdout) == (0, True), drained.stderr
    worker = await door.get("/workers/default-004")
    assert worker["spec"]["unschedulable"]["drain"] is True
    assert worker["spec"]["maintenance"][0]["deadline"] is not None
    described = door.cli("describe", "worker", "default-004").stdout
    assert "load" in described
    back = door.cli("worker", "cancel-drain", "default-004")
    assert (back.returncode, "takes new seats" in back.stdout) == (0, True), back.stderr
    asked = door.cli("pool", "replace", "default", "--max-unavailable", "1")
    assert asked.returncode == 0, asked.stderr
    off = door.cli("pool", "cancel-replace", "default")
    assert off.returncode == 0, off.stderr
    after = (await door.get("/pools/default"))["status"].get("rollout")
    assert after is None or (after["waiting"] == [] and after["finishedAt"] is not None)
    assert (await door.get("/pools/default"))["spec"] == pool["spec"]
    for one in (await door.get("/workers"))["items"]:
        if one["spec"].get("replacing"):
            assert door.cli("worker", "cancel-drain", one["metadata"]["id"]).returncode == 0


async def test_more_than_the_pool_can_hold_waits_and_takes_the_place_that_is_given_up(door: Any) -> None:
    definition = await door.publish("exam-routing")
    slot = await door.slot(lead=600, minutes=60)
    holders = []
    waiting = None
    for _ in range(40):
        reservation = (await door.reserve({"definition": definition, "seats": 4, **slot})).json()
        if reservation.get("status", {}).get("phase") == "Waitlisted":
            waiting = reservation
            break
        holders.append(reservation["metadata"]["id"])
    assert waiting is not None, "the pool never became full"
    explanation = (await door.get(f"/reservations/{waiting['metadata']['id']}/explanation"))["explanation"]
    assert explanation["binding"]
    assert explanation["earliest"]["start"] > slot["start"]
    await door.call("DELETE", f"/reservations/{holders[0]}", headers={"prefer": "wait=5", "if-match": "*"})
    await door.until_phase(f"/reservations/{waiting['metadata']['id']}", "Scheduled", seconds=10)
    for name in (*holders[1:], waiting["metadata"]["id"]):
        await door.call("DELETE", f"/reservations/{name}", headers={"if-match": "*"})


async def _two_workers_where_one_would_do(door: Any) -> tuple[str, str]:
    """A reservation on each of two workers, three days from now: what once filled the first has been cancelled."""
    definition = await door.publish("exam-routing")
    slot = await door.slot(lead=3 * 1440, minutes=120)
    by_worker: dict[str, list[str]] = {}
    while len(by_worker) < 2:  # the second worker is taken once the first is full
        reservation = (await door.reserve({"definition": definition, "seats": 1, **slot})).json()
        assert reservation["status"]["phase"] == "Scheduled", "the pool has two workers"
        by_worker.setdefault(reservation["status"]["placement"][0]["worker"], []).append(reservation["metadata"]["id"])
    (kept, *given_up), (alone,) = sorted(by_worker.values(), key=len, reverse=True)
    for name in given_up:
        await door.call("DELETE", f"/reservations/{name}", headers={"prefer": "wait=5", "if-match": "*"})
    return kept, alone


async def _let_move(door: Any, seats: int) -> None:
    answer = await door.call(
        "PATCH",
        "/pools/default",
        json={"spec": {"recourseMoves": seats}},
        headers={"prefer": "wait=10", "if-match": "*"},
    )
    assert answer.status_code == 200, answer.text


async def _workers(door: Any, *names: str) -> list[str]:
    return [(await door.get(f"/reservations/{name}"))["status"]["placement"][0]["worker"] for name in names]


async def test_seats_left_on_two_workers_are_brought_together_by_the_optimiser(door: Any) -> None:
    await _let_move(door, 0)
    kept, alone = await _two_workers_where_one_would_do(door)
    dry = json.loads(door.cli("pool", "optimise", "default", "--budget", "1", "--dry-run", "-o", "json").stdout)
    assert dry["workerHoursSaved"] >= 2
    assert not dry.get("committed")
    assert len(set(await _workers(door, kept, alone))) == 2, "a dry run moves nobody"

    done = door.cli("pool", "optimise", "default", "--budget", "1", "-o", "json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["committed"]
    assert plan["workerHoursSaved"] == dry["workerHoursSaved"]
    assert len(set(await _workers(door, kept, alone))) == 1
    moved = {move["reservation"] for move in plan["moves"]} & {kept, alone}
    assert len(moved) == 1
    told = await door.get(f"/reservations/{moved.pop()}")
    assert told["status"]["phase"] == "Scheduled"
    assert told["status"]["history"][-1]["from"] == "Scheduled", "a move is a step of the reservation and an event"
    for name in (kept, alone):
        await door.call("DELETE", f"/reservations/{name}", headers={"if-match": "*"})
    await _let_move(door, 2)


async def test_seats_left_on_two_workers_come_together_by_themselves(door: Any) -> None:
    kept, alone = await _two_workers_where_one_would_do(door)
    async with asyncio.timeout(30):
        while len(set(await _workers(door, kept, alone))) > 1:
            await asyncio.sleep(0.1)
    steps = [(await door.get(f"/reservations/{name}"))["status"]["history"] for name in (kept, alone)]
    ((*_, last),) = [one for one in steps if len(one) > 1]
    assert (last["from"], last["to"], last["reason"]) == ("Scheduled", "Scheduled", "Consolidated")
    assert "minutes of power" in last["message"]
    for name in (kept, alone):
        await door.call("DELETE", f"/reservations/{name}", headers={"if-match": "*"})


async def test_an_impossible_demand_is_rejected_at_once_with_its_reason(door: Any) -> None:
    definition = await door.publish("exam-routing")
    answer = await door.reserve({"definition": definition, "seats": 100, **await door.slot(lead=600, minutes=60)})
    assert answer.status_code == 409, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["type"].endswith("/impossible")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seats": 0}, "seats"),
        ({"seats": 101}, "seats"),
        ({"end": "2020-01-01T00:00:00Z"}, "end"),
        ({"start": "2031-01-01T09:00:30Z"}, "start"),
        ({"start": "2020-01-01T09:00:00Z", "end": "2020-01-01T10:00:00Z"}, "start"),
        ({"definition": "no-such-lab"}, "definition"),
        ({"pool": "no-such-pool"}, "pool"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_bad_input_names_the_field(door: Any, change: dict[str, Any], field: str) -> None:
    await door.publish("ospf-basics")
    body = {"definition": "ospf-basics", **await door.slot(lead=60, minutes=30)} | change
    answer = await door.reserve(body)
    assert answer.status_code == 422, answer.text
    assert field in [error["path"].split(".")[0] for error in answer.json()["errors"]]


async def test_a_malformed_lab_file_is_refused_with_its_line(door: Any) -> None:
    answer = await door.call(
        "POST",
        "/definitions?name=broken",
        content=b"lab:\n  version: 0.2.2\nnodes: [\n",
        headers={"content-type": "application/yaml", "prefer": "wait=10"},
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["line"]


GIVEN: dict[str, dict[str, Any]] = {
    "io.lablet.reservation.change.requested.v1": {"seats": 2},
    "io.lablet.reservation.open-claims.requested.v1": {"withdraw": True},
    "io.lablet.series.change.requested.v1": {"seats": 2},
    "io.lablet.assessment.grading.completed.v1": {"passed": True},
}
"""What an example leaves out and the intent cannot do without."""
IN_A_POOL = (RESERVATION, SERIES, INSTANCE, WORKER)


def _is_decided(request: dict[str, Any]) -> bool:
    return str(request["status"]["phase"]) in ("Decided", "Refused")


async def test_an_intent_of_every_type_has_an_owner_that_decides_it(door: Any) -> None:
    """Past the gateway, which would refuse what is about nothing: here the owner has to say so. Last in this file, as some
    of them make something."""
    store = EtcdStore([door.etcd_endpoint], prefix="/lablet")
    asked: dict[str, Request] = {}
    for name, intent in INTENTS.items():
        schema = intent.body.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        example = sample(schema, schema.get("$defs", {})) | GIVEN.get(name, {})
        pooled = intent.kind in IN_A_POOL or intent.decider is not None
        request = build_request(
            intent,
            "nothing-of-that-name",
            intent.body.model_validate(example),
            key=uuid4(),
            tenant="default",
            principal="test",
            role="admin",
            shard="default" if pooled else "-",
            digest=name,
            at=datetime.now(UTC),
        )
        asked[name] = (await accept(store, request)).request
    try:
        for name, request in asked.items():
            status = (await door.until(f"/requests/{request.id}", _is_decided, seconds=20))["status"]
            assert status["history"][-1]["by"] == f"/lablet/{request.spec.service}", name
            assert not status.get("problem", {}).get("type", "").endswith("/unknown-intent"), name
    finally:
        await store.close()
