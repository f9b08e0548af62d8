"""Decisions on their way into etcd: what each of them writes and compares, how many share a transaction, and what a
refusal means.

Every transaction compares the fence and the pool's gate. Not guaranteed: that a transaction without an answer did not
happen; `OutcomeUnknown` goes out to the owner, whose term ends with it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lablet_common.ownership import Fence, NotOwner
from lablet_common.requests import Undecided, decide_in, hand_on_in, refuse_in
from lablet_common.resources.kinds import Service
from lablet_common.resources.reservation import Reservation
from lablet_common.store import Conflict, Get, Put, Store, Transaction
from lablet_common.store.changes import committed_in, create_in, unchanged_in, update_in
from lablet_scheduler.accounts import Accounts
from lablet_scheduler.decide import Decision

_ROOM = 100
"""Operations and comparisons used of the 128 that a transaction takes; the rest is room for the fence and the gate."""
_BYTES = 1024 * 1024
"""Bytes used of the 1.5 MiB that a request to etcd may have."""


@dataclass(frozen=True, slots=True)
class Step:
    """A decision with its transaction (without fence and gate), and the request that it answers."""

    decision: Decision
    undecided: Undecided | None
    txn: Transaction

    @property
    def target(self) -> str | None:
        """Id of what it is about."""
        if self.decision.resource is not None:
            return self.decision.resource.id
        return None if self.undecided is None else target_of(self.undecided)

    def stands_at(self, revision: int) -> Reservation | None:
        """The reservation that it has written, as it stands since the commit at `revision`."""
        resource = self.decision.resource
        return committed_in(self.txn, resource, revision) if isinstance(resource, Reservation) else None

    @property
    def size(self) -> tuple[int, int]:
        """Parts of the transaction, and bytes."""
        values = sum(len(part.value) for part in self.txn.operations if isinstance(part, Put))
        return max(len(self.txn.operations), len(self.txn.compares)), values


@dataclass(frozen=True, slots=True)
class Refused:
    """A comparison did not hold. `gate` is the gate's mod_revision now; a copy of the store that has reached `revision`
    shows why."""

    revision: int
    gate: int


def target_of(undecided: Undecided) -> str:
    """Id of what a request is about."""
    return undecided.request.spec.subject.partition("/")[2]


def step_of(decision: Decision, undecided: Undecided | None, *, at: datetime, by: str) -> Step:
    """What a decision writes and compares."""
    txn = Transaction()
    if decision.hand_on is not None:
        assert undecided is not None, "only a request can be handed on"
        hand_on_in(txn, undecided, Service.SCHEDULER, decision.hand_on)
        return Step(decision, undecided, txn)
    resource = decision.resource
    if resource is not None and resource.revision:
        update_in(txn, resource)
    elif resource is not None:
        create_in(txn, resource)
    for instance in decision.unchanged:
        unchanged_in(txn, instance)
    for key in decision.absent:
        txn.require_absent(key)
    if undecided is not None and decision.problem is not None:
        refuse_in(txn, undecided, at=at, by=by, problem=decision.problem, resource=resource)
    elif undecided is not None:
        decide_in(
            txn, undecided, at=at, by=by, reason=decision.reason, resource=resource or decision.about,
            answer=decision.answer,
        )  # fmt: skip
    return Step(decision, undecided, txn)


def grouped(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Steps that share a transaction: as many as fit, in order."""
    group: list[Step] = []
    tenants: set[str] = set()
    parts = size = 0
    for step in steps:
        more_parts, more_size = step.size
        tenant = step.decision.tenant
        if tenant is not None and tenant not in tenants:
            tenants.add(tenant)
            more_parts += 2  # its limits and its ledger
        if group and (parts + more_parts > _ROOM or size + more_size > _BYTES):
            yield group
            group, parts, size, tenants = [], 0, 0, set()
        group.append(step)
        parts += more_parts
        size += more_size
    if group:
        yield group


def fits_together(steps: Sequence[Step]) -> bool:
    """One transaction can take them all."""
    return len(list(grouped(steps))) == 1


async def write(
    store: Store, fence: Fence, gate_key: str, gate: int, group: Sequence[Step], accounts: Accounts
) -> int | Refused:
    """Commits the steps in one transaction and returns its revision. Raises `NotOwner` when the fence has fallen,
    `OutcomeUnknown`, `StoreUnavailable`."""
    txn = Transaction()
    fence.guard(txn)
    txn.require(gate_key, mod_revision=gate)
    for step in group:
        txn.merge(step.txn)
    written = [one for step in group if isinstance(one := step.decision.resource, Reservation)]
    limited = [step.decision.limited for step in group if step.decision.limited is not None]
    ledgers = accounts.write_in(txn, written, limited)
    try:
        revision = (await txn.commit(store)).revision
    except Conflict as conflict:
        seen = await store.txn([], [Get(fence.key), Get(gate_key)])
        held, present = (read[0] if read else None for read in seen.reads)
        if held is None or held.create_revision != fence.create_revision:
            raise NotOwner(f"{fence.key} has another owner") from conflict
        return Refused(conflict.revision, 0 if present is None else present.mod_revision)
    accounts.written(ledgers, revision)
    return revision
