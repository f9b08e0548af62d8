"""The API against its own OpenAPI document, by schemathesis: as every role, what the document says is what comes back.

Two ways: each operation with the document's example on resources that there are (so that most answer 2xx), and with what
schemathesis makes up, valid and not. No answer may be a server error, undocumented, or of another shape than documented.
A few made-up calls of each operation run by default, many in the long tier; the seeds are fixed.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lablet_common.bus.messages import DeadLetter
from lablet_common.secrets import SecretBox
from lablet_common.telemetry.health import EmbeddedServer
from lablet_gateway.app import create_app
from lablet_gateway.identity import Role
from lablet_gateway.rights import OPEN, PREFIX

CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ENDLESS = f"{PREFIX}/events/stream"
"""Never ends; `test_streams` opens it."""
YAML = "lab:\n  title: a lab\nnodes: []\nlinks: []\n"
RESERVATION = "rsv-a"
AWAY = {(method, path) for method, path in OPEN if path == "/readyz"}
"""Says 503 on purpose where a dependency is away."""
WHOLE_LIMIT = 0.9
"""Share of the operations that must reach a 2xx."""


@dataclass
class Door:
    names: dict[str, Any]
    url: str
    schema: Any
    document: dict[str, Any]

    def operations(self) -> list[Any]:
        found = [result.ok() for result in self.schema.get_all_operations()]
        return [operation for operation in found if operation.path != ENDLESS]

    def places(self, path: str, method: str) -> dict[str, Any]:
        """Path parameters that lead to what there is."""
        names = {
            "version": "1.0.0", "reservation_id": RESERVATION, "instance_id": "ins-a-1",
            "worker": "default-001", "sequence": 3, "tenant": "default", "series_id": "ser-a", "name": "default",
            **self.names,
        }  # fmt: skip
        areas = {
            "definitions": "ospf-basics", "templates": "simulated", "subscriptions": "own",
            "schemas": "io.lablet.reservation.scheduled.v1.json",
        }  # fmt: skip
        area = path.removeprefix(f"{PREFIX}/").partition("/")[0]
        names["name"] = areas.get(area, "default")
        return {name: names.get(name, "unknown") for name in re.findall(r"{(\w+)}", path)}

    def example(self, operation: Any) -> Case:
        """The operation as its document shows it."""
        raw = self.document["paths"][operation.path][operation.method.lower()]
        content = raw.get("requestBody", {}).get("content", {})
        headers = {"If-Match": "*"} if any(p["name"] == "If-Match" for p in raw.get("parameters", [])) else {}
        query = {p["name"]: "reservation/rsv-a" for p in raw.get("parameters", []) if p["name"] == "subject"}
        known: dict[str, Any] = {"path_parameters": self.places(operation.path, operation.method), "headers": headers}
        if "application/yaml" in content:
            query["name"] = "a-lab"
            return operation.Case(**known, query=query, body=YAML, media_type="application/yaml")  # type: ignore[no-any-return]
        for media_type, body in content.items():
            if "json" in media_type and "example" in body:
                return operation.Case(**known, query=query, body=body["example"], media_type=media_type)  # type: ignore[no-any-return]
        return operation.Case(**known, query=query)  # type: ignore[no-any-return]

    def send(self, case: Case, who: str) -> int:
        """The status. Raises what is not as documented."""
        response = case.call(base_url=self.url, headers={"Authorization": f"Bearer secret-of-{who}"}, timeout=20)
        checks = CHECKS[1:] if (case.method.upper(), case.path) in AWAY else CHECKS
        case.validate_response(response, checks=checks)
        return int(response.status_code)


class Faults:
    """What was not as documented, of all operations, so that one run tells everything."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    @contextmanager
    def of(self, operation: Any) -> Iterator[None]:
        try:
            yield
        except (FailureGroup, Failure, ExceptionGroup) as error:
            parts = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            self._found[f"{operation.method.upper()} {operation.path}"] = "; ".join(str(part)[:600] for part in parts)

    def tell(self) -> None:
        assert not self._found, "\n\n".join(f"{name}: {fault}" for name, fault in self._found.items())


async def _seed(world: Any, names: dict[str, Any]) -> None:
    """What the examples lead to: one of each kind, in a state in which it can be asked for."""
    letter = DeadLetter("lablet.event.default.reservation.-.rsv-a", {}, b"{}", "EVENTS", 1, "webhook-lms", "503", 9,
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
async def door(world: Any) -> AsyncIterator[Door]:
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
        yield Door(names, f"http://127.0.0.1:{port}", schemathesis.openapi.from_dict(document), document)
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=10)


def _examples(door: Door, who: str) -> dict[str, int]:
    """Reads first, then what changes, what deletes last."""
    order = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    found = sorted(door.operations(), key=lambda operation: order.index(operation.method.upper()))
    answers = {}
    faults = Faults()
    for one in found:
        with faults.of(one):
            answers[f"{one.method.upper()} {one.path}"] = door.send(door.example(one), who)
    faults.tell()
    return answers


@pytest.mark.parametrize(
    "role",
    [Role.ADMIN, *(pytest.param(role, marks=pytest.mark.long) for role in sorted(set(Role) - {Role.ADMIN}))],
)
async def test_the_documents_examples_work_for_whoever_may(door: Door, role: Role) -> None:
    answers = await asyncio.to_thread(_examples, door, f"{role}@default")
    if role is Role.ADMIN:
        reached = [name for name, status in answers.items() if status < 300]
        missed = {name: status for name, status in answers.items() if status >= 300}
        assert len(reached) >= WHOLE_LIMIT * len(answers), "\n".join(f"{n}: {m}" for n, m in missed.items())
    assert {status for status in answers.values() if status >= 500} <= {503}


def _made_up(door: Door, who: str, mode: GenerationMode, count: int) -> int:
    sent = 0
    faults = Faults()
    for operation in door.operations():
        places = door.places(operation.path, operation.method)

        @settings(
            max_examples=count, derandomize=True, deadline=None, database=None, phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(mode, path_parameters=places if mode is GenerationMode.POSITIVE else None))
        def call(case: Case) -> None:
            nonlocal sent
            sent += 1
            door.send(case, who)

        with faults.of(operation):
            try:
                call()
            except Unsatisfiable:
                if mode is not GenerationMode.NEGATIVE:  # where any text will do, nothing can be wrong
                    raise
    faults.tell()
    return sent


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
async def test_what_is_made_up_is_answered_as_documented(door: Door, mode: GenerationMode) -> None:
    assert await asyncio.to_thread(_made_up, door, "admin@default", mode, 1) > 50


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("who", [f"{role}@default" for role in Role] + ["instructor@acme"])
async def test_much_that_is_made_up_is_answered_as_documented(door: Door, who: str, mode: GenerationMode) -> None:
    assert await asyncio.to_thread(_made_up, door, who, mode, 12) > 500
