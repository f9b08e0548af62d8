"""Whatever changes something leaves an audit entry: every route of the application that is no read is walked."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.bus.messages import DeadLetter
from lablet_common.events import derive
from lablet_common.requests import Inbox, decide_in
from lablet_common.resources.kinds import REQUEST, RESERVATION, Service
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Claim
from lablet_common.secrets import SecretBox
from lablet_common.store import Transaction
from lablet_common.store.changes import update_in
from lablet_common.store.repository import Repository
from lablet_gateway import audit, seats
from lablet_gateway.app import create_app
from lablet_gateway.rights import PREFIX, RIGHTS

QUESTIONS = {("POST", f"{PREFIX}/reservations:simulate")}
"""They change nothing."""
YAML = b"lab:\n  title: a lab\nnodes: []\nlinks: []\n"
ORDER = ("POST", "PUT", "PATCH", "DELETE")
MUTATING = sorted(
    (r for r in RIGHTS if r[0] != "GET" and r not in QUESTIONS), key=lambda r: (ORDER.index(r[0]), -len(r[1]), r[1])
)
INSTEAD = {
    ("POST", f"{PREFIX}/subscriptions"): {"name": "second", "sink": "http://127.0.0.1:9/"},
    ("PUT", f"{PREFIX}/pools/{{name}}"): {"spec": {"template": "simulated", "max": 3}},
}
"""For examples that lead away from this world."""
ACTIONS = {
    "POST /definitions": "definition.publish",
    "POST /definitions/{name}/versions/{version}/deprecate": "definition.deprecate",
    "POST /definitions/{name}/versions/{version}/approve": "definition.approve",
    "POST /definitions/{name}/versions/{version}/archive": "definition.archive",
    "POST /reservations": "reservation.create",
    "PATCH /reservations/{reservation_id}": "reservation.change",
    "DELETE /reservations/{reservation_id}": "reservation.cancel",
    "POST /reservations/{reservation_id}:confirm": "reservation.confirm",
    "POST /reservations/{reservation_id}/claims": "reservation.open-claims",
    "DELETE /reservations/{reservation_id}/claims": "reservation.open-claims",
    "POST /claims/{code}": "reservation.claim",
    "POST /series": "series.create",
    "PATCH /series/{series_id}": "series.change",
    "DELETE /series/{series_id}": "series.cancel",
    "POST /instances/{instance_id}/start": "instance.start",
    "POST /instances/{instance_id}/stop": "instance.stop",
    "POST /instances/{instance_id}/collect": "instance.collect",
    "POST /instances/{instance_id}/retry": "instance.retry",
    "DELETE /instances/{instance_id}/artifacts": "artifact.delete",
    "DELETE /artifacts/{digest}": "artifact.delete",
    "POST /workers/{worker}/register": "worker.register",
    "POST /workers/{worker}/drain": "worker.drain",
    "POST /workers/{worker}/cancel-drain": "worker.drain-cancel",
    "POST /workers/{worker}/cordon": "worker.cordon",
    "POST /workers/{worker}/uncordon": "worker.uncordon",
    "POST /workers/{worker}/replace": "worker.replace",
    "POST /pools/{name}/replace": "pool.replace",
    "POST /pools/{name}/cancel-replace": "pool.replace-cancel",
    "POST /pools/{name}:optimise": "pool.optimise",
    "PUT /pools/{name}": "pool.apply",
    "PATCH /pools/{name}": "pool.apply",
    "DELETE /pools/{name}": "pool.delete",
    "PUT /templates/{name}": "template.apply",
    "PATCH /templates/{name}": "template.apply",
    "DELETE /templates/{name}": "template.delete",
    "POST /events": "reservation.create",
    "POST /dead-letters/{sequence}/replay": "dead-letter.replay",
    "DELETE /dead-letters/{sequence}": "dead-letter.forget",
    "DELETE /dead-letters": "dead-letter.purge",
    "POST /subscriptions": "subscription.create",
    "PATCH /subscriptions/{name}": "subscription.change",
    "DELETE /subscriptions/{name}": "subscription.delete",
    "POST /subscriptions/{name}/rotate-secret": "subscription.rotate-secret",
    "POST /subscriptions/{name}/redeliver": "subscription.redeliver",
    "PUT /quotas/{tenant}": "quota.set",
    "POST /keys": "key.create",
    "DELETE /keys/{key_id}": "key.revoke",
}


@pytest.fixture
async def names(world: Any) -> dict[str, Any]:
    """One of each kind, by the names in the paths."""
    settings = world.parts.settings.model_copy(update={"webhook_allow_private": True})
    world.parts = replace(world.parts, settings=settings, secrets=SecretBox({"k1": b"k" * 32}))
    world.app = create_app(world.parts)
    at = datetime(2027, 3, 1, tzinfo=UTC)
    letter = DeadLetter("lablet.event.default.reservation.-.rsv-a", {}, b"{}", "EVENTS", 1, "scheduler", "503", 9, at)
    world.dead.letters = dict.fromkeys(range(1, 6), letter)
    reservation = world.reservation("rsv-a", owner="ina")
    file = await world.artifact(b"hostname r1", "instance/ins-a-1")
    await world.add(reservation, world.instance(reservation), file, world.series())
    client = world.client()
    key = (await client.post(f"{PREFIX}/keys", json={"name": "lms"})).json()["key"]["metadata"]["id"]
    made = await client.post(f"{PREFIX}/subscriptions", json={"name": "own", "sink": "http://127.0.0.1:9/"})
    assert made.status_code == 201, made.text
    await world.caught_up()
    return {
        "reservation_id": "rsv-a", "instance_id": "ins-a-1", "series_id": "ser-a", "digest": file.id, "key_id": key,
        "worker": "default-001", "tenant": "acme", "version": "1.0.0",
    }  # fmt: skip


def address(method: str, path: str, names: dict[str, Any], code: str) -> str:
    area = path.removeprefix(f"{PREFIX}/").partition("/")[0]
    name = {"definitions": "ospf-basics", "templates": "simulated", "subscriptions": "own"}.get(area, "default")
    known = {**names, "name": name, "code": code, "sequence": 3 if method == "DELETE" else 2}
    return re.sub(r"{(\w+)}", lambda found: str(known[found[1]]), path)


async def open_link(world: Any) -> str:
    """A code for seat 2 of the class, as its booker got it."""
    code = seats.new_code("rsv-a")
    txn = Transaction()
    found = await Repository(world.store, RESERVATION).require("rsv-a")
    update_in(txn, found.respecified(claims=(Claim(seat=2, sha256=seats.hash_of(code)),)))
    await txn.commit(world.store)
    return code


async def decide_all(world: Any) -> None:
    """Every owner says yes to whatever waits."""
    for pointer in (await world.store.range("/inbox/")).items:
        _, _, service, shard, *_ = pointer.key.split("/")
        for undecided in await Inbox(world.store, service, shard).pending():
            txn = Transaction()
            decide_in(txn, undecided, at=world.clock.now(), by=f"/lablet/{service}", reason="Done")
            await txn.commit(world.store)


async def test_every_route_that_changes_something_leaves_its_entry(world: Any, names: dict[str, Any]) -> None:
    assert {f"{method} {path.removeprefix(PREFIX)}" for method, path in MUTATING} == set(ACTIONS)
    document = world.app.openapi()["paths"]
    missing = []
    for method, path in MUTATING:
        code = await open_link(world)
        before = {request.id for request in await requests(world)}
        answer = await ask(world, document, method, path, address(method, path, names, code))
        await decide_all(world)
        made = [entry for one in await requests(world) if one.id not in before and (entry := entry_of(one)) is not None]
        told = [(entry.action, entry.principal, entry.role, entry.outcome) for entry in made]
        who = ("ann", "learner") if "/claims/" in path else ("admin@default", "admin")
        wanted = [(ACTIONS[f"{method} {path.removeprefix(PREFIX)}"], *who, "done")]
        if answer.status_code >= 300 or told != wanted or not made[0].subject.partition("/")[2]:
            missing.append(f"{method} {path}: {answer.status_code}, {told} and not {wanted}: {answer.text[:300]}")
    assert not missing, "\n".join(missing)


async def ask(world: Any, document: Any, method: str, path: str, url: str) -> Any:
    """Sends the document's example."""
    content = document[path][method.lower()].get("requestBody", {}).get("content", {})
    example = next((media["example"] for kind, media in content.items() if "json" in kind and "example" in media), None)
    client = world.client("ann" if "/claims/" in path else "admin@default")
    if (method, path) == ("POST", f"{PREFIX}/definitions"):
        return await client.post(f"{url}?name=new", content=YAML, headers={"content-type": "application/yaml"})
    if (method, path) == ("POST", f"{PREFIX}/events"):
        event = content["application/cloudevents+json"]["schema"]["examples"][0]
        headers = {"content-type": "application/cloudevents+json"}
        return await client.post(url, content=json.dumps(event), headers=headers)
    headers = {"If-Match": "*", "Prefer": "wait=0"}
    return await client.request(method, url, json=INSTEAD.get((method, path), example), headers=headers)


async def requests(world: Any) -> tuple[Request, ...]:
    return (await Repository(world.store, REQUEST).list("default")).items


def entry_of(request: Request) -> Any:
    """What the audit makes of the request's event."""
    outgoing = derive(REQUEST, None, request, request.revision, source=f"/lablet/{Service.GATEWAY}")
    return audit.entry_of(outgoing[-1].event)
