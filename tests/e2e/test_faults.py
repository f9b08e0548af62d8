"""Every process of the mesh is killed and comes back, one after another, while reservations flow: nothing is lost, nothing
is double-booked, and everything comes to an end.

With an etcd that has the crash fault of 3.5.1 (the wheel's), etcd is killed only when nothing is being written, and the
test says `reduced`.
"""

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from lablet_common.secrets import SecretBox
from lablet_common.testing.planted import files_below, found_in, spans_in
from lablet_common.testing.sinks import serving
from lablet_gateway.webhooks.signing import signature
from lablet_local.binaries import find_etcd
from lablet_local.demo.evidence import read_present
from lablet_local.mesh import LocalMesh

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

ELSEWHERE = ("secrets", "connection.json", "nats/*.conf", "cloud")
"""Where secrets belong, and what is the outside world's: the cloud and its machines."""
REFUSED: tuple[tuple[str, str, Any, str | None], ...] = (
    ("GET", "/reservations", None, "x"),
    ("POST", "/pools/default/replace", {}, ""),
    ("GET", "/reservations/rsv-of-nobody", None, ""),
    ("PUT", "/reservations", {}, ""),
    ("POST", "/reservations", {"seats": "many"}, ""),
    ("POST", "/subscriptions", {"name": "planted", "sink": "http://127.0.0.1:9/"}, None),
    ("PATCH", "/subscriptions/planted", {"paused": False}, None),
)
"""Method, path, body, and what is appended to the planted key (None: the admin's token instead): each is refused in another
way."""
KNOWN_TEXT = {
    b"WorkerTemplate": "nats/", b"lablet.intent.scheduler": "nats/", b"Lablet-Dead-Reason": "nats/",
    b"/secret-at-work": "etcd/", b'"subscription": "planted"': "logs/", b"OSPF basics": "s3/",
    b"lablet_webhook_deliveries_total": "metrics of api-gateway-1", b"/requests/": "etcd/",
    b"LABLET_WORKER=local-1": "s3/", b"claims/{code}": "logs/", b"local-1": "logs/agent-1",
    b"api-gateway-1": "resources of spans", b"worker-controller-1": "resources of spans", b"PATCH CML": "names of spans",
    b"/users/": "attributes of spans", b"exception.stacktrace": "events of spans", b"Unavailable": "statuses of spans",
}  # fmt: skip
"""What is sure to be in each place, where that was looked through at all."""
FINAL = ("Completed", "Cancelled", "Expired", "Failed", "Rejected")
VICTIMS = ("scheduler-1", "nats", "worker-controller-1", "s3", "artifact-service-1", "api-gateway-1", "etcd")


@dataclass
class Hook:
    """A sink that takes every second event, and refuses the others for as long as anybody tries."""

    secret: str = ""
    taken: int = 0
    refused: int = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        told = request.headers
        if self.secret:
            right = signature(self.secret, told["webhook-id"], int(told["webhook-timestamp"]), body)
            assert right in told["webhook-signature"].split()
        if hash(told["webhook-id"]) % 2:
            self.refused += 1
            return web.Response(status=422, text="not this one")
        self.taken += 1
        return web.Response(status=204)


@dataclass
class Collector:
    """Takes every span, as it comes over the wire."""

    exported: list[bytes] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.exported.append(await request.content.read())  # of whatever size
        return web.Response(content_type="application/x-protobuf")  # no field of the answer is set


@dataclass
class Planted:
    """Secrets that are at work from before the first fault, and every answer that anybody got since."""

    secrets: dict[str, str]
    hook: Hook
    key: str
    booking: str
    """The class whose seats wait for who shows a code; nobody looks at it as one of the flow."""
    codes: tuple[str, str]
    """Of its claim links: the first is shown while etcd is away and takes a seat in the end, the second is never used."""
    answers: set[bytes] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)

    async def note(self, response: httpx.Response) -> None:
        """An answer with its head."""
        await response.aread()
        self.statuses.add(response.status_code)
        self.answers |= {response.content, *(value for _, value in response.headers.raw)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planted(mesh: LocalMesh, open_door: Any) -> AsyncIterator[Planted]:
    hook = Hook()
    async with serving(hook.take) as url:
        yield await _plant(mesh, await open_door(mesh, 240), hook, f"{url}/secret-at-work")


async def _plant(mesh: LocalMesh, door: Any, hook: Hook, sink: str) -> Planted:
    body = {"name": "planted", "sink": sink, "types": ["io.lablet.reservation."]}
    made = await door.call("POST", "/subscriptions", json=body)
    key = await door.call("POST", "/keys", json={"name": "planted", "role": "instructor"})
    assert (made.status_code, key.status_code) == (201, 201), (made.text, key.text)
    hook.secret = made.json()["secret"]
    await door.publish("ospf-basics")
    booked = await door.reserve({"definition": "ospf-basics", "seats": 2, **await door.slot(lead=2000, minutes=30)})
    assert booked.status_code == 201, booked.text
    booking = booked.json()["metadata"]["id"]
    links = await door.call("POST", f"/reservations/{booking}/claims")
    assert links.status_code == 201, links.text
    first, second = (link["code"] for link in links.json()["links"])
    secrets = {"webhook secret": hook.secret, "API key": key.json()["token"]}
    secrets |= {"code of a used link": first, "code of an open link": second}
    secrets |= {
        f"token of {role}": mesh.token(role) for role in ("admin", "operator", "instructor", "learner", "machine")
    }
    for path in mesh.folder.secrets.iterdir():
        if path.suffix in (".password", ".keys", ".token", ".licence-token", ".secret-key"):
            secrets[path.name] = path.read_text().strip().rpartition(":")[2]
    assert len(secrets) >= 18
    assert "agent-local-1.token" in secrets
    return Planted(secrets, hook, key.json()["token"], booking, (first, second))


@pytest.fixture
def enter(mesh: LocalMesh, planted: Planted, open_door: Any) -> Callable[[], Awaitable[Any]]:
    """A door whose answers are kept, to be looked through in the end."""

    async def enter() -> Any:
        door = await open_door(mesh, 240)
        door.http.event_hooks = {"response": [planted.note]}
        return door

    return enter


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    found = Collector()
    async with serving(found.take) as url:
        yield found, url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory, collector: tuple[Collector, str]) -> AsyncIterator[LocalMesh]:
    environment = {
        "WEBHOOK_ALLOW_PRIVATE": "true",
        "WEBHOOK_PATIENCE_HOURS": str(3 / 3600),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector[1],
        "OTEL_BSP_SCHEDULE_DELAY": "2000",  # whoever is killed takes its latest spans along
    }
    async with LocalMesh(tmp_path_factory.mktemp("faults"), speed=240, environment=environment, agents=1) as made:
        yield made


class Flow:
    """Books single seats all the time, as a patient client does: the same key again until there is an answer."""

    def __init__(self, door: Any) -> None:
        self._door = door
        self.accepted: set[str] = set()
        self.numbers = itertools.count()
        self.paused = asyncio.Event()
        self.paused.set()

    async def run(self) -> None:
        while True:
            await self.paused.wait()
            await self.book(next(self.numbers))
            await asyncio.sleep(0.35)

    async def book(self, number: int) -> None:
        body: dict[str, Any] | None = None
        while True:
            with contextlib.suppress(httpx.HTTPError):
                body = body or {"definition": "ospf-basics", "seats": 1, **await self._door.slot(lead=45, minutes=30)}
                headers = {"idempotency-key": f"flow-{number}"}
                answer = await self._door.call("POST", "/reservations", json=body, headers=headers)
                if answer.status_code == 422:
                    body = None  # while the mesh was away its slot went by
                    number += 100_000
                    continue
                if answer.status_code in (200, 201, 202):
                    self.accepted.add(answer.headers["location"])
                    return
                assert answer.status_code in (503, 504), answer.text
            await asyncio.sleep(0.2)


async def test_killed_one_after_another_nothing_is_lost_or_doubled(
    mesh: LocalMesh, planted: Planted, enter: Any
) -> None:
    door = await enter()
    await door.publish("ospf-basics")
    flow = Flow(door)
    flowing = asyncio.create_task(flow.run())
    try:
        for victim in VICTIMS:
            quiet = victim == "etcd" and not find_etcd().sound
            if quiet:
                print("reduced: this etcd may lose writes when it is killed at work, so it is killed at rest")
                flow.paused.clear()
                await asyncio.sleep(2)
            await mesh.wait_ended(victim, mesh.kill(victim))  # else it would still be called ready
            await mesh.wait_ready(victim, timeout=30)
            keyed = await door.call("GET", "/reservations?limit=1", headers={"authorization": f"Bearer {planted.key}"})
            assert keyed.status_code in (200, 503), keyed.text
            flow.paused.set()
            await asyncio.sleep(1.5)
    finally:
        flowing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flowing
    assert len(flow.accepted) >= 15

    requests = []
    for location in sorted(flow.accepted):
        path = location.partition("/api/v1")[2]
        requests.append(await door.until(path, _decided, seconds=40))
    listed = await _of_the_flow(door, planted)
    assert len({r["metadata"]["id"] for r in listed}) == len(listed)
    for reservation in listed:
        await door.until_phase(f"/reservations/{reservation['metadata']['id']}", *FINAL, seconds=90)
    finished = await _of_the_flow(door, planted)
    assert len(finished) >= len(flow.accepted)
    assert sum(r["status"]["phase"] == "Completed" for r in finished) >= len(finished) * 0.5, [
        (r["status"]["phase"], r["status"].get("reason")) for r in finished
    ]
    _never_double_booked(finished)
    await _every_lab_ran_once_at_a_time(mesh)


async def _of_the_flow(door: Any, planted: Planted) -> list[Any]:
    listed = (await door.get("/reservations?limit=500"))["items"]
    return [reservation for reservation in listed if reservation["metadata"]["id"] != planted.booking]


def _decided(resource: Any) -> bool:
    phase = resource["status"]["phase"]
    return phase not in ("Accepted", "Pending")


def _never_double_booked(reservations: list[Any]) -> None:
    """No port of a worker belongs to two seats at one time."""
    uses: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for reservation in reservations:
        slot = reservation["status"].get("slot")
        for seat in reservation["status"].get("placement", []):
            for port in seat["ports"].values():
                uses[seat["worker"], port].append((slot["start"], slot["end"]))
    for spans in uses.values():
        for (_, end), (start, _) in itertools.pairwise(sorted(spans)):
            assert datetime.fromisoformat(end) <= datetime.fromisoformat(start)


async def _every_lab_ran_once_at_a_time(mesh: LocalMesh) -> None:
    """By the simulators' own records: no lab was started on two machines, and none is left running."""
    running: dict[str, str] = {}
    for machine in await mesh.witness():
        alive: set[str] = set()
        for fact in machine["facts"]:
            title = fact.get("title", "")
            if fact["fact"] == "lab.started":
                alive.add(title)
                assert running.setdefault(title, machine["id"]) == machine["id"], title
            elif fact["fact"] in ("lab.stopped", "lab.deleted"):
                alive.discard(title)
            elif fact["fact"] in ("controller.started", "controller.stopped"):
                alive.clear()
        assert not alive, f"left running on {machine['name']}: {alive}"


async def test_a_simulator_killed_in_the_slot_gives_its_seat_to_another_worker(mesh: LocalMesh, enter: Any) -> None:
    door = await enter()
    await door.publish("ospf-basics")
    answer = await door.reserve({"definition": "ospf-basics", "seats": 1, **await door.slot(lead=30, minutes=240)})
    reservation = answer.json()
    seat = reservation["status"]["placement"][0]
    path = f"/instances/{seat['instance']}"
    await door.until_phase(path, "Running")
    await mesh.kill_machine(seat["worker"])
    healed = await door.until(
        path, lambda i: i["status"]["phase"] == "Running" and i["spec"]["worker"] != seat["worker"], seconds=40
    )
    assert healed["status"]["attempt"] == 2
    after = await door.get(f"/reservations/{reservation['metadata']['id']}")
    assert "Degraded" in [condition["type"] for condition in after["status"]["conditions"]]
    await door.call("DELETE", f"/reservations/{reservation['metadata']['id']}", headers={"if-match": "*"})


async def test_without_nats_requests_are_accepted_and_decided_and_told_later(mesh: LocalMesh, enter: Any) -> None:
    door = await enter()
    await door.publish("ospf-basics")
    await mesh.stop_process("nats")
    try:
        answer = await door.reserve(
            {"definition": "ospf-basics", "seats": 1, **await door.slot(lead=400, minutes=10)}, wait=0
        )
        assert answer.status_code in (201, 202), answer.text  # decided at once, or later
    finally:
        await mesh.resume_process("nats")
        await mesh.wait_ready("nats")
    path = answer.headers["location"].partition("/api/v1")[2]
    await door.until(path, _decided, seconds=10)


async def test_without_etcd_the_answer_names_it_and_is_never_an_empty_list(
    mesh: LocalMesh, planted: Planted, enter: Any
) -> None:
    door = await enter()
    await mesh.stop_process("etcd")
    try:
        answer = await door.call("GET", "/reservations")
        assert answer.status_code == 503
        assert "etcd" in answer.text
        claimed = await door.call("POST", f"/claims/{planted.codes[0]}", headers=_as("learner", mesh))
        assert claimed.status_code == 503, claimed.text
    finally:
        await mesh.resume_process("etcd")
        await mesh.wait_ready("etcd")
    await door.until("/reservations", lambda page: "items" in page, seconds=10)


def _as(role: str, mesh: LocalMesh) -> dict[str, str]:
    return {"authorization": f"Bearer {mesh.token(role)}"}


async def _claim_what_is_claimed_and_what_is_not(mesh: LocalMesh, planted: Planted, door: Any) -> None:
    taken = await door.call("POST", f"/claims/{planted.codes[0]}", headers=_as("learner", mesh) | {"prefer": "wait=10"})
    assert taken.status_code == 200, taken.text
    assert [entry["seat"] for entry in taken.json()["spec"]["roster"]] == [1]
    spent = await door.call("POST", f"/claims/{planted.codes[0]}", headers=_as("instructor", mesh))
    assert spent.status_code == 404, spent.text
    unproven = await door.call("POST", f"/claims/{planted.codes[1]}", headers={"authorization": "Bearer nobody"})
    assert unproven.status_code == 401, unproven.text


async def _use_the_agent_and_its_token(mesh: LocalMesh, planted: Planted, door: Any) -> None:
    """A lab that tells all of its environment, and calls with the token that are refused."""
    manifest = "kind: ProcessLab\nuntil: completed\nnodes: [{name: a, command: [env]}]\n"
    headers = {"content-type": "application/yaml", "prefer": "wait=10"}
    made = await door.call("POST", "/definitions?name=env", content=manifest.encode(), headers=headers)
    assert made.status_code in (200, 201), made.text
    job = {"definition": made.json()["metadata"]["id"], "pool": "agents", "asap": True, "durationMinutes": 60}
    booked = await door.reserve(job)
    assert booked.status_code == 201, booked.text
    await door.until_phase(f"/reservations/{booked.json()['metadata']['id']}", "Completed")
    token = planted.secrets["agent-local-1.token"]
    for spoilt, status in (("", 403), ("x", 401)):
        bearer = {"authorization": f"Bearer {token}{spoilt}"}
        refused = await door.call("POST", "/pools/default/replace", json={}, headers=bearer)
        assert refused.status_code == status, refused.text


async def test_without_s3_an_upload_is_refused_and_names_it(mesh: LocalMesh, enter: Any) -> None:
    door = await enter()
    await mesh.stop_process("s3")
    try:
        answer = await door.call(
            "POST",
            "/definitions?name=later",
            content=(Path(__file__).resolve().parents[2] / "examples/labs/ospf-basics.yaml").read_bytes(),
            headers={"content-type": "application/yaml"},
        )
        assert answer.status_code == 503
        assert "s3" in answer.text.lower()
    finally:
        await mesh.resume_process("s3")
        await mesh.wait_ready("s3")


async def test_no_secret_is_anywhere_but_where_it_belongs_after_all_that(
    mesh: LocalMesh, planted: Planted, collector: tuple[Collector, str], enter: Any
) -> None:
    """After kills, outages and refusals: where something goes wrong, most is told. The mesh is stopped, so that all that was
    said lies on the disk."""
    door = await enter()
    assert planted.hook.refused > 20, "the secret has not been at work where things fail"
    assert planted.hook.taken > 20
    letters = await door.until("/dead-letters?consumer=webhook-planted", lambda found: found["items"])
    for method, path, body, spoilt in REFUSED:
        bearer = {} if spoilt is None else {"authorization": f"Bearer {planted.key}{spoilt}"}
        await door.call(method, path, json=body, headers=bearer)
    await _claim_what_is_claimed_and_what_is_not(mesh, planted, door)
    await _use_the_agent_and_its_token(mesh, planted, door)
    places = {"answers": b"\n".join(planted.answers), "dead letters": json.dumps(letters).encode()}
    for kind in ("subscriptions", "keys", "workers", "audit?limit=1000"):
        places[kind] = (await door.call("GET", f"/{kind}")).content
    async with httpx.AsyncClient(trust_env=False) as http:
        for name in ("api-gateway-1", "scheduler-1", "worker-controller-1", "artifact-service-1"):
            for path in ("metrics", "readyz"):
                places[f"{path} of {name}"] = (await http.get(f"{mesh.health_url(name)}/{path}")).content
    missing = {401, 403, 404, 405, 409, 422, 428, 503} - planted.statuses
    assert missing == set(), "too few kinds of refusals were looked at"
    secrets = planted.secrets | await _changed_passwords(mesh)
    for name, folder in mesh.agent_folders().items():  # may lie beside the mesh's own, and end with it
        places |= {f"agents/{name}/{file}": content for file, content in files_below(folder)}
    await mesh.stop()
    places |= dict(files_below(mesh.folder.root, ELSEWHERE)) | spans_in(collector[0].exported)
    for what, where in KNOWN_TEXT.items():
        assert any(what in content for name, content in places.items() if name.startswith(where)), (what, where)
    assert found_in(secrets, places) == []


async def _changed_passwords(mesh: LocalMesh) -> dict[str, str]:
    """Of the workers' controllers, out of their seals."""
    box = SecretBox.from_file(mesh.keys.at_rest)
    found = {}
    for key, value in (await read_present(mesh.etcd_endpoint)).items():
        if key.startswith("/workers/") and isinstance(value, dict) and value["status"].get("credentials"):
            worker = value["metadata"]["id"]
            found[f"password of {worker}"] = box.open(value["status"]["credentials"], f"worker/{worker}")
    assert found
    return found
