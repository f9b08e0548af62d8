"""From Offline to Ready: a machine, its runtime, its password, its licence.

Launches carry a token that is the same for every try, and a machine that a crash kept from being recorded is found again by
its tags, so one try gives one machine.
"""

import logging
import secrets
from datetime import datetime, timedelta

from lablet_common.resources.worker import License, Machine, Scaling, Worker, WorkerPhase
from lablet_workers.machines.context import (
    PRODUCTS,
    Look,
    Outcome,
    Surroundings,
    fail,
    gone_of,
    pool_tags,
    seen,
    tags_of,
    until,
    with_hold,
)
from lablet_workers.machines.powering_down import given_up
from lablet_workers.needs import Wanted
from lablet_workers.providers.port import (
    InsufficientCapacity,
    MachineInfo,
    MachineState,
    NotFound,
    NotReady,
)
from lablet_workers.runtimes.port import LoginRefused, RuntimeFault, RuntimeUnavailable

_P = WorkerPhase

log = logging.getLogger("lablet.workers.machines")

_REFUSED = "FAILED"


def boot_deadline(worker: Worker, now: datetime) -> datetime:
    """By when a worker that is switched on must be ready: twice the template's boot time and a quarter of an hour."""
    return now + timedelta(minutes=2 * worker.spec.boot_minutes + 15)


async def offline(worker: Worker, wanted: Wanted, around: Surroundings) -> Outcome | Look:
    if worker.spec.replacing is not None or (around.retired and worker.status.machine is not None):
        return await given_up(worker, around)
    now = around.now()
    if not wanted.on:
        held = with_hold(worker, wanted, now)
        return Outcome(held) if held is not None else Look(until(wanted.look, around))
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


async def provisioning(worker: Worker, around: Surroundings) -> Outcome | Look:
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
                return fail(worker, "BootFailed", f"machine {info.id} stopped while it booted: {info.reason}", around)
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
    if info.url is None:
        log.info("the machine runs and has no address yet", extra={"worker": worker.id, "machine": info.id})
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
    for found in await around.provider.find(tags_of(worker)):
        if found.state not in (MachineState.TERMINATING, MachineState.TERMINATED):
            return found
    token = f"{worker.metadata.uid}-{worker.status.launches}"
    tags = tags_of(worker) | pool_tags(around.pool) | {"lablet-pool": worker.spec.pool}
    return await around.provider.launch(around.order(token, tags))


async def starting(worker: Worker, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await gone_of(worker, around)
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
        return fail(worker, "LoginRefused", f"{error}: neither the worker's nor the image's password opens", around)
    return Outcome(
        worker.moved(_P.LICENSING, at=around.now(), by=around.by, reason="RuntimeAnswers", version=info.version)
    )


async def licensing(worker: Worker, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await gone_of(worker, around)
    if gone is not None:
        return gone
    product = PRODUCTS.get(worker.spec.license)
    try:
        state = await around.runtime.license()
        if product is not None and state.registration == _REFUSED:
            return fail(worker, "LicenseRefused", "the licence server refused the registration", around)
        if product is not None and not state.registered:
            if not around.license_token:
                return fail(worker, "LicenseTokenMissing", f"CML_LICENSE_TOKEN is not set: {product} needs it", around)
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
    told = License(status=state.authorization, node_quota=state.node_quota)
    up = worker.moved(
        _P.READY,
        at=now,
        by=around.by,
        reason="InCompliance" if product else "EvaluationLicense",
        license=told,
        last_license=seen(told, now),
        deadline=None,
        scaling=scaling.model_copy(update={"state": "completed", "at": now}) if scaling else None,
        conditions=worker.with_condition("Unknown", False, at=now),
        failures=0,
        retry_at=None,
    )
    return Outcome(up, gate=up.nodes != worker.nodes)


def _password(worker: Worker, around: Surroundings) -> str:
    assert worker.status.credentials is not None
    return around.box.open(worker.status.credentials, f"worker/{worker.id}")
