"""One step of a worker's life: what is wanted and what the provider and the runtime say, in; the next state, out.

Each function looks at one phase, calls what the phase needs, and returns the worker one move further, or when to look again.
Doing it twice does nothing the second time: launches carry a token that is the same for every try, and everything else is
idempotent on the other side. Every way out of a phase that has a machine ends in giving back the licence and the machine.
"""

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablet_common.clock import Clock
from lablet_common.resources.definition import LicenseKind
from lablet_common.resources.worker import License, Machine, Scaling, Worker, WorkerPhase
from lablet_common.secrets import SecretBox
from lablet_workers.needs import Wanted
from lablet_workers.providers.port import (
    InsufficientCapacity,
    LaunchOrder,
    MachineInfo,
    MachineState,
    NotFound,
    NotReady,
    Provider,
    ProviderError,
)
from lablet_workers.runtimes.port import LoginRefused, Runtime, RuntimeFault, RuntimeUnavailable

log = logging.getLogger("lablet.workers.machines")

_PRODUCTS = {LicenseKind.PERSONAL: "CML_Personal", LicenseKind.ENTERPRISE: "CML_Enterprise"}
_REFUSED = "FAILED"
_P = WorkerPhase
_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(minutes=30)
"""Between a failure and the next try: doubled each time, so that a broken shape does not eat machines."""


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
    runtime: Runtime | None
    """Of this worker, once its address is known."""
    clock: Clock
    by: str
    box: SecretBox
    default_password: str
    license_token: str
    poll: timedelta
    probe: timedelta
    unknown: timedelta
    stop: timedelta

    def now(self) -> datetime:
        return self.clock.now()


async def step(worker: Worker, wanted: Wanted, busy: bool, around: Surroundings) -> Outcome | Look:
    """The next step of a worker. `busy`: an instance on it has not ended."""
    deadline = worker.status.deadline
    if deadline is not None and around.now() >= deadline:
        return _overdue(worker, busy, around)
    match worker.status.phase:
        case _P.OFFLINE:
            return _offline(worker, wanted, around)
        case _P.PROVISIONING:
            return await _provisioning(worker, around)
        case _P.STARTING:
            return await _starting(worker, around)
        case _P.LICENSING:
            return await _licensing(worker, around)
        case _P.READY:
            return await _ready(worker, wanted, around)
        case _P.DRAINING:
            return await _draining(worker, wanted, busy, around)
        case _P.STOPPING:
            return await _stopping(worker, around)
        case _P.FAILED:
            return _failed(worker, around)
        case _P.TERMINATING:
            return await _terminating(worker, around)


def boot_deadline(worker: Worker, now: datetime) -> datetime:
    """By when a worker that is switched on must be ready: twice the template's boot time and a quarter of an hour."""
    return now + timedelta(minutes=2 * worker.spec.boot_minutes + 15)


def _offline(worker: Worker, wanted: Wanted, around: Surroundings) -> Outcome | Look:
    if not wanted.on:
        return Look(_until(wanted.look, around))
    now = around.now()
    if worker.status.retry_at is not None and now < worker.status.retry_at:
        return Look(worker.status.retry_at - now)
    password = worker.status.credentials or around.box.seal(secrets.token_urlsafe(18), f"worker/{worker.id}")
    return Outcome(
        worker.moved(
            _P.PROVISIONING,
            at=now,
            by=around.by,
            reason="PowerOn",
            message=f"rule {wanted.rule}",
            scaling=Scaling(direction="up", rule=wanted.rule, at=now),
            credentials=password,
            deadline=boot_deadline(worker, now),
            launches=worker.status.launches + 1,
            lost_at=None,
        )
    )


async def _provisioning(worker: Worker, around: Surroundings) -> Outcome | Look:
    machine = worker.status.machine
    now = around.now()
    try:
        if machine is None:
            info = await _launch(worker, around)
            recorded = Machine(id=info.id, launched_at=now, provider_state=info.state)
            return Outcome(worker.observed(machine=recorded))
        info = await around.provider.describe(machine.id)
        if info.state is MachineState.STOPPED:
            if info.reason and machine.provider_state in (MachineState.PENDING, MachineState.RUNNING):
                return _fail(worker, "BootFailed", f"machine {info.id} stopped while it booted: {info.reason}", around)
            info = await around.provider.start(machine.id)
            return Outcome(worker.observed(machine=Machine(id=info.id, launched_at=now, provider_state="pending")))
    except NotFound:
        return _relaunch(worker)
    except InsufficientCapacity as error:
        log.warning("no machine to be had", extra={"worker": worker.id, "cause": str(error)})
        return Look(around.poll * 4)
    except NotReady:
        return Look(around.poll)
    if info.state is MachineState.TERMINATED:
        return _relaunch(worker)
    if info.state is not MachineState.RUNNING:
        return Look(around.poll)
    return Outcome(
        worker.moved(
            _P.STARTING,
            at=now,
            by=around.by,
            reason="MachineRuns",
            message=f"machine {info.id} at {info.host}",
            address=info.url,
            host=info.host,
            machine=Machine(id=info.id, launched_at=machine.launched_at, provider_state=info.state),
        )
    )


def _relaunch(worker: Worker) -> Outcome:
    """The machine is gone: the next launch must not be taken for the one that made it."""
    return Outcome(worker.observed(machine=None, launches=worker.status.launches + 1))


async def _launch(worker: Worker, around: Surroundings) -> MachineInfo:
    """The machine that an earlier try made, or a new one."""
    for found in await around.provider.find(_tags(worker)):
        if found.state not in (MachineState.TERMINATING, MachineState.TERMINATED):
            return found
    token = f"{worker.metadata.uid}-{worker.status.launches}"
    tags = _tags(worker) | {"lablet-pool": worker.spec.pool}
    return await around.provider.launch(LaunchOrder(token, worker.id, worker.spec.template, tags=tags))


def _tags(worker: Worker) -> dict[str, str]:
    """What its machines can be found by, recorded or not."""
    return {"lablet-worker": worker.id, "lablet-uid": worker.metadata.uid}


async def _starting(worker: Worker, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await _gone(worker, around)
    if gone is not None:
        return gone
    try:
        info = await around.runtime.info()
        if not info.ready:
            return Look(around.poll)
        await around.runtime.secure(around.default_password, _password(worker, around))
    except RuntimeUnavailable:
        return Look(around.poll)
    except LoginRefused as error:
        return _fail(worker, "LoginRefused", f"{error}: neither the worker's nor the image's password opens", around)
    return Outcome(
        worker.moved(_P.LICENSING, at=around.now(), by=around.by, reason="RuntimeAnswers", version=info.version)
    )


async def _licensing(worker: Worker, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await _gone(worker, around)
    if gone is not None:
        return gone
    product = _PRODUCTS.get(worker.spec.license)
    try:
        state = await around.runtime.license()
        if product is not None and state.registration == _REFUSED:
            return _fail(worker, "LicenseRefused", "the licence server refused the registration", around)
        if product is not None and not state.registered:
            await around.runtime.register(product, around.license_token)
            return Look(around.poll)
    except RuntimeUnavailable:
        return Look(around.poll)
    except RuntimeFault as error:
        log.warning("the licence was refused", extra={"worker": worker.id, "cause": str(error)})
        return Look(around.poll * 4)
    if product is not None and not state.in_compliance:
        return Look(around.poll)
    now = around.now()
    scaling = worker.status.scaling
    return Outcome(
        worker.moved(
            _P.READY,
            at=now,
            by=around.by,
            reason="InCompliance" if product else "EvaluationLicense",
            license=License(status=state.authorization, node_quota=state.node_quota),
            deadline=None,
            scaling=scaling.model_copy(update={"state": "completed", "at": now}) if scaling else None,
            conditions=worker.with_condition("Unknown", False, at=now),
            failures=0,
            retry_at=None,
        )
    )


async def _ready(worker: Worker, wanted: Wanted, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await _gone(worker, around)
    if gone is not None:
        return gone
    now = around.now()
    unknown = worker.status.condition("Unknown")
    try:
        silent = None if (await around.runtime.info()).ready else "its runtime says that it is not ready"
    except RuntimeFault as error:
        silent = str(error)
    if silent is not None:
        if unknown is None:
            conditions = worker.with_condition("Unknown", True, at=now, reason="NoAnswer", message=silent)
            return Outcome(worker.observed("unknown", conditions=conditions))
        if now - unknown.since >= around.unknown:
            return _fail(worker, "NoAnswer", f"its runtime has not answered since {unknown.since.isoformat()}", around)
        return Look(around.probe)
    if unknown is not None:
        return Outcome(worker.observed(conditions=worker.with_condition("Unknown", False, at=now)))
    if wanted.on:
        return Look(min(around.probe, _until(wanted.look, around)))
    # marked first, which moves the gate: a placement decided on the old state is decided again
    scaling = Scaling(direction="down", rule=wanted.rule, at=now)
    return Outcome(
        worker.moved(
            _P.DRAINING, at=now, by=around.by, reason="PowerOff", message=f"rule {wanted.rule}", scaling=scaling
        ),
        gate=True,
    )


async def _draining(worker: Worker, wanted: Wanted, busy: bool, around: Surroundings) -> Outcome | Look:
    """`wanted` has been worked out from a linearizable read made after the mark."""
    gone = await _gone(worker, around)
    if gone is not None:
        return gone
    now = around.now()
    if wanted.on and worker.status.license is not None:
        held = Scaling(direction="held", rule=wanted.rule, at=now, message="needed again before it went down")
        return Outcome(
            worker.moved(
                _P.READY,
                at=now,
                by=around.by,
                reason="NeededAgain",
                fact="drain-cancelled",
                scaling=held,
                deadline=None,
            ),
            gate=True,
        )
    if busy:
        return Look(around.probe)
    if worker.status.license is not None:
        # from here on there is no way back: what is given back must not be taken for licensed after a crash
        return Outcome(worker.observed(license=None, deadline=now + around.stop))
    if not await _give_back_license(worker, around):
        return Look(around.poll)
    return Outcome(
        worker.moved(_P.STOPPING, at=now, by=around.by, reason="Empty", license=None, deadline=now + around.stop)
    )


async def _give_back_license(worker: Worker, around: Surroundings) -> bool:
    """True once it is given back, or there is none, or nobody is left to give it back. It is asked for whatever is on
    record: a registration may have been on its way when the worker failed. Labs that nobody wants any more and that keep
    the licence from being given back are stopped."""
    runtime = around.runtime
    if worker.spec.license not in _PRODUCTS or runtime is None:
        return True
    try:
        await runtime.deregister()
    except RuntimeUnavailable:
        return False
    except RuntimeFault as error:
        log.warning("the licence is not given back yet", extra={"worker": worker.id, "cause": str(error)})
    else:
        return True
    try:
        for lab in (await runtime.labs()).values():
            if not (await runtime.progress(lab)).stopped:
                await runtime.stop(lab)
    except RuntimeFault as error:
        log.warning("its labs do not stop", extra={"worker": worker.id, "cause": str(error)})
    return False


async def _stopping(worker: Worker, around: Surroundings) -> Outcome | Look:
    machine = worker.status.machine
    if machine is not None:
        try:
            info = await around.provider.describe(machine.id)
            if not info.state.runs_nothing:
                if info.state is not MachineState.STOPPING:
                    await around.provider.stop(machine.id)
                return Look(around.poll)
        except NotFound:
            machine = None
    now = around.now()
    scaling = worker.status.scaling
    return Outcome(
        worker.moved(
            _P.OFFLINE,
            at=now,
            by=around.by,
            reason="PoweredOff",
            machine=machine.model_copy(update={"provider_state": "stopped"}) if machine else None,
            address=None,
            host=None,
            license=None,
            deadline=None,
            scaling=scaling.model_copy(update={"state": "completed", "at": now}) if scaling else None,
        )
    )


def _failed(worker: Worker, around: Surroundings) -> Outcome:
    """Failed always ends in clean-up."""
    now = around.now()
    return Outcome(worker.moved(_P.TERMINATING, at=now, by=around.by, reason="CleanUp", deadline=now + around.stop))


async def _terminating(worker: Worker, around: Surroundings) -> Outcome | Look:
    left = await _machines_left(worker, around)
    if any(info.state is MachineState.RUNNING for info in left) and not await _license_settled(worker, around):
        return Look(around.poll)
    for info in left:
        if info.state is not MachineState.TERMINATING:
            await around.provider.terminate(info.id)
    if left and worker.status.lost_at is None:
        return Look(around.poll)
    now = around.now()
    return Outcome(
        worker.moved(
            _P.OFFLINE,
            at=now,
            by=around.by,
            reason="CleanedUp",
            machine=None,
            address=None,
            host=None,
            license=None,
            deadline=None,
            credentials=None,
            lost_at=worker.status.lost_at or now,
            conditions=worker.with_condition("Unknown", False, at=now),
        ),
        gate=True,
    )


async def _machines_left(worker: Worker, around: Surroundings) -> list[MachineInfo]:
    """Its machines that are not gone yet: the recorded one, and any that a crash kept from being recorded."""
    left = {info.id: info for info in await around.provider.find(_tags(worker))}
    machine = worker.status.machine
    if machine is not None and machine.id not in left:
        try:
            info = await around.provider.describe(machine.id)
        except NotFound:
            log.info("the machine is gone", extra={"worker": worker.id, "machine": machine.id})
        else:
            left[info.id] = info
    return [info for info in left.values() if info.state is not MachineState.TERMINATED]


async def _license_settled(worker: Worker, around: Surroundings) -> bool:
    """The licence is given back, or its machine has had its time to do so: what does not answer is not waited for long."""
    since = worker.status.history[-1].at
    if around.now() >= since + around.stop / 6:
        log.error("a machine ends without having given its licence back", extra={"worker": worker.id})
        return True
    return await _give_back_license(worker, around)


async def _gone(worker: Worker, around: Surroundings) -> Outcome | None:
    """A failed worker, if the provider says that its machine runs no more. An error says nothing."""
    machine = worker.status.machine
    assert machine is not None
    try:
        info = await around.provider.describe(machine.id)
    except NotFound:
        return _fail(worker, "MachineGone", f"the provider knows no machine {machine.id} any more", around, lost=True)
    except ProviderError as error:
        log.warning("the provider does not tell", extra={"worker": worker.id, "cause": str(error)})
        return None
    if info.state.runs_nothing:
        why = f": {info.reason}" if info.reason else ""
        return _fail(worker, "MachineLost", f"machine {machine.id} is {info.state}{why}", around, lost=True)
    return None


def _fail(worker: Worker, reason: str, message: str, around: Surroundings, *, lost: bool = False) -> Outcome:
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
            retry_at=now + min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE),
        ),
        gate=True,
    )


def _overdue(worker: Worker, busy: bool, around: Surroundings) -> Outcome | Look:
    phase = worker.status.phase
    if phase is _P.TERMINATING:
        # nothing more can be done than to go on trying: a machine is never forgotten
        return Outcome(worker.observed(deadline=around.now() + around.stop, message="the machine does not go away"))
    if phase is _P.DRAINING and busy:
        return Outcome(worker.observed(deadline=None))
    return _fail(worker, "DeadlineMissed", f"it was {phase} for longer than it may", around)


def _password(worker: Worker, around: Surroundings) -> str:
    assert worker.status.credentials is not None
    return around.box.open(worker.status.credentials, f"worker/{worker.id}")


def _until(moment: datetime | None, around: Surroundings) -> timedelta:
    longest = timedelta(hours=6)
    if moment is None:
        return longest
    return max(timedelta(0), min(moment - around.now(), longest))
