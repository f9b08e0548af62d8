"""The inboxes of the worker-controller: requests taken in order, decided, and committed with their outcome.

Shard `<pool>` holds what concerns a pool's workers and instances, shard `-` what concerns pools and templates. Each decision
is one fenced transaction with the request's outcome; one that meets a conflict is decided again from what is true then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from lablet_common.clock import Clock
from lablet_common.ownership import Fence, NotOwner
from lablet_common.requests import Inbox, Undecided, decide_in, refuse_in
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, POOL, TEMPLATE, WORKER, Service, kind_of
from lablet_common.resources.worker import Worker, WorkerPool, WorkerTemplate
from lablet_common.store import Conflict, Store, StoreUnavailable, Transaction
from lablet_common.store.changes import create_in, update_in
from lablet_common.store.repository import Repository
from lablet_common.telemetry.metrics import INBOX_DEPTH
from lablet_workers.handlers import (
    Decision,
    decide_instance,
    decide_pool,
    decide_template,
    decide_worker,
    refused,
    unknown,
    verb_of,
)
from lablet_workers.ledger import move_gate_in

log = logging.getLogger("lablet.workers.intake")

CENTRAL = "-"
_BATCH = 100
_PAUSE = 0.2


class Intake:
    """Decides one shard's inbox while it holds the fence."""

    def __init__(
        self, shard: str, fence: Fence, *, store: Store, clock: Clock, source: str, resync_seconds: float
    ) -> None:
        self._shard = shard
        self._fence = fence
        self._store = store
        self._clock = clock
        self._source = source
        self._resync = resync_seconds
        self._inbox = Inbox(store, Service.WORKERS, shard)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something new in the inbox."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled, or until the fence no longer stands."""
        while True:
            self._wake.clear()
            try:
                pending = await self._inbox.pending(_BATCH)
                INBOX_DEPTH.labels(Service.WORKERS, self._shard).set(len(pending))
                for undecided in pending:
                    await self._decide(undecided)
            except StoreUnavailable as error:
                log.warning("etcd does not answer: trying again", extra={"shard": self._shard, "cause": str(error)})
                await asyncio.sleep(_PAUSE)
                continue
            if len(pending) < _BATCH:
                try:
                    async with asyncio.timeout(self._resync):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _decide(self, undecided: Undecided) -> None:
        decisions: dict[str, Callable[[Undecided], Awaitable[Decision]]] = {
            WORKER.name: self._worker,
            INSTANCE.name: self._instance,
            POOL.name: self._pool,
            TEMPLATE.name: self._template,
        }
        request = undecided.request
        kind, _ = verb_of(request)
        for _attempt in range(5):
            decide = decisions.get(kind)
            decision = (
                await decide(undecided)
                if decide is not None
                else refused("unknown-intent", "Unknown intent", f"{request.spec.type} is not known here", 422)
            )
            try:
                await self._transaction(undecided, decision).commit(self._store)
            except Conflict as conflict:
                if not await self._fence.stands(self._store):
                    raise NotOwner(f"shard {self._shard} has another owner") from conflict
                continue
            log.info(
                "decided", extra={"request": request.id, "subject": request.spec.subject, "reason": decision.reason}
            )
            return
        log.warning(
            "a request is left for the next look: what it is about keeps changing", extra={"request": request.id}
        )

    def _transaction(self, undecided: Undecided, decision: Decision) -> Transaction:
        txn = Transaction()
        self._fence.guard(txn)
        resource, now = decision.resource, self._clock.now()
        if decision.problem is not None:
            refuse_in(txn, undecided, at=now, by=self._source, problem=decision.problem)
            return txn
        decide_in(txn, undecided, at=now, by=self._source, reason=decision.reason, resource=resource)
        if resource is None:
            return txn
        if decision.delete:
            key = kind_of(resource).key_of(resource)
            txn.require(key, mod_revision=resource.revision)
            txn.delete(key)
        elif resource.revision:
            update_in(txn, resource)
        else:
            create_in(txn, resource)
        if decision.gate and isinstance(resource, Worker):
            move_gate_in(txn, resource.spec.pool, resource.id)
        return txn

    @staticmethod
    def _target(undecided: Undecided) -> str:
        return undecided.request.spec.subject.partition("/")[2]

    async def _worker(self, undecided: Undecided) -> Decision:
        name = self._target(undecided)
        worker: Worker | None = await Repository[Worker](self._store, WORKER).get(name)
        if worker is None:
            return unknown("worker", name)
        template = await Repository[WorkerTemplate](self._store, TEMPLATE).get(worker.spec.template)
        patience = timedelta(minutes=template.spec.drain_timeout_minutes if template is not None else 240)
        return decide_worker(worker, undecided.request, self._clock.now(), patience)

    async def _instance(self, undecided: Undecided) -> Decision:
        name = self._target(undecided)
        instance: Instance | None = await Repository[Instance](self._store, INSTANCE).get(name)
        if instance is None or instance.tenant != undecided.request.tenant:
            return unknown("instance", name)
        return decide_instance(instance, undecided.request, self._clock.now(), self._source)

    async def _pool(self, undecided: Undecided) -> Decision:
        name, request = self._target(undecided), undecided.request
        pool: WorkerPool | None = await Repository[WorkerPool](self._store, POOL).get(name)
        wanted = str((request.spec.data.get("spec") or {}).get("template", ""))
        template = await Repository[WorkerTemplate](self._store, TEMPLATE).get(wanted) if wanted else None
        workers = [w for w in (await Repository[Worker](self._store, WORKER).list()).items if w.spec.pool == name]
        return decide_pool(name, pool, template, workers, request, self._clock.now())

    async def _template(self, undecided: Undecided) -> Decision:
        name = self._target(undecided)
        template: WorkerTemplate | None = await Repository[WorkerTemplate](self._store, TEMPLATE).get(name)
        pools = (await Repository[WorkerPool](self._store, POOL).list()).items
        return decide_template(name, template, list(pools), undecided.request, self._clock.now())
