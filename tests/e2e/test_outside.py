"""Systems outside of the mesh, on NATS alone: the sample grader at work, and the commands of docs/integrate.md.

The `nats` command is in no registry that this project rests on. So its commands are read from the page, checked against
the options that it documents, and the same subjects, headers and bodies go over the wire by nats-py.
"""

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).resolve().parents[2]


async def test_a_grader_outside_the_mesh_scores_a_lab_through_events_alone(door: Any) -> None:
    if door.mesh is None:
        pytest.skip("needs the local mesh's own NATS user")
    made = await door.call(
        "POST",
        "/definitions",
        files={"topology": (ROOT / "examples/labs/ospf-basics.yaml").read_bytes(), "definition": b'{"grade": true}'},
        params={"name": "graded-lab"},
        headers={"prefer": "wait=10"},
    )
    assert made.status_code in (200, 201), made.text
    user, password = door.mesh.nats_login("outside")
    environment = os.environ | {
        "NATS_URL": door.mesh.nats_url, "NATS_USER": user, "NATS_PASSWORD": password,
        "LABLET_URL": door.url, "LABLET_TOKEN": door.mesh.token("machine"), "EXPECTED": "hostname R1",
    }  # fmt: skip
    grader = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "docs/examples/grader.py"), env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert grader.stdout is not None
        assert await asyncio.wait_for(grader.stdout.readline(), 20) == b"listening\n"
        answer = await door.reserve({"definition": "graded-lab", "seats": 1, **await door.slot(lead=45, minutes=30)})
        assert answer.status_code == 201, answer.text
        path = f"/instances/{answer.json()['status']['placement'][0]['instance']}"
        done = await door.until_phase(path, "Terminated", "Failed", seconds=90)
        assert done["status"]["phase"] == "Terminated"
        assert (done["status"]["score"]["passed"], done["status"]["score"]["points"]) == (True, 1.0)
        assert "Graded" in [move["reason"] for move in done["status"]["history"]]
    finally:
        grader.terminate()
        await grader.wait()


@dataclass
class Typed:
    """A command of the page, understood as the `nats` command does."""

    verb: str
    subject: str
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    inbox: str = "_INBOX"

    @classmethod
    def parse(cls, line: str) -> Self:
        """`nats sub|req SUBJECT [BODY]` with -H and --inbox-prefix; anything else is a mistake of the page."""
        _, verb, *rest = shlex.split(line.removesuffix("&").replace("\\\n", " "))
        assert verb in ("sub", "req"), line
        typed, places = cls(verb, ""), []
        words = iter(rest)
        for word in words:
            if word in ("-H", "--header"):
                name, _, value = next(words).partition(":")
                typed.headers[name] = value
            elif word == "--inbox-prefix":
                typed.inbox = next(words)
            else:
                assert not word.startswith("-"), f"{word}: not an option that this test knows"
                places.append(word)
        typed.subject, typed.body = places[0], places[1] if verb == "req" else ""
        return typed


def typed_on_the_page() -> Iterator[Typed]:
    page = (ROOT / "docs/integrate.md").read_text(encoding="utf-8")
    found = re.search(r"## nats\n.*?```console\n(.*?)```", page, re.DOTALL)
    assert found is not None
    for line in re.split(r"^\$ ", found[1], flags=re.MULTILINE)[1:]:
        if line.startswith("nats "):
            yield Typed.parse(line.strip())


@asynccontextmanager
async def outside(door: Any, inbox: str) -> AsyncIterator[Client]:
    user, password = door.mesh.nats_login("outside")
    client = await nats.connect(door.mesh.nats_url, user=user, password=password, inbox_prefix=inbox.encode())
    try:
        yield client
    finally:
        await client.close()


def _waiting(queue: asyncio.Queue[Msg]) -> Iterator[Msg]:
    while not queue.empty():
        yield queue.get_nowait()


async def test_the_round_trip_that_the_page_shows_with_the_nats_command(door: Any) -> None:
    if door.mesh is None:
        pytest.skip("needs the local mesh's own NATS user")
    await door.publish("ospf-basics")
    story, refusals, wish = typed_on_the_page()
    assert [one.verb for one in (story, refusals, wish)] == ["sub", "sub", "req"]
    told: asyncio.Queue[Msg] = asyncio.Queue()
    refused: asyncio.Queue[Msg] = asyncio.Queue()
    async with outside(door, wish.inbox) as client:
        await client.subscribe(story.subject, cb=told.put)
        await client.subscribe(refusals.subject, cb=refused.put)
        await client.flush()
        stored = await client.request(wish.subject, wish.body.encode(), timeout=10, headers=wish.headers)
        assert json.loads(stored.data)["stream"] == "INGRESS"
        facts: list[str] = []
        try:
            async with asyncio.timeout(30):
                while not {"io.lablet.reservation.scheduled.v1", "io.lablet.request.decided.v1"} <= set(facts):
                    message = await told.get()
                    if (message.headers or {}).get("ce-correlationid") == json.loads(wish.body)["correlationid"]:
                        facts.append((message.headers or {})["ce-type"])
        except TimeoutError:
            pytest.fail(f"only {facts}; refused: {[message.data for message in _waiting(refused)]}")
        of_request = [fact for fact in facts if fact.startswith("io.lablet.request.")]
        assert of_request == ["io.lablet.request.accepted.v1", "io.lablet.request.decided.v1"]

        wrong = json.loads(wish.body) | {"id": "course-7-wrong", "data": {"definition": "ospf-basics", "seats": 0}}
        await client.request(wish.subject, json.dumps(wrong).encode(), timeout=10, headers=wish.headers)
        answer = await asyncio.wait_for(refused.get(), 15)
        assert (answer.headers or {})["ce-type"] == "io.lablet.ingress.refused.v1"
        said = answer.data.decode()
        assert "course-7-wrong" in said
        assert "seats" in said

        await client.request(wish.subject, b"not an event", timeout=10, headers=wish.headers)
        answer = await asyncio.wait_for(refused.get(), 15)
        assert json.loads(answer.data)["problem"]["status"] == 422


async def test_the_program_of_the_sdks_page_that_waits_for_a_running_lab(door: Any, tmp_path: Path) -> None:
    """Its others run beside the client (`libs/client/tests/test_guide.py`)."""
    page = (ROOT / "docs/guides/sdk.md").read_text(encoding="utf-8")
    found = re.search(r"^## Wait for it\n.*?```python\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    program = tmp_path / "program.py"
    program.write_text(found[1])
    await door.publish("ospf-basics")
    environment = os.environ | {"LABLET_URL": door.url, "LABLET_TOKEN": door.token}
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await asyncio.wait_for(running.communicate(), 110)
    assert running.returncode == 0, wrong.decode()
    *phases, r1, _, _ = said.decode().splitlines()
    assert phases[-1] == "Active"
    assert re.fullmatch(r"r1_serial 127\.\d+\.\d+\.\d+:\d+", r1)
