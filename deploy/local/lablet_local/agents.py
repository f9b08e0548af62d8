"""Agents on this machine, as if it were several hosts: each with a token, a NATS user, a folder and ports of its own.

What an agent runs ends with the mesh: it is told to end its labs first. Should the mesh be killed, the agents die with it
and their labs end by themselves when the permission runs out.
"""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from lablet_common.bus.permissions import NatsUser, agent_user
from lablet_common.resources.kinds import Service
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.process import Process
from lablet_local.servers import Site

POOL = "agents"
MOST_AGENTS = 16
LEASE_SECONDS = 15
"""For which an agent may be out of touch, in a mesh on one machine."""
_PORTS_FROM, _PORTS_EACH, _BLOCKS = 61_000, 25, 11
"""Above the ports that the kernel gives to outgoing connections."""


def workers(count: int) -> list[str]:
    """The agents' worker names. Raises ValueError."""
    if not 0 <= count <= MOST_AGENTS:
        raise ValueError(f"there may be 0 to {MOST_AGENTS} agents, not {count}")
    return [f"local-{number}" for number in range(1, count + 1)]


def nats_users(keys: KeyRing, names: Sequence[str]) -> list[NatsUser]:
    return [agent_user(name, token(keys, name)) for name in names]


def token(keys: KeyRing, name: str) -> str:
    """Of one agent: for the gateway, and as the password of its NATS user."""
    return keys.read(_token_file(name))


def _token_file(name: str) -> str:
    return f"agent-{name}.token"


def state_folder(folder: DataFolder, name: str) -> Path:
    """Where an agent keeps its labs. Run by root, labs belong to another user, who must be able to get there: where the
    data folder is closed to others, a folder of its own beside it is not."""
    inside = folder.root / "agents" / name
    if os.geteuid() != 0 or all(path.stat().st_mode & 0o001 for path in folder.root.parents):
        return inside
    return _outside(folder) / name


def _outside(folder: DataFolder) -> Path:
    digest = hashlib.sha256(str(folder.root).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir(), f"lablet-agents-{digest}")


def open_folders(folder: DataFolder, names: Sequence[str]) -> None:
    """Makes the agents' folders, so that only their owner writes there and others may pass through. Raises
    `PermissionError` when somebody else was there first."""
    if not names:
        return
    if os.geteuid() == 0:
        folder.root.chmod(0o711)  # its rooms stay closed
    for name in names:
        path = state_folder(folder, name)
        path.parent.mkdir(mode=0o711, exist_ok=True)
        if path.parent.is_symlink() or path.parent.stat().st_uid != os.geteuid():
            raise PermissionError(f"{path.parent} belongs to somebody else: choose another --data")
        path.mkdir(mode=0o711, exist_ok=True)


def remove_outside(folder: DataFolder) -> None:
    """Takes away what does not lie in the data folder; the agents have ended."""
    if _outside(folder).is_dir():
        shutil.rmtree(_outside(folder))


def agent_processes(
    site: Site,
    names: Sequence[str],
    operator_token: str,
    replicas: int,
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Process]:
    """An agent per name, started when a gateway and a worker-controller are there and ready when its worker is. What `more`
    gives for its process wins over the mesh's own options."""
    found = more or {}
    return [
        _process(site, number, name, operator_token, replicas, found.get(process_of(number), {}))
        for number, name in enumerate(names)
    ]


def process_of(number: int) -> str:
    """Of an agent (from 0)."""
    return f"agent-{number + 1}"


def ports_of(base: int, number: int) -> tuple[int, int]:
    """First and last port of an agent's labs (from 0), in a mesh whose ports begin at `base`."""
    first = _PORTS_FROM + (base // 100 % _BLOCKS * MOST_AGENTS + number) * _PORTS_EACH
    return first, first + _PORTS_EACH - 1


def _process(
    site: Site, number: int, name: str, operator_token: str, replicas: int, more: Mapping[str, str]
) -> Process:
    first, last = ports_of(site.ports.base, number)
    gateway = f"http://127.0.0.1:{site.ports.gateway()}"
    options = {
        "--join": gateway,
        "--token-file": str(site.keys.path(_token_file(name))),
        "--pool": POOL,
        "--name": name,
        "--host": "127.0.0.1",
        "--nats": ",".join(site.members.nats_urls),
        "--state": str(state_folder(site.folder, name)),
        "--ports": f"{first}-{last}",
        **more,
    }
    process = process_of(number)
    return Process(
        name=process,
        argv=(sys.executable, "-m", "lablet_workers.agent", *(word for pair in options.items() for word in pair)),
        env={"PATH": os.environ.get("PATH", ""), "HOME": "/", "PYTHONUNBUFFERED": "1", "LOG_FORMAT": "json"},
        cwd=site.folder.root,
        log=site.folder.log(process),
        ready=_Ready(site.client, gateway, name, operator_token),
        after=(f"{Service.GATEWAY}-1", *(f"{Service.WORKERS}-{n}" for n in range(1, replicas + 1))),
        stop_signal=signal.SIGUSR1,
        stop_seconds=20.0,
    )


class _Ready:
    """Looks whether a worker is `Ready`."""

    def __init__(self, client: httpx.AsyncClient, gateway: str, worker: str, token: str) -> None:
        self._client = client
        self._url = f"{gateway}/api/v1/workers/{worker}"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def __call__(self) -> str | None:
        try:
            answer = await self._client.get(self._url, headers=self._headers)
        except httpx.HTTPError as error:
            return f"the gateway does not answer: {error!r}"
        if answer.status_code == httpx.codes.NOT_FOUND:
            return "it has not registered yet"
        if not answer.is_success:
            return f"the gateway answers {answer.status_code}"
        phase = answer.json()["status"]["phase"]
        return None if phase == "Ready" else f"its worker is {phase}"
