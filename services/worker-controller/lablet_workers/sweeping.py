"""Looking at all machines of a pool and the labs on them, when it is taken over and then again and again, for those that
nobody accounts for."""

import logging
from datetime import timedelta
from functools import partial

from lablet_common.resources.worker import WorkerPool
from lablet_workers.estate import Estate
from lablet_workers.machines.context import pool_tags
from lablet_workers.orphans import Fault, Sightings, end_orphans, faults_among
from lablet_workers.providers.port import MachineInfo, Provider, ProviderError
from lablet_workers.strays import Strays

log = logging.getLogger("lablet.workers.orphans")


async def keep_swept(estate: Estate) -> None:
    """Until cancelled."""
    grace = timedelta(minutes=estate.settings.controller_orphan_minutes)
    sightings: Sightings[Fault] = Sightings(grace)
    strays = Strays(estate, grace)
    while True:
        pool = estate.pool_record
        if pool is not None:
            for look in (partial(_sweep, estate, pool, sightings), partial(strays.look, estate.workers_here())):
                try:
                    await look()
                except Exception:  # what ends this loop ends the service, and all its pools
                    log.exception("a look for what nobody accounts for failed", extra={"pool": pool.id})
        await estate.clock.sleep(timedelta(minutes=estate.settings.controller_sweep_minutes))


async def _sweep(estate: Estate, pool: WorkerPool, sightings: Sightings[Fault]) -> None:
    machines: dict[str, tuple[MachineInfo, Provider]] = {}
    try:
        for provider in _providers(estate, pool):
            machines |= {one.id: (one, provider) for one in await provider.find(pool_tags(pool))}
    except ProviderError as error:
        # half a picture is none: what was not seen is neither there nor gone
        log.warning("the machines cannot be listed", extra={"pool": pool.id, "cause": str(error)})
        return
    workers = {worker.id: worker for worker in estate.workers_here()}
    faults = faults_among((machine for machine, _ in machines.values()), workers)
    for machine, fault in sightings.look(faults, estate.clock.now()).items():
        await end_orphans(machines[machine][1], {machine: fault})


def _providers(estate: Estate, pool: WorkerPool) -> list[Provider]:
    """Of all shapes that the pool's workers have. Raises `ProviderError`."""
    by_template = {worker.spec.template: worker for worker in estate.workers_here()}
    made = [estate.provider_of(worker, pool) for worker in by_template.values()]
    return list({id(provider): provider for provider in made}.values())
