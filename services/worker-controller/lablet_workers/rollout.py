"""New machines for all workers of a pool, a few at a time. Pure.

The pool notes whose turn has not come yet. A worker counts against the budget from its turn until it has no old machine any
more, and so does one that has failed: a replacement that goes wrong holds the next one back instead of eating the pool.
Workers that are off come first, they disturb nobody; then those without a lab; then by name.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from lablet_common.intents import WorkerReplace
from lablet_common.resources.worker import Worker, WorkerPhase, WorkerPool

_OUT = (WorkerPhase.FAILED, WorkerPhase.TERMINATING)


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be written next."""

    pool: WorkerPool
    """With the turn noted; or, without a worker, with the end."""
    worker: Worker | None
    asked: WorkerReplace
    by: str


def next_turn(pool: WorkerPool, workers: Collection[Worker], busy: Collection[str], now: datetime) -> Turn | None:
    """The next worker whose turn it is, or the end; None while there is nothing to do. `busy`: workers on which labs run."""
    rollout = pool.status.rollout
    if rollout is None or rollout.finished_at is not None:
        return None
    asked = WorkerReplace(deadline_minutes=rollout.deadline_minutes, message=rollout.message)
    known = {worker.id: worker for worker in workers}
    # what has vanished, or has no machine, or is being replaced already needs no turn
    waiting = [
        known[name]
        for name in rollout.waiting
        if name in known and known[name].status.machine is not None and known[name].spec.replacing is None
    ]
    replacing = [worker for worker in workers if worker.spec.replacing is not None]
    if not waiting and not replacing:
        over = rollout.model_copy(update={"waiting": (), "finished_at": now})
        return Turn(pool.observed(rollout=over), None, asked, rollout.by)
    failed = [worker for worker in workers if worker.phase in _OUT and worker.spec.replacing is None]
    if not waiting or len(replacing) + len(failed) >= rollout.max_unavailable:
        return None
    chosen = min(waiting, key=lambda worker: (worker.phase is not WorkerPhase.OFFLINE, worker.id in busy, worker.id))
    left = tuple(name for name in rollout.waiting if name != chosen.id)
    noted = pool.observed(rollout=rollout.model_copy(update={"waiting": left}))
    return Turn(noted, chosen, asked, rollout.by)
