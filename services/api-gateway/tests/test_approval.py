"""Agents run only what an operator of the fleet approved: who gives that word, and what comes without it."""

from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.resources.definition import Approval, RuntimeNeeds

PATH = "/api/v1/definitions"
YAML = {"Content-Type": "application/yaml"}
MANIFEST = b"kind: ProcessLab\nnodes: [{name: a, command: [x]}]\n"


def processes(world: Any, approval: Approval | None = None) -> Any:
    made = world.definition("jobs")
    spec = made.spec.model_copy(update={"runtime": RuntimeNeeds(name="process")})
    return made.model_copy(update={"spec": spec, "status": made.status.model_copy(update={"approved": approval})})


def event(**data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "e1",
        "source": "/lms",
        "type": "io.lablet.definition.publish.requested.v1",
        "subject": "definition/jobs",
        "data": {
            "name": "jobs",
            "staging": "staging/uploads/default/req-x",
            "digest": "0" * 64,
            "bytes": 3,
            **data,
        },
    }


@pytest.mark.parametrize(
    ("who", "counts"), [("admin@default", True), ("instructor@default", False), ("admin@acme", False)]
)
async def test_only_what_the_fleets_own_operators_publish_is_approved(world: Any, who: str, counts: bool) -> None:
    answer = await world.client(who).post(f"{PATH}?name=jobs", content=MANIFEST, headers=YAML)
    assert answer.status_code == 202, answer.text
    (request,) = await world.inbox("artifact-service", "-")
    assert bool(request.spec.data.get("approved")) is counts


async def test_nobody_approves_by_saying_so(world: Any) -> None:
    answer = await world.client("machine@default").post(
        "/api/v1/events", json=event(approved=True), headers={"Content-Type": "application/cloudevents+json"}
    )
    assert answer.status_code < 300, answer.text
    (request,) = await world.inbox("artifact-service", "-")
    assert not request.spec.data.get("approved")


async def test_what_is_not_approved_cannot_be_booked(world: Any, booking: Callable[..., dict[str, Any]]) -> None:
    await world.add(processes(world))
    answer = await world.client("ina").post("/api/v1/reservations", json=booking(definition="jobs"))
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["path"] == "definition"
    assert "no operator has approved" in fault["message"]
    assert "lablet definition approve jobs@1.0.0" in fault["remedy"]


async def test_what_is_approved_can(world: Any, booking: Callable[..., dict[str, Any]]) -> None:
    await world.add(processes(world, Approval(by="op", at=world.metadata("x").created_at)))
    answer = await world.client("ina").post("/api/v1/reservations", json=booking(definition="jobs"))
    assert answer.status_code == 202, answer.text
