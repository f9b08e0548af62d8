"""The writing half of a pool's owner: decisions become transactions, and what becomes of those is told to the calendar.

Each transaction compares the fence, the gate as the pass has read it, and what its decisions rest on. A refused decision
is taken off the calendar and made again once the caches show why.
"""

import logging
from collections import deque
from collections.abc import Sequence

from lablet_common.clock import Clock
from lablet_common.ownership import Fence
from lablet_common.requests import Undecided
from lablet_common.resources.kinds import RESERVATION, gate_key, kind_of
from lablet_common.resources.reservation import Reservation
from lablet_common.store import Store
from lablet_common.telemetry.metrics import DECISION_LATENCY, DECISIONS
from lablet_common.telemetry.spans import together
from lablet_scheduler.accounts import Accounts
from lablet_scheduler.agenda import Agenda
from lablet_scheduler.commits import Refused, Step, grouped, step_of, write
from lablet_scheduler.decide import Decision
from lablet_scheduler.following import Following

log = logging.getLogger("lablet.scheduler")


class Writer:
    """Of one pool, for one term of ownership."""

    def __init__(
        self, store: Store, fence: Fence, agenda: Agenda, caches: Following, clock: Clock, source: str
    ) -> None:
        self.accounts = Accounts(store)
        self.needed = fence.create_revision
        """The caches must have reached it before anything is decided or built."""
        self.refusals = 0
        """Transactions that were refused since all went well for a whole pass."""
        self._store = store
        self._fence = fence
        self._agenda = agenda
        self._caches = caches
        self._clock = clock
        self._source = source
        self.gate = 0
        """Revision of the pool's gate, as this pass has read it."""
        self._gate_key = gate_key(agenda.pool)

    async def begin(self) -> None:
        """Notes the gate, the limits and the ledgers as the caches hold them: this pass's decisions are made from those, and
        its transactions compare them."""
        caches = self._caches
        gate = caches.gates.get(self._gate_key)
        await self.accounts.take(list(caches.quotas.values()), list(caches.ledgers.values()), caches.revision)
        revision = 0 if gate is None else gate.mod_revision
        if revision != self.gate:
            self.gate = revision
            self._agenda.freed = True

    def step(self, decision: Decision, undecided: Undecided | None = None) -> Step:
        return step_of(decision, undecided, at=self._clock.now(), by=self._source)

    def within_quota(self, decision: Decision) -> Decision:
        """The decision, unless it breaks a limit: then its refusal, and the calendar as it was."""
        new = decision.resource
        if not isinstance(new, Reservation):
            return decision
        state = self._agenda.state
        old = state.reservations.get(new.id)
        said = self.accounts.exceeded(old, new, self._clock.now())
        if said is None:
            self.accounts.enter(old, new)
            return decision
        state.rebook(new.id, self._clock.now())
        return Decision(reason="QuotaExceeded", problem=said, limited=new.tenant, result="refused")

    async def commit(self, steps: Sequence[Step]) -> None:
        """Writes the steps, many in one transaction. When one is refused they are tried one by one, and what is refused
        then is undone on the calendar, with the refusals for a limit behind it, which have counted it in; when the gate has
        moved, all that is left is."""
        self._enter(steps)
        groups = deque(grouped(steps))
        while groups:
            group = groups.popleft()
            refused = await self._write(group)
            if refused is None:
                continue
            if refused.gate != self.gate:
                self._undo([*group, *(step for rest in groups for step in rest)])
                return
            if len(group) > 1:
                groups.extendleft([step] for step in reversed(group))
            else:
                self._undo(group)
                groups = deque(
                    kept for rest in groups if (kept := [step for step in rest if not step.decision.limited])
                )

    async def commit_together(self, steps: Sequence[Step]) -> bool:
        """Writes the steps in one transaction, all or none; False: none, and they are undone on the calendar."""
        self._enter(steps)
        refused = await self._write(steps)
        if refused is not None:
            self._undo(steps)
        return refused is None

    def _enter(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(new := step.decision.resource, Reservation):
                self.accounts.enter(self._agenda.state.reservations.get(new.id), new)

    async def _write(self, group: Sequence[Step]) -> Refused | None:
        with together("commit decisions", map(_origin, group), {"lablet.pool": self._agenda.pool}):
            result = await write(self._store, self._fence, self._gate_key, self.gate, group, self.accounts)
        if isinstance(result, Refused):
            self.needed = max(self.needed, result.revision)
            return result
        self.needed = max(self.needed, result)
        for step in group:
            self._done(step, result)
        return None

    def _done(self, step: Step, revision: int) -> None:
        decision, now = step.decision, self._clock.now()
        written = step.stands_at(revision)
        if written is not None:
            self.accounts.drop(written.id)
            if not decision.saves and self._agenda.state.settles:
                self._agenda.stirs.note(self._agenda.state.reservations.get(written.id), written)
            self._agenda.state.put_reservation(written, now)
            self._agenda.dirty.add(written.id)
        self._agenda.freed = self._agenda.freed or decision.frees
        DECISIONS.labels(decision.result, decision.reason).inc()
        known = {
            "result": decision.result,
            "reason": decision.reason,
            "pool": self._agenda.pool,
            _word(decision): step.target,
            "trace_parent": _origin(step),
        }
        if step.undecided is not None:
            request = step.undecided.request
            DECISION_LATENCY.observe(max(0.0, self._clock.real_seconds(now - request.spec.received_at)))
            log.info("decided", extra=known | {"request": request.id})
        elif decision.resource is not None:
            log.info("moved", extra=known | {"phase": str(decision.resource.phase)})

    def forget(self, steps: Sequence[Step]) -> None:
        """Takes decisions that will not be written off the calendar."""
        for step in steps:
            if isinstance(step.decision.resource, Reservation):
                self.accounts.drop(step.decision.resource.id)
                self._agenda.state.rebook(step.decision.resource.id, self._clock.now())
                self._agenda.dirty.add(step.decision.resource.id)

    def _undo(self, steps: Sequence[Step]) -> None:
        """Refused decisions are made again."""
        self.refusals += 1
        self.forget(steps)
        self._agenda.freed = True


def _word(decision: Decision) -> str:
    """What the target of a decision is."""
    return RESERVATION.name if decision.resource is None else kind_of(decision.resource).name


def _origin(step: Step) -> str | None:
    """The span that asked for it, or that made what it is about."""
    if step.undecided is not None:
        return step.undecided.request.spec.trace_parent
    return step.decision.resource.metadata.trace_parent if step.decision.resource is not None else None
