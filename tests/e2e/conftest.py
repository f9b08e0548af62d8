"""The mesh as a black box: a running one, reached by HTTP, console ports and the command line alone.

`--mesh local` (the default) starts `lablet up`'s own mesh in a temporary folder and ends it; `--mesh compose` does the same
with docker-compose.yml (the images must be on the engine: deploy/airgap/build.sh). `--mesh URL` takes one that runs already
(token in LABLET_TOKEN).
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lablet_common.testing.containers import ContainerMesh
from lablet_local.mesh import LocalMesh

SPEED = 240.0
COMPOSE_SPEED = 120.0
"""The compose file's leases are 5 s long: that allows 150."""
SCALE = {"scheduler": 3, "worker-controller": 2, "api-gateway": 2, "artifact-service": 2}
ROOT = Path(__file__).resolve().parents[2]
LABS = ROOT / "examples" / "labs"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mesh", default="local", help="`local`, `compose`, or the URL of a running gateway")


@dataclass
class Door:
    """The way in: the API with one token, and the words of a test."""

    url: str
    token: str
    speed: float
    http: httpx.AsyncClient
    mesh: LocalMesh | None = None
    containers: ContainerMesh | None = None

    async def machines(self) -> list[dict[str, Any]]:
        """The simulated cloud's machines, terminated ones too; skips where the mesh is not ours to look into."""
        if self.containers is not None:
            return await asyncio.to_thread(self.containers.machines)
        return await self._own().machines()

    @property
    def etcd_endpoint(self) -> str:
        """host:port."""
        return self.containers.etcd_endpoint if self.containers is not None else self._own().etcd_endpoint

    def _own(self) -> LocalMesh:
        if self.mesh is None:
            pytest.skip("the mesh was not started by the tests: only its API is known")
        return self.mesh

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.http.request(method, f"/api/v1{path}", **more)

    async def get(self, path: str) -> Any:
        answer = await self.call("GET", path)
        assert answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def publish(self, name: str) -> str:
        """Publishes a sample lab (again is no error) and returns `name@version`."""
        answer = await self.call(
            "POST",
            f"/definitions?name={name}",
            content=(LABS / f"{name}.yaml").read_bytes(),
            headers={"content-type": "application/yaml", "prefer": "wait=10"},
        )
        assert answer.status_code in (200, 201), answer.text
        found: str = answer.json()["metadata"]["id"]
        return found

    async def now(self) -> datetime:
        """Lab time."""
        clock = await self.get("/clock")
        return datetime.fromisoformat(clock["now"]).astimezone(UTC)

    async def slot(self, lead: int, minutes: int) -> dict[str, str]:
        start = (await self.now() + timedelta(minutes=lead + 1)).replace(second=0, microsecond=0)
        return {"start": start.isoformat(), "end": (start + timedelta(minutes=minutes)).isoformat()}

    async def reserve(self, body: dict[str, Any], *, wait: int = 10) -> httpx.Response:
        return await self.call("POST", "/reservations", json=body, headers={"prefer": f"wait={wait}"})

    async def until(self, path: str, wanted: Callable[[Any], bool], *, seconds: float = 60) -> Any:
        """Waits until the resource is as wanted; on a timeout its last state is shown."""
        last: Any = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    answer = await self.call("GET", path)
                    if answer.status_code == 200:
                        last = answer.json()
                        if wanted(last):
                            return last
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"{path} did not come to what was wanted in {seconds:g} s: {last}")

    async def until_phase(self, path: str, *phases: str, seconds: float = 60) -> Any:
        return await self.until(path, lambda resource: resource["status"]["phase"] in phases, seconds=seconds)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"LABLET_URL": self.url, "LABLET_TOKEN": self.token}
        command = [str(Path(sys.executable).with_name("lablet")), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(name="console")
def console_fixture() -> Callable[..., str]:
    return type_into


def type_into(host: str, port: int, *lines: str) -> str:
    """Types lines into a console and returns what it said."""
    said = b""
    with socket.create_connection((host, port), timeout=5) as wire:
        wire.settimeout(0.5)
        for line in ("", *lines):
            wire.sendall(line.encode() + b"\r\n")
            try:
                said += wire.recv(65536)
            except TimeoutError:
                continue
    return said.decode(errors="replace")


@pytest.fixture(scope="session")
def open_door() -> Callable[[LocalMesh, float], Any]:
    """A door to a mesh that a test runs itself."""

    async def opened(mesh: LocalMesh, speed: float) -> Door:
        return await _door(mesh.url, mesh.token("admin"), speed, mesh)

    return opened


async def _door(url: str, token: str, speed: float, mesh: LocalMesh | None) -> Door:
    http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False)
    return Door(url, token, speed, http, mesh)


@pytest.fixture(scope="session")
def containers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerMesh]:
    """The compose file's mesh with several replicas of each service; skips unless it was asked for (`--mesh compose`)."""
    if request.config.getoption("--mesh") != "compose":
        pytest.skip("runs against the compose file only (--mesh compose)")
    with ContainerMesh.start(ROOT, tmp_path_factory.mktemp("compose"), speed=COMPOSE_SPEED, scale=SCALE) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def mesh_environment() -> dict[str, str]:
    """What a module adds to the services' environment of the local mesh that it is given."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mesh_environment: dict[str, str]
) -> AsyncIterator[Door]:
    choice = request.config.getoption("--mesh")
    if choice == "compose":
        containers = request.getfixturevalue("containers")
        opened = await _door(containers.url, containers.token("admin"), COMPOSE_SPEED, None)
        opened.containers = containers
        yield opened
        await opened.http.aclose()
        return
    if choice != "local":
        opened = await _door(choice, os.environ["LABLET_TOKEN"], SPEED, None)
        yield opened
        await opened.http.aclose()
        return
    folder = tmp_path_factory.mktemp("mesh")
    async with LocalMesh(folder, speed=SPEED, spans=True, environment=mesh_environment) as mesh:
        opened = await _door(mesh.url, mesh.token("admin"), SPEED, mesh)
        yield opened
        await opened.http.aclose()
