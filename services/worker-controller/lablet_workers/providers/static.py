"""Hosts that already exist, as a `Provider`: nobody can switch them on or off from here.

A launch takes the host that the file gives to the worker; stop and terminate give it back, and mean no more than that the
worker-controller has done with it: it empties the host itself first. What a host really does only an operator knows, so of
one that was not given back it is said that it runs, also when it does not answer, until the file says `off`. So a seat
whose lab was started there is run elsewhere only at an operator's word.
"""

from collections.abc import Mapping
from pathlib import Path

from lablet_workers.providers.hosts import Host, HostsError, HostsFile
from lablet_workers.providers.port import (
    InsufficientCapacity,
    LaunchOrder,
    MachineInfo,
    MachineState,
    NotFound,
    ProviderUnavailable,
)

WORKER_TAG = "lablet-worker"
_OFF = "the operator says that it is off"


class StaticProvider:
    """A `Provider` on a hosts file. A machine's id is its host's URL."""

    permanent = True

    def __init__(self, hosts_file: Path | None) -> None:
        self._file = HostsFile(hosts_file) if hosts_file is not None else None
        self._given_back: dict[str, MachineState] = {}
        """URL → how its use ended. Forgotten by a restart, after which such a host is emptied once more."""
        self._tags: dict[str, dict[str, str]] = {}

    def _hosts(self) -> dict[str, Host]:
        if self._file is None:
            raise ProviderUnavailable("STATIC_HOSTS_FILE is not set: a pool of static hosts needs it")
        try:
            return self._file.hosts()
        except HostsError as error:
            raise ProviderUnavailable(str(error)) from error

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        host = self._hosts().get(order.name)
        if host is None:
            raise InsufficientCapacity(f"STATIC_HOSTS_FILE gives no host to worker {order.name}")
        if host.off:
            raise InsufficientCapacity(f"host {host.url} of worker {order.name}: {_OFF}")
        self._given_back.pop(host.url, None)
        self._tags[host.url] = dict(order.tags or {})
        return self._machine(host)

    def _require(self, machine_id: str) -> Host:
        for host in self._hosts().values():
            if host.url == machine_id:
                return host
        raise NotFound(f"STATIC_HOSTS_FILE names no host {machine_id} any more")

    async def describe(self, machine_id: str) -> MachineInfo:
        return self._machine(self._require(machine_id))

    async def find(self, tags: Mapping[str, str]) -> list[MachineInfo]:
        found = [self._machine(host) for host in self._hosts().values()]
        return [
            machine
            for machine in found
            if machine.state is not MachineState.TERMINATED
            and machine.id in self._tags
            and all((machine.tags or {}).get(key) == value for key, value in tags.items())
        ]

    async def start(self, machine_id: str) -> MachineInfo:
        host = self._require(machine_id)
        if host.off:
            raise InsufficientCapacity(f"host {host.url}: {_OFF}")
        if self._given_back.get(machine_id) is MachineState.STOPPED:
            del self._given_back[machine_id]
        return self._machine(host)

    async def stop(self, machine_id: str) -> MachineInfo:
        host = self._require(machine_id)
        self._given_back.setdefault(machine_id, MachineState.STOPPED)
        return self._machine(host)

    async def terminate(self, machine_id: str) -> None:
        self._given_back[machine_id] = MachineState.TERMINATED

    async def close(self) -> None:
        return None

    def _machine(self, host: Host) -> MachineInfo:
        state = self._given_back.get(host.url, MachineState.STOPPED if host.off else MachineState.RUNNING)
        return MachineInfo(
            id=host.url,
            name=host.worker,
            state=state,
            url=host.url,
            host=host.name,
            reason=_OFF if host.off and state is MachineState.STOPPED else "",
            tags={**self._tags.get(host.url, {}), WORKER_TAG: host.worker},
        )
