"""What the steps of a worker see and work with, and the few words they share."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablet_common.clock import Clock
from lablet_common.resources.definition import LicenseKind
from lablet_common.resources.worker import License, LicenseSeen, Scaling, Worker, WorkerPhase, WorkerPool
from lablet_common.secrets import SecretBox
from lablet_workers.needs import Wanted
from lablet_workers.providers.port import (
    LaunchOrder,
    NotFound,
    Provider,
    ProviderError,
)
from lablet_workers.pulse import Pulse
from lablet_workers.runtimes.port import Runtime

_P = WorkerPhase

log = logging.getLogger("lablet.workers.machines")

PRODUCTS = {LicenseKind.PERSONAL: "CML_Personal", LicenseKind.ENTERPRISE: "CML_Enterprise"}

LAB_PREFIX = "ins-"
"""What every lab of ours is titled with: the id of its instance."""

REFUSED = "ProviderRefuses"
"""Condition: its provider refuses what it needs, until somebody acts."""

_UNNEEDED = "no-need"

_FIRST_PAUSE = timedelta(minutes=1)

_LONGEST_PAUSE = timedelta(minutes=30)
"""Between a failure and the next try: doubled each time, so that a broken shape does not eat machines. Only the first
boot that fails is followed by another at once: the reserve of its pool is for that."""


@dataclass(frozen=True, slots=True)
class Look:
    """Nothing to write now; look again after this much lab time."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class Outcome:
    """A worker to write. `gate`: its eligibility or capacity has changed."""

    worker: Worker
    gate: bool = False


@dataclass(slots=True)
class Surroundings:
    """What the steps work with."""

    provider: Provider
    order: Callable[[str, Mapping[str, str]], LaunchOrder]
    """The launch of this worker's machine, from a token and the tags it is found by."""
    pool: WorkerPool
    runtime: Runtime | None
    """Of this worker, once its address is known."""
    clock: Clock
    by: str
    box: SecretBox
    default_password: str
    license_token: str
    """Empty: nobody has set it, and nothing can be registered."""
    poll: timedelta
    probe: timedelta
    unknown: timedelta
    stop: timedelta
    pulse: Pulse
    license_due: bool = False
    """The licence of a worker that is Ready is to be looked at."""
    retired: bool = False
    """Nothing will be placed on it any more: its pool has shrunk, and nothing is booked on it."""

    def now(self) -> datetime:
        return self.clock.now()


WORKER_TAG, UID_TAG, POOL_TAG = "lablet-worker", "lablet-uid", "lablet-pool-uid"


def tags_of(worker: Worker) -> dict[str, str]:
    """What its machines can be found by, recorded or not."""
    return {WORKER_TAG: worker.id, UID_TAG: worker.metadata.uid}


def pool_tags(pool: WorkerPool) -> dict[str, str]:
    """What all of a pool's machines can be found by. Its uid and not its name: another installation in the same account
    may have a pool of that name."""
    return {POOL_TAG: pool.metadata.uid}


def until(moment: datetime | None, around: Surroundings) -> timedelta:
    longest = timedelta(hours=6)
    if moment is None:
        return longest
    return max(timedelta(0), min(moment - around.now(), longest))


def with_refusal(worker: Worker, refusal: ProviderError | None, now: datetime) -> Worker | None:
    """The worker with what its provider refuses for good, or without it; None: as it is. So whoever asks why a worker does
    not come up reads it there, and not in a log."""
    known = worker.status.condition(REFUSED)
    told = (type(refusal).__name__, str(refusal)) if refusal is not None else None
    if told is None:
        if known is None:
            return None
        return worker.observed(conditions=worker.with_condition(REFUSED, False, at=now))
    if known is not None and (known.reason, known.message) == told:
        return None
    return worker.observed(conditions=worker.with_condition(REFUSED, True, at=now, reason=told[0], message=told[1]))


def with_hold(worker: Worker, wanted: Wanted, now: datetime) -> Worker | None:
    """The worker with the rule that leaves its power as it is; None: that was told. Being needed by the calendar or by a lab
    is one rule here, and so is not being needed, now or yet: slots come and go without a word. An agent's host decides by
    itself."""
    known = worker.status.scaling
    told = _UNNEEDED if known is None else _held_by(known.rule)
    if wanted.rule == "agent" or _held_by(wanted.rule) == told:
        return None
    return worker.observed(scaling=Scaling(direction="held", rule=wanted.rule, at=now))


def _held_by(rule: str) -> str:
    return {"instance": "calendar", "need-later": _UNNEEDED}.get(rule, rule)


async def gone_of(worker: Worker, around: Surroundings) -> Outcome | None:
    """A failed worker, if the provider says that its machine runs no more. An error says nothing."""
    machine = worker.status.machine
    assert machine is not None
    try:
        info = await around.provider.describe(machine.id)
    except NotFound:
        return fail(worker, "MachineGone", f"the provider knows no machine {machine.id} any more", around, lost=True)
    except ProviderError as error:
        log.warning("the provider does not tell", extra={"worker": worker.id, "cause": str(error)})
        return None
    if info.state.runs_nothing:
        why = f": {info.reason}" if info.reason else ""
        return fail(worker, "MachineLost", f"machine {machine.id} is {info.state}{why}", around, lost=True)
    return None


def _pause_after(worker: Worker, failures: int) -> timedelta:
    if failures == 1 and worker.is_booting:
        return timedelta(0)
    return min(_FIRST_PAUSE * (1 << min(failures - 1, 10)), _LONGEST_PAUSE)


def seen(told: License, now: datetime) -> LicenseSeen:
    """What is remembered of a licence."""
    return LicenseSeen(status=told.status, node_quota=told.node_quota, seen_at=now)


def fail(worker: Worker, reason: str, message: str, around: Surroundings, *, lost: bool = False) -> Outcome:
    now = around.now()
    failures = worker.status.failures + 1
    return Outcome(
        worker.moved(
            _P.FAILED,
            at=now,
            by=around.by,
            reason=reason,
            message=message,
            deadline=None,
            lost_at=now if lost else None,
            failures=failures,
            retry_at=now + _pause_after(worker, failures),
        ),
        gate=True,
    )
