"""Stand-ins and conditions shared by the tests of the local mesh."""

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lablet_local.mesh import LocalMesh
from lablet_local.supervisor import Process

Condition = Callable[[], bool]


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Waits until a condition holds; fails with what was waited for."""

    async def wait(condition: Condition, what: str, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs (a zombie does not)."""

    def look(pid: int) -> bool:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return False
        return fields[0] not in ("Z", "X")

    return look


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., Process]:
    """A small Python program as a supervised process."""

    def make(name: str, source: str = "", **more: object) -> Process:
        program = tmp_path / f"{name}.py"
        program.write_text(textwrap.dedent(source) or "import signal\nsignal.pause()\n")
        return Process(
            name=name,
            argv=(sys.executable, str(program)),
            env={"PATH": os.environ["PATH"], "HERE": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            log=tmp_path / "logs" / f"{name}.log",
            **more,  # type: ignore[arg-type]  # fields of Process, named by the test
        )

    return make


_SERVICE = """
    import http.server, json, os, pathlib, sys
    replica = os.environ["REPLICA_ID"]
    here = pathlib.Path(os.environ["STAND_IN"])
    (here / f"{replica}.env").write_text(json.dumps(dict(os.environ)))
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            ready = not (here / f"{replica}.unready").exists()
            self.send_response(200 if ready else 503)
            self.end_headers()
            self.wfile.write(json.dumps({"checks": {"etcd": "ok", "moon": "ok" if ready else "failed: new"}}).encode())
        def log_message(self, *_):
            pass
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["HEALTH_PORT"])), Answers).serve_forever()
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment in which the four services are small stand-ins that note what they were given."""
    for module in ("lablet_gateway", "lablet_scheduler", "lablet_workers", "lablet_artifacts"):
        package = tmp_path / "stand-ins" / module
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(textwrap.dedent(_SERVICE))
    templates = tmp_path / "templates.yaml"
    size = "{cpu_cores: 8, memory_gb: 32, storage_gb: 100}"
    templates.write_text(f"templates: [{{name: simulated, instance_type: simulated, capacity: {size}}}]\n")
    (tmp_path / "notes").mkdir()
    return {
        "PYTHONPATH": str(tmp_path / "stand-ins"),
        "STAND_IN": str(tmp_path / "notes"),
        "WORKER_TEMPLATES_CONFIG_PATH": str(templates),
    }


@pytest.fixture
def make_mesh(tmp_path: Path, stand_ins: dict[str, str]) -> Callable[..., LocalMesh]:
    def make(name: str = "data", **more: object) -> LocalMesh:
        return LocalMesh(tmp_path / name, environment=stand_ins, **more)  # type: ignore[arg-type]  # named by the test

    return make
