"""Labs that no record accounts for, on workers that are up: ended.

A lab bears its instance's id as its title. After a store was restored from a backup there may be labs of which it knows
nothing (their reservations were decided after the backup), of instances that it knows to have ended, or of seats that it
has given another place; and where two owners that followed each other have both imported a seat's lab, the one that is not
recorded: they take licence nodes and memory that the calendar believes free, and nobody would ever end them.
Other titles are other people's. As with machines, only what the runtime positively shows counts, at two sightings that lie a
grace apart; a worker that does not answer begins nothing and ends nothing.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from lablet_common.resources.instance import Instance
from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_common.secrets import SecretError
from lablet_workers.estate import Estate
from lablet_workers.machines.context import LAB_PREFIX
from lablet_workers.orphans import Sightings
from lablet_workers.runtimes.port import LabMissing, Runtime, RuntimeFault

log = logging.getLogger("lablet.workers.strays")

_REST_SECONDS = 20.0
"""Real time: asking a worker for its labs is a call for each of them."""


def is_stray(lab: str, title: str, worker: str, instance: Instance | None) -> bool:
    """Whether the lab (its id and title) has nothing to do on the worker; `instance`: the record that it names. Pure."""
    if not title.startswith(LAB_PREFIX):
        return False
    if instance is None or instance.is_final or instance.spec.worker != worker:
        return True
    return instance.status.lab is not None and instance.status.lab.id != lab


class Strays:
    """What was seen on each worker of a pool. Forgotten by a restart, which only makes the wait longer."""

    def __init__(self, estate: Estate, grace: timedelta) -> None:
        self._estate = estate
        self._grace = grace
        self._sightings: dict[str, Sightings[str]] = {}
        self._rests_until: datetime | None = None

    async def look(self, workers: Iterable[Worker]) -> None:
        """Looks at each worker that is up; what has been a stray for the grace is stopped, and at the next look removed.
        A lab clock that runs fast does not make it look more often than workers can well bear, unless there are strays."""
        now = self._estate.clock.now()
        if self._rests_until is not None and now < self._rests_until:
            return
        here = {worker.id: worker for worker in workers if worker.phase is WorkerPhase.READY}
        self._sightings = {name: seen for name, seen in self._sightings.items() if name in here}
        for name, worker in here.items():
            try:
                runtime = self._estate.runtime_of(worker)
                if runtime is not None:
                    await self._look_at(name, runtime)
            except (RuntimeFault, SecretError) as error:
                log.warning("its labs cannot be looked at", extra={"worker": name, "cause": str(error)})
        found = any(sightings.present for sightings in self._sightings.values())
        self._rests_until = None if found else now + timedelta(seconds=_REST_SECONDS * self._estate.clock.speed)

    async def _look_at(self, worker: str, runtime: Runtime) -> None:
        strays = self._among(worker, await runtime.labs())
        sightings = self._sightings.setdefault(worker, Sightings(self._grace))
        for lab, title in sightings.look(strays, self._estate.clock.now()).items():
            try:
                stopped = (await runtime.progress(lab)).stopped
                if not self._among(worker, {lab: title}):
                    continue  # its record has come meanwhile
                await (runtime.remove(lab) if stopped else runtime.stop(lab))
            except LabMissing:
                continue
            done = "removed" if stopped else "stopped"
            log.warning(
                "a lab that no record accounts for was ended", extra={"worker": worker, "lab": title, "was": done}
            )

    def _among(self, worker: str, labs: Mapping[str, str]) -> dict[str, str]:
        """Those of the labs (id → title) that are strays by the records as they are now."""
        known = self._estate.instances
        return {lab: title for lab, title in labs.items() if is_stray(lab, title, worker, known.get(title))}
