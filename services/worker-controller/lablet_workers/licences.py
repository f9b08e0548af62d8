"""Counted licences when a worker is switched on: the last word, spoken where its power-on is written.

Each worker is switched on by a plan of its own moment. Between two moments bookings move, and a power-on that is being
written is in no record yet: each plan by itself keeps within the licences, and two of them together may not. So whoever is
switched on is counted from before its power-on is written, and for as long as nobody knows whether it was.
"""

from collections.abc import Iterable

from lablet_common.process_lab import RUNTIME
from lablet_common.resources.worker import PoolSpec, Worker, WorkerPhase


class Licences:
    """Whose power-ons are on their way, in one term of ownership. Nobody else can switch on what this owner has fenced."""

    def __init__(self) -> None:
        self._written_over: dict[str, int] = {}
        """Worker → the revision that its latest power-on was written over. Once a newer one is seen, that tells; an answer
        need not: it may be lost, and the power-on still come."""

    def claim(self, before: Worker, after: Worker, pool: PoolSpec, workers: Iterable[Worker]) -> bool:
        """Whether `after` may be written now. A power-on of a pool that counts its licences is counted from here on, and may
        not when all of them are with `workers` that are not off, or that may be about to be on. To be followed by the write
        without an await in between. Agents' hosts hold none."""
        on = before.phase is WorkerPhase.OFFLINE and after.phase is not WorkerPhase.OFFLINE
        if pool.allowed_licenses is None or not on or before.spec.runtime == RUNTIME:
            return True
        holders = sum(
            one.id != before.id
            and one.spec.runtime != RUNTIME
            and (one.phase is not WorkerPhase.OFFLINE or self.in_doubt(one))
            for one in workers
        )
        if holders >= pool.allowed_licenses:
            return False
        self._written_over[before.id] = before.revision
        return True

    def in_doubt(self, worker: Worker) -> bool:
        """Its power-on over this very record is being written, or was and nobody knows what came of it. Any other write of
        the record ends that, whatever became of it: only one of the two can happen."""
        return self._written_over.get(worker.id) == worker.revision
