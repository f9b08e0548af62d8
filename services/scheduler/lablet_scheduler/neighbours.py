"""What an owner knows of the other pools: whether they exist, and whether they could take a request if they were empty.

From the caches, so it may be a little old: good enough to choose where a request goes next, since the pool's own owner
decides there anew.
"""

from lablet_common.resources.kinds import POOL, WORKER
from lablet_common.resources.worker import Worker
from lablet_common.store.cache import Caches
from lablet_scheduler import engine
from lablet_scheduler.views import policy_of, worker_view


class Neighbours:
    """The other pools, each as an empty calendar that is made anew when its workers or its policy change."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._empty: dict[str, tuple[tuple[int, ...], engine.Calendar]] = {}

    def could_take(self, name: str, request: engine.PlacementRequest) -> bool:
        """The pool exists, and a request like this one is not impossible there."""
        pool = self._caches[POOL].get(name)
        if pool is None:
            return False
        workers: list[Worker] = [worker for worker in self._caches[WORKER].items() if worker.spec.pool == name]
        if len(workers) < pool.spec.max:
            return True  # not all of them are there yet: nothing can be called impossible
        version = (pool.revision, len(workers), max((worker.revision for worker in workers), default=0))
        known = self._empty.get(name)
        if known is None or known[0] != version:
            licence = str(workers[0].spec.license) if workers else None
            known = version, engine.Calendar([policy_of(pool, licence)], [worker_view(worker) for worker in workers])
            self._empty[name] = known
        wanted = engine.PlacementRequest(
            reservation=request.reservation,
            pool=name,
            demand=request.demand,
            start=request.start,
            end=request.end,
            seats=request.seats,
            now=request.now,
            max_minutes=request.max_minutes,
        )
        answer = engine.place(known[1], wanted)
        return isinstance(answer, engine.Placement) or not answer.permanent
