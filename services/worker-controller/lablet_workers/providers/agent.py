"""Agents' hosts as a `Provider`: they are there when they say so, and nobody switches them on or off from here.

A "machine" is one session of a worker's agent. It runs while its lease is in etcd. Without the lease the provider knows no
such machine: its labs are over for certain, and may run elsewhere. To terminate a machine is to renew its session no more.
"""

from collections.abc import Mapping

from lablet_common.store import StoreError
from lablet_workers.agents.leases import Leases, Session
from lablet_workers.providers.port import (
    InsufficientCapacity,
    LaunchOrder,
    MachineInfo,
    MachineState,
    NotFound,
    ProviderUnavailable,
)
from lablet_workers.runtimes.process import address_of


class AgentProvider:
    """A `Provider` on the leases of agents."""

    permanent = False

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        session = await self._session(order.name)
        if session is None or session.revoked:
            raise InsufficientCapacity(f"the agent of {order.name} is not there: start it on its host")
        return _machine(order.name, session)

    async def describe(self, machine_id: str) -> MachineInfo:
        worker, _, epoch = machine_id.partition("/")
        session = await self._session(worker)
        if session is None or session.epoch != epoch:
            raise NotFound(f"the session {epoch} of the agent {worker} is over, and its labs with it")
        return _machine(worker, session)

    async def find(self, tags: Mapping[str, str]) -> list[MachineInfo]:  # noqa: ARG002 - the port's signature
        """None: a launch makes nothing that could be forgotten."""
        return []

    async def start(self, machine_id: str) -> MachineInfo:
        return await self.describe(machine_id)

    async def stop(self, machine_id: str) -> MachineInfo:
        await self.terminate(machine_id)
        return await self.describe(machine_id)

    async def terminate(self, machine_id: str) -> None:
        worker, _, epoch = machine_id.partition("/")
        try:
            await self._leases.revoke(worker, epoch)
        except StoreError as error:
            raise ProviderUnavailable(f"the lease of {worker} cannot be changed: {error}") from error

    async def close(self) -> None:
        return None

    async def _session(self, worker: str) -> Session | None:
        try:
            return await self._leases.present(worker)
        except StoreError as error:
            raise ProviderUnavailable(f"the lease of {worker} cannot be read: {error}") from error


def _machine(worker: str, session: Session) -> MachineInfo:
    return MachineInfo(
        id=f"{worker}/{session.epoch}",
        name=worker,
        state=MachineState.TERMINATING if session.revoked else MachineState.RUNNING,
        url=address_of(worker),
        host=session.host,
    )
