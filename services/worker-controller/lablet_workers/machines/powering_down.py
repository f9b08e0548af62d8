"""From Ready to Offline, and the clean-up after a failure: the licence is given back, then the machine.

No way out of here forgets a machine or a licence; what does not answer is asked for a while, and then its machine ends.
"""

import logging

from lablet_common.resources.worker import Scaling, Worker, WorkerPhase
from lablet_workers.handlers import undrained
from lablet_workers.machines.context import LAB_PREFIX, PRODUCTS, Look, Outcome, Surroundings, gone_of, seen, tags_of
from lablet_workers.needs import Wanted
from lablet_workers.providers.port import (
    MachineInfo,
    MachineState,
    NotFound,
)
from lablet_workers.runtimes.port import LabMissing, LoginRefused, RuntimeFault, RuntimeUnavailable

_P = WorkerPhase

log = logging.getLogger("lablet.workers.machines")


async def draining(worker: Worker, wanted: Wanted, busy: bool, around: Surroundings) -> Outcome | Look:
    """`wanted` has been worked out from a linearizable read made after the mark."""
    gone = await gone_of(worker, around)
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
    if worker.status.license is not None or worker.status.deadline is None:
        # from here on there is no way back: what is given back must not be taken for licensed after a crash
        licence = worker.status.license
        remembered = seen(licence, now) if licence is not None else worker.status.last_license
        return Outcome(worker.observed(license=None, last_license=remembered, deadline=now + around.stop))
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
    if worker.spec.license not in PRODUCTS or runtime is None or around.provider.permanent:
        return True  # a host that is there for ever keeps its licence
    try:
        await runtime.deregister()
    except RuntimeUnavailable:
        return False
    except RuntimeFault as error:
        log.warning("the licence is not given back yet", extra={"worker": worker.id, "cause": str(error)})
    else:
        return True
    try:
        for lab in await runtime.labs():
            if not (await runtime.progress(lab)).stopped:
                await runtime.stop(lab)
    except RuntimeFault as error:
        log.warning("its labs do not stop", extra={"worker": worker.id, "cause": str(error)})
    return False


async def stopping(worker: Worker, around: Surroundings) -> Outcome | Look:
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


def failed(worker: Worker, around: Surroundings) -> Outcome:
    """Failed always ends in clean-up."""
    now = around.now()
    return Outcome(worker.moved(_P.TERMINATING, at=now, by=around.by, reason="CleanUp", deadline=now + around.stop))


async def terminating(worker: Worker, around: Surroundings) -> Outcome | Look:
    left = await _machines_left(worker, around)
    if any(info.state is MachineState.RUNNING for info in left):
        ready = _emptied if around.provider.permanent else _license_settled
        if not await ready(worker, around):
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
            last_license=seen(worker.status.license, now) if worker.status.license else worker.status.last_license,
            deadline=None,
            credentials=worker.status.credentials if around.provider.permanent else None,
            lost_at=worker.status.lost_at or now,
            conditions=worker.with_condition("Unknown", False, at=now),
        ),
        gate=True,
    )


async def given_up(worker: Worker, around: Surroundings) -> Outcome | Look:
    """An Offline worker without its machine: its next power-on launches another one. A replacement ends with it, and the
    drain that came with it."""
    left = await _machines_left(worker, around)
    for info in left:
        if info.state is not MachineState.TERMINATING:
            await around.provider.terminate(info.id)
    if left:
        return Look(around.poll)
    bare = undrained(worker, around.now()) if worker.spec.replacing is not None else None
    credentials = worker.status.credentials if around.provider.permanent else None
    fact = "uncordoned" if bare is not None else "changed"
    # a replaced worker's licence is found out anew; a record that is only taken away keeps what was known
    kept = None if bare is not None else worker.status.last_license
    empty = (bare or worker).observed(fact, machine=None, credentials=credentials, last_license=kept)
    return Outcome(empty, gate=bare is not None)


async def _machines_left(worker: Worker, around: Surroundings) -> list[MachineInfo]:
    """Its machines that are not gone yet: the recorded one, and any that a crash kept from being recorded."""
    left = {info.id: info for info in await around.provider.find(tags_of(worker))}
    machine = worker.status.machine
    if machine is not None and machine.id not in left:
        try:
            info = await around.provider.describe(machine.id)
        except NotFound:
            log.info("the machine is gone", extra={"worker": worker.id, "machine": machine.id})
        else:
            left[info.id] = info
    return [info for info in left.values() if info.state is not MachineState.TERMINATED]


async def _emptied(worker: Worker, around: Surroundings) -> bool:
    """No lab of ours is left on a host that nobody can switch off. While it does not answer, that is not known, and only an
    operator's word (see the static provider) leads on. Labs that others have there are theirs."""
    runtime = around.runtime
    if runtime is None:
        return True  # it never came so far that anything was started on it
    try:
        ours = [lab for lab, title in (await runtime.labs()).items() if title.startswith(LAB_PREFIX)]
        for lab in ours:
            if not (await runtime.progress(lab)).stopped:
                await runtime.stop(lab)
            else:
                await runtime.remove(lab)
    except LabMissing:
        return False  # gone in between: looked at once more
    except LoginRefused:
        return worker.status.version is None
    except RuntimeFault as error:
        log.warning("a host is not known to be empty", extra={"worker": worker.id, "cause": str(error)})
        return False
    return not ours


async def _license_settled(worker: Worker, around: Surroundings) -> bool:
    """The licence is given back, or its machine has had its time to do so: what does not answer is not waited for long."""
    since = worker.status.history[-1].at
    if around.now() >= since + around.stop / 6:
        log.error("a machine ends without having given its licence back", extra={"worker": worker.id})
        return True
    return await _give_back_license(worker, around)
