"""Labs that wait: imported from a definition's file and not started, on every worker that is up, so that a seat's lab comes
up without its import.

For each published definition with a `warmDepth` of N, every ready worker that could host it holds up to N of them. They are
titled `warm-<digest of the file>-<number>`, hold no licence node, processor or memory (they have never been started), and
have no place in etcd: what there is on a worker is asked of its runtime. A seat's lab is made from one by putting in what is
the seat's own (tags and smart annotations, the only places that rendering touches) and then its title; in that order, so that
after a crash it is still a waiting lab, which the next seat makes its own anew. The result is compared with the rendered
file; where it is not the same, the waiting lab is thrown away and the seat's lab imported as ever.

Not guaranteed: that one waits when a seat comes (they are made one at a time, when nothing else is to be done), nor that
import is what a lab's start takes longest for. Whatever fails here costs no seat: it is imported.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from lablet_common.objects import ObjectStoreError, get_content
from lablet_common.resources.definition import Definition, DefinitionPhase
from lablet_common.resources.kinds import DEFINITION
from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_common.secrets import SecretError
from lablet_workers.estate import Estate
from lablet_workers.runtimes.port import Runtime, RuntimeFault, WarmRuntime, titled

log = logging.getLogger("lablet.workers.warm")

_PREFIX = "warm-"
_DIGEST_LENGTH = 16


def title_of(definition: Definition, number: int) -> str:
    return f"{_stem(definition)}{number}"


def _stem(definition: Definition) -> str:
    return f"{_PREFIX}{definition.spec.topology.digest[:_DIGEST_LENGTH]}-"


async def import_or_adopt(runtime: Runtime, title: str, topology: bytes, definition: Definition | None) -> str:
    """The lab's id; one with that title that is there already is taken, then a waiting one, else it is imported."""
    if definition is None or definition.spec.warm_depth == 0 or not isinstance(runtime, WarmRuntime):
        return await runtime.import_lab(title, topology)
    async with runtime.taking:
        labs = await runtime.labs()
        waiting = sorted((name, lab) for lab, name in labs.items() if name.startswith(_stem(definition)))
        for name, lab in waiting if not titled(labs, title) else ():
            try:
                if await runtime.adopt(lab, title, topology):
                    log.info("a waiting lab was taken", extra={"instance": title, "lab": name})
                    return lab
                log.warning("a waiting lab is not like its file", extra={"lab": name})
                await runtime.remove(lab)
            except RuntimeFault as fault:
                log.warning("a waiting lab cannot be taken", extra={"lab": name, "cause": str(fault)})
    return await runtime.import_lab(title, topology)


def wanted_on(worker: Worker, definitions: Iterable[Definition]) -> dict[str, Definition]:
    """Digest stem → the definition of which labs shall wait on the worker; of those with one file the deepest."""
    if worker.status.phase is not WorkerPhase.READY or worker.spec.unschedulable is not None:
        return {}
    found: dict[str, Definition] = {}
    for one in definitions:
        spec = one.spec
        fits = worker.spec.license in spec.licenses and spec.requirements.node_count <= worker.nodes
        if one.status.phase is not DefinitionPhase.PUBLISHED or spec.topology.format != "cml" or not fits:
            continue
        known = found.get(_stem(one))
        if spec.warm_depth > (known.spec.warm_depth if known is not None else 0):
            found[_stem(one)] = one
    return found


class Warmer:
    """Keeps the waiting labs of a pool's workers. `seconds`: real time between two looks."""

    def __init__(self, estate: Estate, seconds: float) -> None:
        self._estate = estate
        self._seconds = seconds

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            definitions = self._estate.caches[DEFINITION].items()
            for worker in self._estate.workers_here():
                if worker.status.phase is not WorkerPhase.READY:
                    continue
                try:
                    await self._keep(self._estate.runtime_of(worker), wanted_on(worker, definitions))
                except (RuntimeFault, ObjectStoreError, SecretError) as error:
                    log.warning("no labs wait", extra={"worker": worker.id, "cause": str(error)})
                except Exception:  # what ends this loop ends the service, and all its pools
                    log.exception("no labs wait", extra={"worker": worker.id})

    async def _keep(self, runtime: Runtime | None, wanted: Mapping[str, Definition]) -> None:
        """Imports what is missing on one worker and removes what nobody wants any more."""
        if runtime is None or not isinstance(runtime, WarmRuntime):
            return
        labs = sorted((name, lab) for lab, name in (await runtime.labs()).items() if name.startswith(_PREFIX))
        names = {name for name, _ in labs}
        depth: Counter[str] = Counter()
        for name, lab in labs:
            stem = f"{name.rpartition('-')[0]}-"
            depth[stem] += 1
            if stem not in wanted or depth[stem] > wanted[stem].spec.warm_depth:
                await self._remove(runtime, name, lab)
        for stem, definition in wanted.items():
            for number in range(definition.spec.warm_depth):
                title = title_of(definition, number)
                if title in names or depth[stem] >= definition.spec.warm_depth:
                    continue
                data = await get_content(self._estate.objects, definition.tenant, definition.spec.topology.digest)
                await runtime.import_lab(title, data)
                depth[stem] += 1

    async def _remove(self, runtime: WarmRuntime, name: str, lab: str) -> None:
        async with runtime.taking:
            if (await runtime.labs()).get(lab) == name:  # a seat may have taken it meanwhile
                await runtime.remove(lab)
