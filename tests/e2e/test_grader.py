"""The sample grader at work: it hears, fetches, answers by events alone, and the score stands with the instance."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

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
