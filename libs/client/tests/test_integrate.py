"""The page docs/integrate.md is typed and run as it stands, against the real gateway."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "integrate.md").read_text(encoding="utf-8")


def block(section: str, language: str) -> str:
    """The code of a section."""
    found = re.search(rf"## {section}\n.*?```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, section
    return found[1]


def commands(text: str) -> list[str]:
    """What is typed: lines after `$`, with what they go on with."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [re.split(r"\n(?=\{)", part)[0].strip() for part in parts]


@pytest.fixture
def surroundings(mesh: Any, typed: Any, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "lab.yaml").write_text("nodes: []\n")
    typed("definition", "publish", str(tmp_path / "lab.yaml"), "--name", "ospf-basics")
    return {"LABLET_URL": mesh.url, "LABLET_TOKEN": mesh.token("admin"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}


def shell(command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode in (0, 28), done.stderr  # 28: curl's own time limit, for the stream that never ends
    return done.stdout


def test_the_round_trip_in_curl(surroundings: dict[str, str]) -> None:
    publish, follow, outcome = commands(block("curl", "console"))
    follow = follow.replace("curl -N", "curl -sN --max-time 3")
    with subprocess.Popen(["bash", "-c", follow], env=surroundings, stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        assert stream.stdout.readline().startswith(":"), "listening"
        told = json.loads(shell(publish, surroundings))
        assert told["result"] == "accepted"
        heard = stream.stdout.read()
    types = [
        json.loads(line.removeprefix("data: "))["type"] for line in heard.splitlines() if line.startswith("data: {")
    ]
    assert "io.lablet.request.accepted.v1" in types
    assert "io.lablet.request.decided.v1" in types
    request = json.loads(shell(outcome.replace("/api/v1/requests/req-…", told["request"]), surroundings))
    assert (request["status"]["phase"], request["status"]["resource"]) == ("Decided", told["resource"])


def test_the_round_trip_in_python(surroundings: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block("Python", "python"))
    again = [sys.executable, str(program)]
    done = subprocess.run(again, env=surroundings, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, *facts = done.stdout.split("\n")
    assert first.startswith("Decided reservation/rsv-")
    assert "reservation.scheduled" in facts


def test_the_event_that_the_nats_cli_sends_is_one_that_is_taken(surroundings: dict[str, str], mesh: Any) -> None:
    """The CLI needs a server; its event and media type are sent through the other door here."""
    *_, request = commands(block("nats", "console"))
    found = re.search(r"-H content-type:(\S+) '(.*)'", request, re.DOTALL)
    assert found is not None
    assert "req lablet.ingress.default.reservation" in request
    event = json.loads(found[2]) | {"id": "by-nats"}
    headers = f"-H 'Authorization: Bearer {mesh.token('admin')}' -H 'Content-Type: {found[1]}'"
    sent = f"curl -s {mesh.url}/api/v1/events {headers} -d '{json.dumps(event)}'"
    assert json.loads(shell(sent, surroundings))["result"] == "accepted"
