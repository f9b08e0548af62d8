"""The page docs/integrate.md is typed and run as it stands, against the real gateway. Its NATS part runs on a real mesh:
`tests/e2e/test_outside.py`."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "integrate.md").read_text(encoding="utf-8")


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of a section."""
    found = re.search(rf"## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, section
    return re.findall(rf"```{language}\n(.*?)```", found[1], re.DOTALL)


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
    publish, follow, outcome = commands(blocks("curl", "console")[0])
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
    program.write_text(blocks("Python", "python")[0])
    again = [sys.executable, str(program)]
    done = subprocess.run(again, env=surroundings, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, *facts = done.stdout.split("\n")
    assert first.startswith("Decided reservation/rsv-")
    assert "reservation.scheduled" in facts


def test_binary_mode_and_a_batch_in_curl(surroundings: dict[str, str], tmp_path: Path) -> None:
    binary, batch = commands(blocks("curl", "console")[1])
    taken = json.loads(shell(binary, surroundings))
    assert (taken["id"], taken["source"], taken["result"]) == ("course-7-2", "/lms", "accepted")
    good, bad = json.loads(shell(batch, surroundings))["results"]
    assert (good["id"], good["result"]) == ("course-7-3", "accepted")
    assert (bad["id"], bad["result"], bad["problem"]["status"]) == ("course-7-4", "refused", 422)
    assert "io.lablet.reservation.requested.v1" in json.dumps(bad["problem"]), "the nearest type is named"
    status = "-o /dev/null -w '%{http_code}'"
    assert shell(batch.replace("curl -s", f"curl -s {status}"), surroundings) == "207"
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"definition": "ospf-basics", "labels": {"x": "y" * 2**20}}))
    sent = re.sub(r"-d '.*'", f"-d @{large}", binary.replace("curl -s", f"curl -s {status}"))
    assert shell(sent, surroundings) == "413"
