"""Machines that no record accounts for, and records whose machine does what it should not.

A pool's machines carry its uid as a tag. One that no worker of the pool claims (its record was lost, or another machine has
taken its place) is terminated, and one that runs although its worker is Offline is stopped: each costs money, and nobody
would ever end it. Only what the provider positively shows counts, at two sightings that lie a grace apart; between them
the worker may have recorded it after all. An error of the provider shows nothing, so it begins nothing and ends nothing.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_workers.machines.context import UID_TAG, WORKER_TAG
from lablet_workers.providers.port import MachineInfo, MachineState, Provider, ProviderError

log = logging.getLogger("lablet.workers.orphans")
F = TypeVar("F", bound=str)

_CLAIMING = (WorkerPhase.PROVISIONING, WorkerPhase.FAILED, WorkerPhase.TERMINATING)
"""Phases in which a worker finds its machines by tag, recorded or not."""
_ENDING = (MachineState.TERMINATING, MachineState.TERMINATED)


class Fault(StrEnum):
    """What is wrong with a machine."""

    UNCLAIMED = "unclaimed"
    """No worker names it: to be terminated."""
    LEFT_ON = "left-on"
    """Its worker is Offline and it runs: to be stopped."""


def faults_among(machines: Iterable[MachineInfo], workers: Mapping[str, Worker]) -> dict[str, Fault]:
    """Machine → its fault, of those that have one. `workers`: the pool's records by name. Pure."""
    found: dict[str, Fault] = {}
    for machine in machines:
        if machine.state in _ENDING:
            continue
        tags = machine.tags or {}
        worker = workers.get(tags.get(WORKER_TAG, ""))
        if worker is None or worker.metadata.uid != tags.get(UID_TAG):
            found[machine.id] = Fault.UNCLAIMED
        elif worker.phase in _CLAIMING:
            continue
        elif worker.status.machine is None or worker.status.machine.id != machine.id:
            found[machine.id] = Fault.UNCLAIMED
        elif worker.phase is WorkerPhase.OFFLINE and machine.state is MachineState.RUNNING:
            found[machine.id] = Fault.LEFT_ON
    return found


class Sightings(Generic[F]):
    """Since when each fault has been seen at every look. Forgotten by a restart, which only makes the wait longer."""

    def __init__(self, grace: timedelta) -> None:
        self._grace = grace
        self._since: dict[tuple[str, F], datetime] = {}

    @property
    def present(self) -> bool:
        """Whether the last look saw any."""
        return bool(self._since)

    def look(self, faults: Mapping[str, F], now: datetime) -> dict[str, F]:
        """Notes the present faults, forgets those that are over, and returns what has lasted for the grace."""
        self._since = {seen: self._since.get(seen, now) for seen in faults.items()}
        return {
            machine: fault
            for (machine, fault), since in self._since.items()
            if now - since >= self._grace and now > since
        }


async def end_orphans(provider: Provider, faults: Mapping[str, Fault]) -> list[str]:
    """Ends each machine as its fault asks; those that were ended. An error is logged, and the next look finds it again."""
    ended = []
    for machine, fault in faults.items():
        try:
            if fault is Fault.UNCLAIMED:
                await provider.terminate(machine)
            else:
                await provider.stop(machine)
        except ProviderError as error:
            log.warning(
                "an orphan cannot be ended yet", extra={"machine": machine, "fault": fault, "cause": str(error)}
            )
            continue
        log.warning("an orphan was ended", extra={"machine": machine, "fault": str(fault)})
        ended.append(machine)
    return ended
