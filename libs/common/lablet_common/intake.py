"""Deciding the requests of one inbox shard, in order: the loop around what a service decides.

Each decision is one fenced transaction with the request's outcome. One that meets a conflict is decided again from what is
true then; one that can never be stored (it has grown too large) is a refusal, or it would hold up all behind it. The loop is
woken by intents, and looks by itself every now and then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lablet_common.clock import Clock
from lablet_common.ownership import Fence, NotOwner
from lablet_common.requests import Inbox, Undecided, decide_in, hand_on_in, refuse_in, stale
from lablet_common.resources.kinds import kind_of
from lablet_common.resources.model import Resource
from lablet_common.resources.request import Problem, Request
from lablet_common.store import Conflict, InvalidRequest, Store, StoreUnavailable, Transaction
from lablet_common.store.changes import create_in, delete_in, unchanged_in, update_in
from lablet_common.telemetry.metrics import INBOX_DEPTH
from lablet_common.telemetry.spans import continuing

log = logging.getLogger("lablet.intake")

PROBLEMS = "https://lablet.io/problems/"
"""Beginning of every problem's `type`."""
_BATCH = 100
_TRIES = 5
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a request: a resource to write (made at revision 0, else changed) or to delete; a problem; another
    shard that is to decide; or nothing, where everything is as asked already."""

    reason: str
    resource: Resource[Any, Any] | None = None
    delete: bool = False
    problem: Problem | None = None
    hand_on: str | None = None
    also: Transaction | None = None
    """What else belongs into the same transaction."""
    about: Resource[Any, Any] | None = None
    """What the outcome names where nothing is written; the transaction compares its revision."""


def refused(slug: str, title: str, detail: str, status: int = 409, *, path: str | None = None, **more: Any) -> Decision:
    """A refusal with a problem of that type; `path` names the field at fault."""
    errors = ({"path": path, "message": detail},) if path else ()
    said = Problem(type=PROBLEMS + slug, title=title, status=status, detail=detail, errors=errors, extensions=more)
    return Decision(title.replace(" ", ""), problem=said)


def verb_of(undecided: Undecided) -> tuple[str, str]:
    """Kind and verb of an intent, such as `worker` and `drain.requested`."""
    kind, _, verb = undecided.request.spec.type.removeprefix("io.lablet.").removesuffix(".v1").partition(".")
    return kind, verb


def deciding(undecided: Undecided) -> AbstractContextManager[None]:
    """A span around a decision, in the trace of the request."""
    spec = undecided.request.spec
    words = {"lablet.request.id": undecided.request.id, "lablet.subject": spec.subject}
    return continuing(f"decide {spec.type.removeprefix('io.lablet.').removesuffix('.v1')}", spec.trace_parent, words)


def target_of(undecided: Undecided) -> str:
    """Id of the resource that an intent is about."""
    return undecided.request.spec.subject.partition("/")[2]


def _if_meant(request: Request, decision: Decision) -> Decision:
    """The decision, or a refusal where it would change what is no longer as the request is meant for."""
    about = decision.resource
    if about is None or decision.problem is not None or f"{kind_of(about).name}/{about.id}" != request.spec.subject:
        return decision
    words = stale(request, about)
    return decision if words is None else refused("precondition-failed", "Precondition failed", words, 412)


class Intake:
    """Decides one shard's inbox while the fence stands."""

    def __init__(
        self,
        service: str,
        shard: str,
        fence: Fence,
        decide: Callable[[Undecided], Awaitable[Decision]],
        *,
        store: Store,
        clock: Clock,
        source: str,
        resync_seconds: float,
    ) -> None:
        self._service = service
        self._shard = shard
        self._fence = fence
        self._decide = decide
        self._store = store
        self._clock = clock
        self._source = source
        self._resync = resync_seconds
        self._inbox = Inbox(store, service, shard)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something new in the inbox."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Raises `NotOwner` when the fence no longer stands."""
        try:
            await self._decide_for_ever()
        finally:
            INBOX_DEPTH.remove(self._service, self._shard)  # whoever owns it next tells

    async def _decide_for_ever(self) -> None:
        while True:
            self._wake.clear()
            try:
                pending = await self._inbox.pending(_BATCH)
                INBOX_DEPTH.labels(self._service, self._shard).set(self._inbox.waiting)
                for undecided in pending:
                    await self._settle(undecided)
            except StoreUnavailable as error:
                log.warning("etcd does not answer: trying again", extra={"shard": self._shard, "cause": str(error)})
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if len(pending) < _BATCH:
                await self._until_woken()

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(self._resync):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _settle(self, undecided: Undecided) -> None:
        with deciding(undecided):
            await self._decide_on(undecided)

    async def _decide_on(self, undecided: Undecided) -> None:
        request = undecided.request
        for _ in range(_TRIES):
            try:
                decision = _if_meant(undecided.request, await self._decide(undecided))
                decision, txn = self._storable(undecided, decision)
                await txn.commit(self._store)
            except Conflict as conflict:
                if not await self._fence.stands(self._store):
                    raise NotOwner(f"{self._service} shard {self._shard} has another owner") from conflict
                continue
            words = {"request": request.id, "subject": request.spec.subject, "reason": decision.reason}
            log.info("decided", extra=words)
            return
        log.warning("left for the next look: what the request is about keeps changing", extra={"request": request.id})

    def _storable(self, undecided: Undecided, decision: Decision) -> tuple[Decision, Transaction]:
        """The decision with its transaction; a refusal where that is more than the store takes. What etcd itself says (no
        right, for one) is no reason to refuse: that ends the loop."""
        try:
            txn = self._transaction(undecided, decision)
            txn.check_size()
        except InvalidRequest as error:
            log.error("cannot be stored", extra={"request": undecided.request.id, "cause": str(error)})  # noqa: TRY400
            refusal = refused("too-large", "Too large", f"what follows from this cannot be stored: {error}", 413)
            return refusal, self._transaction(undecided, refusal)
        return decision, txn

    def _transaction(self, undecided: Undecided, decision: Decision) -> Transaction:
        txn = Transaction()
        self._fence.guard(txn)
        resource, now = decision.resource, self._clock.now()
        if decision.hand_on is not None:
            hand_on_in(txn, undecided, self._service, decision.hand_on)
            return txn
        if decision.problem is not None:
            refuse_in(txn, undecided, at=now, by=self._source, problem=decision.problem, resource=resource)
        else:
            about = resource if resource is not None else decision.about
            decide_in(txn, undecided, at=now, by=self._source, reason=decision.reason, resource=about)
        if resource is None and decision.about is not None:
            unchanged_in(txn, decision.about)
        if resource is not None:
            if decision.delete:
                delete_in(txn, resource)
            elif resource.revision:
                update_in(txn, resource)
            else:
                create_in(txn, resource)
        if decision.also is not None:
            txn.merge(decision.also)
        return txn
