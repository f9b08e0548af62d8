"""The live mesh against its own OpenAPI document, as every role: real stores, real owners, real labs behind each answer.

The scene: a class that runs, one that is booked, a hold, a term, a key, a subscription, dead letters. The roles come in turn,
the admin first: every operation with the document's example, then what is made up, valid and not. Whatever is asked, no
answer is a server error or undocumented, and no process of the mesh dies of it.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from lablet_common.bus.bus import Bus
from lablet_common.bus.messages import DeadLetter
from lablet_common.resources.kinds import Service
from lablet_common.settings import NatsSettings
from lablet_common.testing.conformance import INVALID, VALID, Conformance, Sent
from lablet_local.mesh import LocalMesh

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]
ROLES = ("admin", "operator", "instructor", "learner", "machine")
MADE_UP = {"admin": 3, "learner": 2}
"""Made-up calls of each operation, of each sort."""
SHARE = 0.9
"""Of the operations, how many an admin must reach."""
SPEED = 120.0
START = datetime(2027, 2, 15, 6, 0, tzinfo=UTC)
"""Well before the slots of the document's examples."""
ENVIRONMENT = {
    "GATEWAY_RATE_LIMIT": "0",
    "GATEWAY_MAX_WAIT_SECONDS": "15",
    "WEBHOOK_ALLOW_PRIVATE": "true",
}
API = "/api/v1"
LAB = "lab:\n  title: a lab\n  version: 0.1.0\nnodes: []\nlinks: []\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory, open_door: Any) -> AsyncIterator[Any]:
    folder = tmp_path_factory.mktemp("mesh")
    async with LocalMesh(folder, speed=SPEED, start=START, spans=True, environments={"gateway": ENVIRONMENT}) as mesh:
        opened = await open_door(mesh, SPEED)
        yield opened
        await opened.http.aclose()


async def _bury(mesh: LocalMesh, count: int) -> None:
    """Dead letters as the gateway's own webhooks leave them, of a subscription that is there: nobody else's are replayed."""
    user, password = mesh.nats_login(Service.GATEWAY)
    bus = Bus(NatsSettings(url=mesh.nats_url, user=user, password=password), Service.GATEWAY)
    await bus.connect()
    event = {"id": "7", "type": "io.lablet.reservation.scheduled.v1", "source": "/lablet/scheduler", "specversion": "1.0",
             "subject": "reservation/rsv-a", "tenant": "default"}  # fmt: skip
    headers = {f"ce-{name}": value for name, value in event.items()}
    for number in range(1, count + 1):
        await bus.bury(DeadLetter("lablet.event.default.reservation.-.rsv-a", headers, b"{}", "EVENTS", number,
                                  "webhook-other", "503", 9, datetime.now(UTC)))  # fmt: skip
    await bus.close()


async def _made(door: Any, path: str, body: Any, **more: Any) -> Any:
    answer = await door.call("POST", path, json=body, headers={"prefer": "wait=10"}, **more)
    assert answer.status_code in (200, 201, 202), f"{path}: {answer.status_code} {answer.text}"
    return answer.json()


async def _spares(door: Any) -> None:
    """A template and a pool that can be changed and deleted: those that the document's examples speak of."""
    shape = {"instanceType": "m5.4xlarge", "capacity": {"cpuCores": 16, "memoryGb": 64, "storageGb": 200},
             "license": "ENTERPRISE", "maxNodes": 40}  # fmt: skip
    for path, spec in (
        ("/templates/m5", shape),
        ("/templates/spare", shape),
        ("/pools/spare", {"template": "spare", "max": 0}),
    ):
        answer = await door.call("PUT", path, json={"spec": spec}, headers={"prefer": "wait=10"})
        assert answer.status_code in (200, 201), f"{path}: {answer.text}"


async def _scene(door: Any) -> dict[str, Any]:
    """What the examples lead to, by the name of the path's parameter."""
    await door.publish("ospf-basics")
    for name in ("to-deprecate", "to-archive"):
        answer = await door.call("POST", f"/definitions?name={name}&version=1.0.0", content=LAB,
                                 headers={"content-type": "application/yaml", "prefer": "wait=10"})  # fmt: skip
        assert answer.status_code in (200, 201), answer.text
    await door.call("POST", "/definitions/to-archive/versions/1.0.0/deprecate", headers={"prefer": "wait=10"})
    await _spares(door)
    seats = [{"seat": 2, "user": "local-learner"}]
    running = await _made(door, "/reservations",
                          {"definition": "ospf-basics", "seats": 2, "asap": True, "durationMinutes": 600,
                           "roster": seats})  # fmt: skip
    slot = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T11:00:00Z"}
    booked = await _made(door, "/reservations", {"definition": "ospf-basics", "seats": 2, "roster": seats, **slot})
    to_cancel = await _made(door, "/reservations", {"definition": "ospf-basics", **slot})
    held = await _made(door, "/reservations",
                       {"definition": "ospf-basics", "hold": {"expiresAt": "2027-02-28T09:00:00Z"}, **slot})  # fmt: skip
    term = await _made(door, "/series", {
        "definition": "ospf-basics", "start": "2027-03-02T08:00:00Z", "durationMinutes": 60,
        "rule": "FREQ=WEEKLY;BYDAY=TU;COUNT=2", "timezone": "Europe/Berlin",
    })  # fmt: skip
    linked = await _made(door, "/reservations", {"definition": "ospf-basics", **slot})
    links = await _made(door, f"/reservations/{linked['metadata']['id']}/claims", {"seats": [1]})
    key = await _made(door, "/keys", {"name": "grader"})
    for name in ("own", "other"):
        await _made(door, "/subscriptions", {"name": name, "sink": "http://127.0.0.1:9/"})
    await _bury(door.mesh, 6)
    letters = (await door.get("/dead-letters?limit=1000"))["items"]
    placed = await door.get(f"/reservations/{running['metadata']['id']}")
    instance = next(seat["instance"] for seat in placed["status"]["placement"] if seat["seat"] == 2)
    await door.until_phase(f"/instances/{instance}", "Running", seconds=90)
    artifact = (await door.get(f"/instances/{instance}/artifacts"))["items"][0]
    asked = (await door.call("POST", f"/instances/{instance}/collect")).json()
    return {
        "running": running["metadata"]["id"], "booked": booked["metadata"]["id"], "held": held["metadata"]["id"],
        "cancelled": to_cancel["metadata"]["id"], "instance_id": instance, "digest": artifact["digest"],
        "series_id": term["metadata"]["id"], "code": links["links"][0]["code"], "key_id": key["key"]["metadata"]["id"],
        "request_id": asked["metadata"]["id"], "letters": [letter["sequence"] for letter in letters],
    }  # fmt: skip


def _places(scene: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    place = f"{method} {path.removeprefix(API)}"
    known = {
        **scene,
        "version": "1.0.0", "worker": "default-001", "tenant": "acme", "sequence": scene["letters"][0],
        "reservation_id": scene["running"], "name": "default",
    }  # fmt: skip
    if path.startswith(f"{API}/definitions"):
        verb = path.rpartition("/")[2]
        known["name"] = {"deprecate": "to-deprecate", "archive": "to-archive"}.get(verb, "ospf-basics")
    elif path.startswith(f"{API}/templates"):
        known["name"] = "simulated" if method == "GET" else "spare"
    elif path.startswith(f"{API}/subscriptions"):
        known["name"] = "own"
    elif path.startswith(f"{API}/schemas"):
        known["name"] = "io.lablet.reservation.scheduled.v1.json"
    elif path.startswith(f"{API}/pools") and method in ("PUT", "PATCH", "DELETE"):
        known["name"] = "spare"
    special: dict[str, dict[str, Any]] = {
        "PATCH /reservations/{reservation_id}": {"reservation_id": scene["booked"]},
        "DELETE /reservations/{reservation_id}": {"reservation_id": scene["cancelled"]},
        "POST /reservations/{reservation_id}:confirm": {"reservation_id": scene["held"]},
        "POST /reservations/{reservation_id}/claims": {"reservation_id": scene["booked"]},
        "DELETE /reservations/{reservation_id}/claims": {"reservation_id": scene["booked"]},
        "POST /dead-letters/{sequence}/replay": {"sequence": scene["letters"][1]},
        "DELETE /dead-letters/{sequence}": {"sequence": scene["letters"][2]},
        "GET /audit/{request_id}": {"request_id": scene["audited"]},
    }
    known |= special.get(place, {})
    return {name: known[name] for name in re.findall(r"{(\w+)}", path)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(door: Any) -> Conformance:
    scene = await _scene(door)
    scene["audited"] = await _audited(door, scene["key_id"])
    document = (await door.http.get("/api/docs/openapi.json")).json()
    return Conformance(
        door.url,
        document,
        lambda method, path: _places(scene, method, path),
        endless=[f"{API}/events/stream"],
        may_be_away=["GET /readyz"],
        query={
            f"GET {API}/events": {"subject": f"reservation/{scene['running']}"},
            f"POST {API}/definitions": {"name": "a-lab"},
        },
        bodies={
            f"POST {API}/definitions": ("application/yaml", LAB),
            f"POST {API}/subscriptions": ("application/json", {"name": "second", "sink": "http://127.0.0.1:9/"}),
        },
    )


async def _audited(door: Any, key: str) -> str:
    """The request of the key's making, once its event is out."""
    async with asyncio.timeout(20):
        while True:
            found = (await door.get(f"/audit?subject=key/{key}"))["items"]
            if found:
                return str(found[0]["request"])
            await asyncio.sleep(0.1)


def _missed(answers: list[Sent]) -> list[str]:
    return [f"{one.operation}: {one.status} {one.text[:300]}" for one in answers if one.status >= 300]


@pytest.mark.parametrize("role", ROLES)
async def test_every_answer_to_a_role_is_as_documented(door: Any, api: Conformance, role: str) -> None:
    token = door.mesh.token(role)
    answers = await asyncio.to_thread(api.examples, token)
    missed = _missed(answers)
    print(f"{role}: {len(answers) - len(missed)} of {len(answers)} operations reached", *missed, sep="\n  ")
    assert not [one for one in answers if one.status >= 500], missed
    if role == "admin":
        assert len(answers) - len(missed) >= SHARE * len(answers), "\n".join(missed)
    for mode in (VALID, INVALID):
        await asyncio.to_thread(api.made_up, token, mode, MADE_UP.get(role, 1))
    assert {process.process.name: process.restarts for process in door.mesh.processes if process.restarts} == {}
