"""Labs on agents as this machine's list of processes has them."""

import asyncio
import json
import sys
from pathlib import Path

from lablet_local.demo.evidence import Ran
from lablet_local.demo.hosts import running


async def test_a_supervisor_is_found_with_its_lab_its_agent_and_its_processes(tmp_path: Path) -> None:
    lab = tmp_path / "local-1" / "labs" / "l1"
    lab.mkdir(parents=True)
    (lab / "plan.json").write_text(json.dumps({"title": "ins-a-1"}), encoding="utf-8")
    script = "import subprocess; one = subprocess.Popen(['sleep', '60']); print(one.pid, flush=True); one.wait()"
    words = ("lablet_workers.agent.supervisor", str(lab))
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *words, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    child = int(await supervisor.stdout.readline())
    folders = {"local-1": tmp_path / "local-1", "local-2": tmp_path / "local-2"}
    try:
        assert running(folders) == [Ran("ins-a-1", "local-1", (child,))]
        assert running({"local-2": tmp_path / "local-2"}) == []
    finally:
        ended = await asyncio.create_subprocess_exec("kill", str(child))
        await ended.wait()
        await supervisor.wait()
    assert running(folders) == []
