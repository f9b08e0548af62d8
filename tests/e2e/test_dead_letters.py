"""What nobody can handle, from a poison intent and from a sink that refuses, on one mesh: into the queue with reason and
attempts, counted where the alert looks, seen, sent again and forgotten by API and command line. (In the console:
`console/test_labs.py`.)"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from lablet_common.bus.permissions import inbox_prefix
from lablet_common.testing.sinks import serving

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

RULES = Path(__file__).resolve().parents[2] / "deploy" / "observability" / "prometheus" / "rules" / "alerts.yml"
INTENT = "lablet.intent.scheduler.default.reservation.poison"
SCHEDULER, HOOK = "scheduler-default", "webhook-lms"
COUNTERS = {SCHEDULER: "scheduler-1", HOOK: "api-gateway-1"}
"""Consumer → the process that gives up on its messages."""


@pytest.fixture(scope="module")
def mesh_environment() -> dict[str, str]:
    """A sink's day is two seconds long."""
    return {"WEBHOOK_ALLOW_PRIVATE": "true", "WEBHOOK_PATIENCE_HOURS": str(2 / 3600)}


class Sink:
    """Refuses whatever comes, until it is mended."""

    def __init__(self) -> None:
        self.status = 422
        self.taken: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        event = await request.json()
        if self.status < 300:
            self.taken.append(event)
        return web.Response(status=self.status)


@pytest_asyncio.fixture(loop_scope="module")
async def sink() -> AsyncIterator[tuple[Sink, str]]:
    made = Sink()
    async with serving(made.take) as url:
        yield made, f"{url}/hook"


async def poison(mesh: Any) -> None:
    """An intent that is no event, as only the gateway could send it."""
    user, password = mesh.nats_login("api-gateway")
    gateway = await nats.connect(mesh.nats_url, user=user, password=password, inbox_prefix=inbox_prefix(user))
    await gateway.jetstream().publish(INTENT, b'{"no": "event"}')
    await gateway.close()


def alert_metric() -> str:
    """What the alert on dead letters counts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"] if rule.get("alert") == "LabletDeadLetters"]
    found = re.search(r"increase\((\w+)\[", rule["expr"])
    assert found
    return found.group(1)


async def counted(mesh: Any, name: str, process: str, **labels: str) -> float | None:
    """The value of one series of a process; None where it has none."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{mesh.health_url(process)}/metrics")).text
    inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
    wanted = f"{name}{{{inner}}}" if labels else name
    return next(
        (float(line.rpartition(" ")[2]) for line in text.splitlines() if line.rpartition(" ")[0] == wanted), None
    )


async def letters_of(door: Any, consumer: str, count: int) -> list[dict[str, Any]]:
    page = await door.until(
        f"/dead-letters?consumer={consumer}", lambda found: len(found["items"]) >= count, seconds=20
    )
    return list(page["items"])


async def test_poison_and_refusals_end_in_the_queue_and_go_where_an_operator_wants(
    door: Any, sink: tuple[Sink, str]
) -> None:
    if door.mesh is None:
        pytest.skip("the way into NATS and the services' metrics are known for a local mesh only")
    mesh, (refusing, url) = door.mesh, sink
    hook = {"name": "lms", "sink": url, "types": ["io.lablet.definition."]}
    assert (await door.call("POST", "/subscriptions", json=hook)).status_code == 201
    metric = alert_metric()
    async with asyncio.timeout(20):
        for consumer, process in COUNTERS.items():
            while await counted(mesh, metric, process, consumer=consumer) is None:
                await asyncio.sleep(0.1)
            assert await counted(mesh, metric, process, consumer=consumer) == 0.0, (
                "an alert sees the first one as an increase"
            )

    await poison(mesh)
    await door.publish("ospf-basics")
    (intent,) = await letters_of(door, SCHEDULER, 1)
    refused = await letters_of(door, HOOK, 1)

    assert (intent["subject"], intent["stream"], intent["attempts"]) == (INTENT, "INTENTS_SCHEDULER", 1)
    assert intent["reason"].startswith("not a valid event: ")
    assert intent["payload"] == '{"no": "event"}'
    assert refused[0]["stream"] == "EVENTS"
    assert refused[0]["headers"]["ce-type"].startswith("io.lablet.definition.")
    assert refused[0]["attempts"] >= 2
    assert "422" in refused[0]["reason"]
    for consumer, process in COUNTERS.items():
        assert (await counted(mesh, metric, process, consumer=consumer) or 0) >= 1, consumer
    one = await door.get(f"/dead-letters/{intent['sequence']}")
    assert one == intent

    def cli(*arguments: str) -> Any:
        return asyncio.to_thread(door.cli, "dlq", *arguments)

    listed = await cli("list", "-o", "json")
    assert {letter["consumer"] for letter in json.loads(listed.stdout)} == {SCHEDULER, HOOK}
    shown = await cli("show", str(intent["sequence"]))
    assert "not a valid event" in shown.stdout
    assert '"no": "event"' in shown.stdout
    table = await cli("list", "--consumer", SCHEDULER)
    assert str(intent["sequence"]) in table.stdout
    assert HOOK not in table.stdout

    # replayed by the command line, the poison fails anew: another letter, counted again
    assert (await cli("replay", str(intent["sequence"]))).returncode == 0
    (again,) = await letters_of(door, SCHEDULER, 1)
    async with asyncio.timeout(20):
        while again["sequence"] == intent["sequence"]:
            (again,) = await letters_of(door, SCHEDULER, 1)
    assert again["payload"] == intent["payload"]
    assert await counted(mesh, metric, "scheduler-1", consumer=SCHEDULER) == 2.0

    # replayed by the API, what the mended sink takes is gone
    refusing.status = 204
    assert (await door.call("POST", f"/dead-letters/{refused[0]['sequence']}/replay")).status_code == 200
    async with asyncio.timeout(20):
        while not refusing.taken:
            await asyncio.sleep(0.05)
    assert refusing.taken[0]["id"] == refused[0]["headers"]["ce-id"]
    left = (await door.get(f"/dead-letters?consumer={HOOK}"))["items"]
    assert refused[0]["sequence"] not in [letter["sequence"] for letter in left]

    purged = await cli("purge", "--consumer", SCHEDULER)
    assert "1 dead letter deleted" in purged.stdout
    await poison(mesh)
    await letters_of(door, SCHEDULER, 1)
    answer = await door.call("DELETE", "/dead-letters")
    assert answer.json()["purged"] >= 1
    assert (await door.get("/dead-letters"))["items"] == []
    audit = (await door.get("/audit?limit=200"))["items"]
    assert {"dead-letter.replay", "dead-letter.purge"} <= {entry["action"] for entry in audit}
