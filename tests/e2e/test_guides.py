"""What the guides and the README show is what happens: their commands are run in order on one mesh.

What the services told meanwhile, as metrics and logs, is looked at afterwards.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.metrics import MetricWrapperBase

from lablet_common.telemetry import metrics
from lablet_common.testing.guides import Ids, differs, is_given, is_look, shown
from lablet_local.mesh import LocalMesh

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/start.md",
    "docs/guides/instructor.md",
    "docs/guides/operator.md",
    "docs/operations/capacity.md",
    "docs/operations/etcd.md",
    "docs/operations/backup.md",
)
SERVICES = ("api-gateway", "scheduler", "worker-controller", "artifact-service")
NAMES = sorted(
    f"{one._name}_total" if one._type == "counter" else one._name
    for one in vars(metrics).values()
    if isinstance(one, MetricWrapperBase)
)
COUNTED = (
    r'lablet_reservations{phase="\w+",pool="default"}',
    r'lablet_instances{phase="\w+",pool="default"}',
    r'lablet_workers{phase="\w+",pool="default"}',
    r'lablet_scheduling_decisions_total{reason="Placed",result="placed"}',
    r"lablet_scheduling_duration_seconds_count",
    r"lablet_decision_latency_seconds_count",
    r'lablet_inbox_depth{service="scheduler",shard="default"}',
    r'lablet_bridge_lag_revisions{kind="reservation"}',
    r'lablet_bridge_lag_seconds{kind="reservation"}',
    r"lablet_instantiation_duration_seconds_count",
    r"lablet_slot_punctuality_seconds_count",
    r'lablet_scaling_decisions_total{direction="up",rule="[\w-]+"}',
    r'lablet_store_operation_duration_seconds_count{op="\w+"}',
    r'lablet_event_handling_duration_seconds_count{consumer="scheduler-default"}',
    r'lablet_is_owner{service="scheduler",shard="default"}',
    r'lablet_api_request_duration_seconds_count{method="POST",route="/api/v1/reservations",status="\d+"}',
)
"""Names with the labels of the contract; what is counted when a worker goes off, or a message dies, by tests of those."""
SPEED = 60.0
FEWEST = 30
"""Commands, so that a lost mark is noticed."""
PATIENCE_SECONDS = 20.0
"""For what a look at the mesh is to show."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(request: pytest.FixtureRequest, open_door: Any, tmp_path_factory: Any) -> AsyncIterator[Any]:
    """A mesh of its own, slow enough for a reader: what begins in two hours has not begun when it is explained."""
    if request.config.getoption("--mesh") != "local":
        pytest.skip("needs the local mesh's own internal ports and logs")
    async with LocalMesh(tmp_path_factory.mktemp("mesh"), speed=SPEED, spans=True) as mesh:
        opened = await open_door(mesh, SPEED)
        yield opened
        await opened.http.aclose()


@dataclass(frozen=True, slots=True)
class Walk:
    """The guides' commands, each run once, in their order."""

    ran: int
    wrong: tuple[str, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walk(door: Any, tmp_path_factory: Any) -> Walk:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABLET_")} | {
        "HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LABLET_CONNECTION": str(door.mesh.folder.connection),
        "COLUMNS": "300",
        "TZ": "UTC",
    }
    ids, wrong, ran = Ids(), [], 0
    for page in PAGES:
        for step in shown(ROOT, page):
            if is_given(step.command):
                continue
            command, patience, difference = ids.put_into(step.command), time.monotonic() + PATIENCE_SECONDS, None
            while True:
                done = await asyncio.to_thread(
                    subprocess.run, ["bash", "-euc", command],
                    cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                difference = differs(step.output, done.stdout) or (done.stderr if done.returncode else None)
                if difference is None or not is_look(command) or time.monotonic() > patience:
                    break
            ids.see(done.stdout)
            ran += 1
            if difference is not None:
                wrong.append(f"{page}: $ {step.command}\n{difference}\n{done.stderr}")
    return Walk(ran, tuple(wrong))


@pytest.mark.mesh
@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(400)
async def test_commands_of_the_guides_do_what_the_guides_show(walk: Walk) -> None:
    assert not walk.wrong, "\n\n".join(walk.wrong)
    assert walk.ran >= FEWEST


@pytest.mark.mesh
@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("walk")
async def test_every_service_exports_every_metric_and_what_has_happened_is_counted(door: Any) -> None:
    told = ""
    async with httpx.AsyncClient(trust_env=False) as http:
        for service in SERVICES:
            text = (await http.get(f"{door.mesh.health_url(f'{service}-1')}/metrics")).text
            missing = [name for name in NAMES if f"# TYPE {name}" not in text]
            assert not missing, f"{service}: {missing}"
            told += text
    for sample in COUNTED:
        assert re.search(rf"^{sample} [\d.e+-]+$", told, re.MULTILINE), sample


@pytest.mark.mesh
@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("walk")
async def test_logs_are_json_and_every_decision_has_its_line_with_the_reason(door: Any) -> None:
    """What is decided belongs to the story of the request that asked; what happens to a reservation, to the story of the
    one that made it."""
    reservations = (await door.get("/reservations?limit=1000"))["items"]
    answered = {one["metadata"]["correlationId"] for one in reservations}
    stories = {one["metadata"]["id"]: one["metadata"]["traceParent"].split("-")[1] for one in reservations}
    lines = []
    for service in SERVICES:
        for text in (door.mesh.folder.root / "logs" / f"{service}-1.log").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            assert {"time", "level", "logger", "message", "service", "replica"} <= line.keys(), text
            assert line["service"] == service
            lines.append(line)
    decided = [line for line in lines if line["message"] == "decided"]
    assert {line["request"] for line in decided} >= answered
    moved = [line for line in lines if line["message"] in ("moved", "instance moved", "worker moved", "power decided")]
    assert {line["message"] for line in moved} == {"moved", "instance moved", "worker moved", "power decided"}
    assert [line for line in decided + moved if not line.get("reason")] == []
    assert [line for line in decided if not line.get("traceId")] == []
    told = [
        line
        for line in moved + decided
        if line.get("reservation") in stories and line.get("request", "") in {"", *answered}
    ]
    assert len(told) >= len(stories)
    assert [line for line in told if line["traceId"] != stories[line["reservation"]]] == []


def test_what_is_shown_is_compared_line_by_line() -> None:
    shown_lines = ("NAME  PHASE", "…", "default-…  Ready  … left")
    assert differs(shown_lines, "NAME   PHASE\ndefault-1  Ready  3 min left\n") is None
    assert differs(shown_lines, "NAME PHASE\ndefault-2  Offline\ndefault-1 Ready 3 min left\n") is None
    assert differs(shown_lines, "NAME PHASE\ndefault-1 Ready 3 min left\nand more\n") is not None
    assert differs(shown_lines, "NAME PHASE\ndefault-1 Failed\n") is not None
    assert differs((), "anything\n") is None


def test_ids_times_and_spans_may_be_other_ones() -> None:
    wanted = ("rsv-fonxxuw62fltbbhoh6h7f3my2q today 09:52–10:52 begins in 1 h 49 min", "it adds 88 minutes of power")
    printed = "rsv-ex6fgui2nzk6hdyvq4mxnk4g64  tomorrow 23:02–00:02 begins in 58 min\nit adds 90 minutes of power\n"
    assert differs(wanted, printed) is None
    assert differs(wanted, printed.replace("begins", "ends")) is not None
    assert differs(wanted, printed.replace("23:02–00:02", "23:02– Tue 01 Dec 2026 00:02")) is None


def test_blocks_are_read_with_their_here_documents_and_ids(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "<!-- run -->\n```console\n$ cat > f <<'END'\n- $ 1\nEND\n$ show rsv-…\nfine\n```\n\n```console\n$ not this\n```\n"
    )
    first, second = shown(tmp_path, "page.md")
    assert (first.command, first.output) == ("cat > f <<'END'\n- $ 1\nEND", ())
    ids = Ids()
    ids.see("rsv-fonxxuw62fltbbhoh6h7f3my2q  Active\nrsv-ex6fgui2nzk6hdyvq4mxnk4g64 Held")
    assert ids.put_into(second.command) == "show rsv-ex6fgui2nzk6hdyvq4mxnk4g64"
    with pytest.raises(KeyError):
        ids.put_into("show ins-…")
    assert ids.put_into("show rsv-fonxxuw62fltbbhoh6h7f3my2q") == "show rsv-ex6fgui2nzk6hdyvq4mxnk4g64"
