"""The API on its twins against its own OpenAPI document (`lablet_common.testing.conformance`), as every role.

A few made-up calls of each operation run by default, many in the long tier. The same against a live mesh:
`tests/e2e/test_openapi.py`.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn
from schemathesis import GenerationMode

from lablet_common.bus.messages import DeadLetter
from lablet_common.secrets import SecretBox
from lablet_common.telemetry.health import EmbeddedServer
from lablet_common.testing.conformance import INVALID, VALID, Conformance
from lablet_gateway.app import create_app
from lablet_gateway.identity import Role
from lablet_gateway.rights import PREFIX

YAML = "lab:\n  title: a lab\nnodes: []\nlinks: []\n"
RESERVATION = "rsv-a"
WHOLE_LIMIT = 0.9
"""Share of the operations that must reach a 2xx."""


def _places(names: dict[str, Any]) -> Any:
    """Path parameters that lead to what there is."""

    def places(_: str, path: str) -> dict[str, Any]:
        known = {
            "version": "1.0.0", "reservation_id": RESERVATION, "instance_id": "ins-a-1",
            "worker": "default-001", "sequence": 3, "tenant": "default", "series_id": "ser-a", **names,
        }  # fmt: skip
        areas = {
            "definitions": "ospf-basics", "templates": "simulated", "subscriptions": "own",
            "schemas": "io.lablet.reservation.scheduled.v1.json",
        }  # fmt: skip
        known["name"] = areas.get(path.removeprefix(f"{PREFIX}/").partition("/")[0], "default")
        return {name: known.get(name, "unknown") for name in re.findall(r"{(\w+)}", path)}

    return places


async def _seed(world: Any, names: dict[str, Any]) -> None:
    """What the examples lead to: one of each kind, in a state in which it can be asked for."""
    letter = DeadLetter("lablet.event.default.reservation.-.rsv-a", {}, b"{}", "EVENTS", 1, "scheduler", "503", 9,
                        datetime(2027, 3, 1, tzinfo=UTC))  # fmt: skip
    world.dead.letters = dict.fromkeys(range(1, 6), letter)
    client = world.client()
    booked = await client.post(f"{PREFIX}/reservations", json={"definition": "ospf-basics", "asap": True,
                                                              "durationMinutes": 60})  # fmt: skip
    names["request_id"] = booked.json()["metadata"]["id"]
    key = await client.post(f"{PREFIX}/keys", json={"name": "grader"})
    names["key_id"] = key.json()["key"]["metadata"]["id"]
    made = await client.post(f"{PREFIX}/subscriptions", json={"name": "own", "sink": "http://127.0.0.1:9/"})
    assert made.status_code == 201, made.text


@pytest.fixture
async def door(world: Any) -> AsyncIterator[Conformance]:
    own = world.parts.settings.model_copy(update={"webhook_allow_private": True, "gateway_max_wait_seconds": 0.01})
    world.parts = replace(world.parts, settings=own, secrets=SecretBox({"k1": b"k" * 32}))
    world.app = create_app(world.parts)
    reservation = world.reservation(RESERVATION, owner="admin@default", roster={1: "learner@default"})
    seeded = await world.artifact(b"hostname r1", "instance/ins-a-1")
    await world.add(reservation, world.instance(reservation), seeded, world.series(owner="admin@default"))
    names = {"digest": seeded.id}
    await _seed(world, names)
    await world.caught_up()
    config = uvicorn.Config(world.app, host="127.0.0.1", port=0, lifespan="off", log_level="error", ws="none")
    server = EmbeddedServer(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        document = world.app.openapi()
        yield Conformance(
            f"http://127.0.0.1:{port}",
            document,
            _places(names),
            endless=[f"{PREFIX}/events/stream"],  # `test_streams` opens it
            may_be_away=["GET /readyz"],
            query={
                f"GET {PREFIX}/events": {"subject": "reservation/rsv-a"},
                f"POST {PREFIX}/definitions": {"name": "a-lab"},
            },
            bodies={f"POST {PREFIX}/definitions": ("application/yaml", YAML)},
        )
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=10)


def _token(who: str) -> str:
    return f"secret-of-{who}"


@pytest.mark.parametrize(
    "role",
    [Role.ADMIN, *(pytest.param(role, marks=pytest.mark.long) for role in sorted(set(Role) - {Role.ADMIN}))],
)
async def test_the_documents_examples_work_for_whoever_may(door: Conformance, role: Role) -> None:
    answers = await asyncio.to_thread(door.examples, _token(f"{role}@default"))
    if role is Role.ADMIN:
        missed = [f"{one.operation}: {one.status}" for one in answers if one.status >= 300]
        assert len(answers) - len(missed) >= WHOLE_LIMIT * len(answers), "\n".join(missed)
    assert {one.status for one in answers if one.status >= 500} <= {503}


@pytest.mark.parametrize("mode", [VALID, INVALID], ids=["valid", "invalid"])
async def test_what_is_made_up_is_answered_as_documented(door: Conformance, mode: GenerationMode) -> None:
    assert await asyncio.to_thread(door.made_up, _token("admin@default"), mode, 1) > 50


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [VALID, INVALID], ids=["valid", "invalid"])
@pytest.mark.parametrize("who", [f"{role}@default" for role in Role] + ["instructor@acme"])
async def test_much_that_is_made_up_is_answered_as_documented(
    door: Conformance, who: str, mode: GenerationMode
) -> None:
    assert await asyncio.to_thread(door.made_up, _token(who), mode, 12) > 500
