"""Counted licences while a power-on is being written: the calendar moves meanwhile, or no answer comes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lablet_common.process_lab import RUNTIME
from lablet_common.resources.kinds import WORKER
from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_common.store import Compare, Operation, OutcomeUnknown, Put, TxnResult
from lablet_workers.licences import Licences

from .conftest import MORNING
from .test_needs import a_pool, a_worker, at


class SlowWire:
    """The first power-on of a worker stays under way until the test lets it arrive. `answers` False: its writer is told that
    nobody knows what became of it, and of each further try, which gets nowhere."""

    def __init__(self, store: Any, worker: str, *, answers: bool = True) -> None:
        self._txn = store.txn
        self._key = WORKER.key(worker)
        self._answers = answers
        self._let = asyncio.Event()
        self._arrived = False
        self._sent: tuple[Sequence[Compare], Sequence[Operation]] | None = None
        store.txn = self.txn

    @property
    def under_way(self) -> bool:
        return self._sent is not None

    async def txn(self, compares: Sequence[Compare], success: Sequence[Operation], *more: Any) -> TxnResult:
        ours = any(isinstance(op, Put) and op.key == self._key and b'"Provisioning"' in op.value for op in success)
        if not ours or self._arrived or (self.under_way and self._answers):
            return await self._txn(compares, success, *more)
        self._sent = self._sent or (compares, success)
        if not self._answers:
            raise OutcomeUnknown("no answer")
        await self._let.wait()
        return await self._txn(compares, success)

    def let(self) -> None:
        self._let.set()

    async def arrive_late(self) -> TxnResult:
        """What its writer has given up is carried out after all, if it can be."""
        assert self._sent is not None
        result = await self._txn(*self._sent)
        self._arrived = True
        return result


async def powering_on(fresh: Any, *, answers: bool) -> tuple[Any, SlowWire]:
    """A pool with one licence for two workers. The first is needed, and its power-on is under way."""
    fleet = fresh()
    await fleet.seed(allowed_licenses=1)
    await fleet.define()
    await fleet.start()
    wire = SlowWire(fleet.store, "default-001", answers=answers)
    await fleet.book("a", 60, 120)
    while not wire.under_way:
        await fleet.at((fleet.clock.now() - MORNING).total_seconds() / 60 + 1)
    assert [one.phase for one in await both(fleet)] == ["Offline", "Offline"]
    return fleet, wire


async def both(fleet: Any) -> tuple[Any, Any]:
    return await fleet.worker(1), await fleet.worker(2)


async def phases_until(fleet: Any, end: int) -> tuple[str, str]:
    """Both workers' phases in the end. At no time on the way are both on."""
    for minute in range(49, end + 1):
        await fleet.at(minute)
        first, second = await both(fleet)
        assert "Offline" in (first.phase, second.phase), f"at {minute}: {first.phase} and {second.phase}"
    return str(first.phase), str(second.phase)


async def test_nobody_else_is_switched_on_while_a_power_on_takes_the_last_licence(fresh: Any) -> None:
    """The need moves to another worker meanwhile, as in the fault run's seed 82."""
    fleet, wire = await powering_on(fresh, answers=True)
    await fleet.move_seat("a", "default-002")
    other = await fleet.worker(2)
    assert (other.phase, other.status.scaling.direction, other.status.scaling.rule) == ("Offline", "held", "licenses")
    wire.let()
    assert await phases_until(fleet, 75) == ("Offline", "Ready"), "who is needed has the licence once the other is off"


async def test_a_power_on_that_nobody_knows_of_keeps_its_licence_until_its_record_is_written_over(fresh: Any) -> None:
    fleet, wire = await powering_on(fresh, answers=False)
    await fleet.move_seat("a", "default-002")
    assert await phases_until(fleet, 75) == ("Offline", "Ready")
    assert (await wire.arrive_late()).succeeded is False, "the one that was given up cannot happen any more"


async def test_a_power_on_that_nobody_knows_of_and_that_happened_counts(fresh: Any) -> None:
    fleet, wire = await powering_on(fresh, answers=False)
    assert (await wire.arrive_late()).succeeded
    await fleet.move_seat("a", "default-002")
    assert await phases_until(fleet, 75) == ("Offline", "Ready")


def claims(licences: Licences, worker: Worker, allowed: int | None, *others: Worker) -> bool:
    on = worker.moved(WorkerPhase.PROVISIONING, at=at(0), by="test", reason="PowerOn")
    return licences.claim(worker, on, a_pool(allowed_licenses=allowed), [worker, *others])


@pytest.mark.parametrize("phase", [phase for phase in WorkerPhase if phase is not WorkerPhase.OFFLINE])
def test_whoever_is_not_off_has_a_licence(phase: WorkerPhase) -> None:
    one, other = a_worker("p-001", phase), a_worker("p-002")
    assert not claims(Licences(), other, 1, one)
    assert claims(Licences(), other, 2, one)
    assert claims(Licences(), other, None, one), "a pool that counts none"


def test_a_power_on_counts_until_its_record_is_another() -> None:
    licences, one, other = Licences(), a_worker("p-001").at_revision(7), a_worker("p-002").at_revision(8)
    assert claims(licences, one, 1, other)
    assert claims(licences, one, 1, other), "its own next try"
    assert licences.in_doubt(one)
    assert not claims(licences, other, 1, one)
    assert not licences.in_doubt(other), "who was refused has written nothing"
    newer = one.at_revision(9)
    assert not licences.in_doubt(newer)
    assert claims(licences, other, 1, newer)


def test_agents_hosts_take_no_licence_and_need_none() -> None:
    host = a_worker("p-001", WorkerPhase.READY, runtime=RUNTIME)
    assert claims(Licences(), a_worker("p-002"), 1, host)
    assert claims(Licences(), a_worker("p-003", runtime=RUNTIME), 0)


def test_only_power_ons_are_counted() -> None:
    worker = a_worker("p-001", WorkerPhase.READY)
    going = worker.moved(WorkerPhase.DRAINING, at=at(0), by="test", reason="PowerOff")
    assert Licences().claim(worker, going, a_pool(allowed_licenses=0), [worker])
