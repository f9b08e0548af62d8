"""The compose file's mesh for tests: started under a project name and a port of its own, scaled, hurt, and taken away.

    with ContainerMesh.start(root, speed=120, scale={"scheduler": 3}) as mesh:
        httpx.get(f"{mesh.url}/readyz")

It speaks through `docker compose`, or through `docker-compose` where only that is there; the images must be on the engine
(`deploy/airgap/build.sh`, or a registry). Containers and their addresses are reached from this machine, which takes an
engine on it (Linux). Calls block; inside of a test with a running event loop use `asyncio.to_thread`.
"""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testcontainers.compose import DockerCompose

from lablet_common.testing.etcd import free_ports

_COMMAND_SECONDS = 240.0
_SHIM = """#!/bin/sh
# testcontainers says `docker compose`; this machine has docker-compose alone.
shift
exec docker-compose "$@"
"""
_MACHINES = (
    "import urllib.request as r;"
    "q=r.Request('http://127.0.0.1:9100/machines?terminated=true',"
    "headers={'Authorization':'Bearer '+open('/keys/cloud.token').read().strip()});"
    "print(r.urlopen(q,timeout=10).read().decode())"
)


class NoEngine(Exception):
    """No Docker engine answers, or there is no compose command; the message says which."""


def _docker(*arguments: str, check: bool = True, seconds: float = _COMMAND_SECONDS) -> str:
    told = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603, S607
    if check and told.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {told.stderr.strip()}")
    return told.stdout.strip()


def compose_program(folder: Path) -> str:
    """A program that understands `compose` as its first word; where needed it is made in `folder`. Raises `NoEngine`."""
    if shutil.which("docker") is None:
        raise NoEngine("docker is not installed")
    try:
        _docker("version", seconds=20)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise NoEngine(str(error)) from error
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:  # noqa: S607
        return "docker"
    if shutil.which("docker-compose") is None:
        raise NoEngine("neither `docker compose` nor `docker-compose` is installed")
    shim = folder / "docker-with-compose"
    shim.write_text(_SHIM, encoding="utf-8")
    shim.chmod(0o755)
    return str(shim)


class ContainerMesh:
    """One project of the compose file. Made by `start`; gone, with its volumes, by `stop` or at the end of `with`."""

    def __init__(self, compose: DockerCompose, project: str, port: int, speed: float) -> None:
        self._compose = compose
        self._tokens: dict[str, str] = {}
        self._variables = {"COMPOSE_PROJECT_NAME": project, "LABLET_PORT": str(port), "LABLET_SPEED": f"{speed:g}"}
        """What the compose file reads, given to each command of this mesh: several may stand side by side."""
        self.project = project
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def start(
        cls,
        root: Path,
        scratch: Path,
        *,
        speed: float,
        scale: Mapping[str, int] | None = None,
        over: Sequence[str] = (),
    ) -> Self:
        """A mesh that is ready; `over` names files that are laid over docker-compose.yml. Raises `NoEngine` where none
        can be started."""
        program = compose_program(scratch)
        (port,) = free_ports(1)
        project = f"lablet-test-{uuid.uuid4().hex[:8]}"
        compose = DockerCompose(str(root), ["docker-compose.yml", *over], docker_command_path=program, wait=False)
        mesh = cls(compose, project, port, speed)
        try:
            mesh.compose("up", "--detach")
            if scale:
                mesh.scale(**scale)
            mesh.wait_healthy()
        except BaseException:
            mesh.stop()
            raise
        return mesh

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes containers, network and volumes away."""
        self.compose("down", "--volumes", "--timeout", "3")

    def compose(self, *arguments: str) -> str:
        """A compose command; returns what it printed. Raises `RuntimeError` with its words when it fails."""
        command = [*self._compose.compose_command_property, *arguments]
        told = subprocess.run(  # noqa: S603
            command,
            cwd=self._compose.context,
            env=os.environ | self._variables,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if told.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {told.stderr.strip()[-2000:]}")
        return told.stdout

    def scale(self, **counts: int) -> None:
        """So many of each service (`worker_controller=2`), from now on."""
        given = [word for name, n in counts.items() for word in ("--scale", f"{name.replace('_', '-')}={n}")]
        self.compose("up", "--detach", "--no-recreate", *given)

    def containers(self, service: str) -> list[str]:
        """Ids of the service's containers, stopped ones too, by their number."""
        known = _docker(
            "ps", "--all", "--quiet", "--no-trunc",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
            "--filter", "label=com.docker.compose.oneoff=False",
        ).split()  # fmt: skip
        return sorted(known, key=self._number)

    def _number(self, container: str) -> int:
        return int(self.inspect(container)["Config"]["Labels"]["com.docker.compose.container-number"])

    def inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(_docker("inspect", container))
        return dict(found)

    def address(self, container: str) -> str:
        """Of a container on the project's network."""
        (network,) = self.inspect(container)["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def hostname(self, container: str) -> str:
        """As its service names its replica."""
        return str(self.inspect(container)["Config"]["Hostname"])

    def kill(self, container: str) -> None:
        """SIGKILL. The engine does not start again what was killed on request: `begin` does."""
        _docker("kill", container)

    def end(self, container: str, *, seconds: int = 20) -> None:
        """SIGTERM, and SIGKILL after `seconds`."""
        _docker("stop", "--time", str(seconds), container)

    def begin(self, container: str) -> None:
        """Starts a stopped container and waits until it is healthy."""
        _docker("start", container)
        self.wait_healthy([container])

    def exit_code(self, container: str) -> int:
        return int(self.inspect(container)["State"]["ExitCode"])

    def wait_healthy(self, containers: Sequence[str] | None = None, *, seconds: float = 90.0) -> None:
        """Until every given container (all of the project's that have a health check) is healthy."""
        deadline = time.monotonic() + seconds
        while True:
            waiting = (
                containers
                or _docker(
                    "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}"
                ).split()
            )
            states = {self._name(one): self._health(one) for one in waiting}
            if states and all(state in ("healthy", "none") for state in states.values()):
                return
            if time.monotonic() > deadline:
                bad = sorted(name for name, state in states.items() if state not in ("healthy", "none"))
                logs = "\n".join(f"--- {name}\n{_docker('logs', '--tail', '20', name, check=False)}" for name in bad)
                raise RuntimeError(f"not healthy after {seconds:g} s: {bad}\n{logs}")
            time.sleep(0.5)

    def _name(self, container: str) -> str:
        return str(self.inspect(container)["Name"]).lstrip("/")

    def _health(self, container: str) -> str:
        state = self.inspect(container)["State"]
        return str(state.get("Health", {}).get("Status", "none"))

    def token(self, role: str = "admin") -> str:
        """The API token of a role, from the command line's own connection file."""
        if not self._tokens:
            show = "print(open('/keys/connection.json').read())"
            told = self.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "cli", "-c", show)
            self._tokens = json.loads(told)["tokens"]
        return self._tokens[role]

    def machines(self) -> list[dict[str, Any]]:
        """The simulated cloud's machines, terminated ones too."""
        (cloud,) = self.containers("cloud")
        return list(
            json.loads(_docker("exec", "--user", "10001", cloud, "python", "-I", "-S", "-c", _MACHINES))["items"]
        )

    @property
    def etcd_endpoint(self) -> str:
        """host:port."""
        (etcd,) = self.containers("etcd")
        return f"{self.address(etcd)}:2379"

    def in_container(self, container: str, program: str) -> str:
        """Runs a piece of Python in a container and returns what it printed."""
        return _docker("exec", "--user", "10001", container, "python", "-I", "-c", program)
