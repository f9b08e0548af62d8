"""The calendar is compared with what is stored, and with itself: what differs is named, counted and made right."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.quotas import Ledger, Limits, Quota
from lablet_common.resources.kinds import ledger_key, quota_key
from lablet_common.resources.worker import Capacity
from lablet_common.telemetry.metrics import CALENDAR_DIFFERENCES
from lablet_scheduler.engine import Booking, Demand
from lablet_scheduler.review import Review


def counted(what: str) -> float:
    return CALENDAR_DIFFERENCES.labels("default", what)._value.get()


async def looked_over(world: Any) -> None:
    """A round of looking at everything, and the review behind it."""
    owner, _ = world.owners["default"]
    owner._agenda.look_at_everything()
    at = owner._agenda.resync_at
    owner.wake()
    while owner._reviewed != at or owner._review.open:
        await asyncio.sleep(0.001)
        if owner._agenda.resync_at != at:
            break  # the calendar was built anew
    await world.settle()


@pytest.fixture
async def booked(world: Any) -> Any:
    """Two reservations on two workers, with a counted licence each and limits."""
    await world.pool(allowed_licenses=2, turnaround_minutes=10)
    await world.definition()
    limits = Quota(tenant=Limits(open_seats=100))
    await world.store.put(quota_key("default"), limits.to_json())
    await world.own()
    world.one = await world.ask(seats=2)
    world.other = await world.ask(600, 700, seats=3)
    await world.settle()
    await looked_over(world)
    return world


def release(world: Any, calendar: Any) -> None:
    calendar.release(world.one, 1)


def invent(_: Any, calendar: Any) -> None:
    calendar.book(Booking("rsv-nobody", 1, "default-001", 29_000_000, 29_000_060, Demand(cpu_cores=1)))


def use(_: Any, calendar: Any) -> None:
    calendar.timeline.add(0, 29_000_000, 29_000_060, 29_000_060, (1000, 0, 0, 0, 0, 0))


def stretch(_: Any, calendar: Any) -> None:
    lane = calendar._own("default-001")
    lane.duties[0] = lane.duties[0]._replace(end=lane.duties[0].end + 1)


def count(_: Any, calendar: Any) -> None:
    calendar._ledgers["default", "ENTERPRISE"].add(calendar.duties("default-001"))


@pytest.mark.parametrize(
    ("harm", "what"),
    [(release, "bookings"), (invent, "bookings"), (use, "worker"), (stretch, "worker"), (count, "licences")],
)
async def test_a_calendar_that_is_not_what_is_stored_is_named_counted_and_built_anew(
    booked: Any, caplog: pytest.LogCaptureFixture, harm: Callable[[Any, Any], None], what: str
) -> None:
    owner, _ = booked.owners["default"]
    before, state = counted(what), owner.state
    harm(booked, owner.state.calendar)
    with caplog.at_level(logging.ERROR):
        await looked_over(booked)
    assert counted(what) > before
    told = next(record for record in caplog.records if getattr(record, "what", None) == what)
    assert told.names[0] in {booked.one, "rsv-nobody", "default-001", "default-002", "ENTERPRISE"}
    assert owner.state is not state, "it was built anew"
    assert set(owner.state.calendar.bookings()) == booked.rebuilt(owner)
    again = counted(what)
    await looked_over(booked)
    assert counted(what) == again, "and is as it ought to be"


async def test_a_resource_that_was_missed_is_found(booked: Any) -> None:
    owner, _ = booked.owners["default"]
    owner.state.remove_reservation(booked.one)
    owner.state.workers["default-002"] = owner.state.workers["default-002"].at_revision(1)
    before = counted("missed")
    await looked_over(booked)
    assert counted("missed") >= before + 1
    assert booked.one in owner.state.reservations
    assert set(owner.state.calendar.bookings()) == booked.rebuilt(owner)


async def test_a_ledger_that_is_not_the_sum_of_what_is_open_is_told(booked: Any, caplog: Any) -> None:
    kept = await booked.store.get(ledger_key("default"))
    right = json.loads(kept.value)
    wrong = Ledger.model_validate_json(kept.value)
    (owner_name,) = wrong.owners
    usage = wrong.owners[owner_name]
    wrong = Ledger(owners={owner_name: usage.model_copy(update={"seats": usage.seats + 1})})
    await booked.store.put(ledger_key("default"), wrong.to_json())
    before = counted("ledger")
    await looked_over(booked)
    assert counted("ledger") == before + 1
    await booked.store.put(ledger_key("default"), json.dumps(right).encode())
    await looked_over(booked)
    assert counted("ledger") == before + 1


async def test_more_than_a_worker_has_is_told_where_nobody_knows(booked: Any) -> None:
    before = counted("over")
    await booked.set_worker("default-001", capacity=Capacity(cpu_cores=4, memory_gb=32, storage_gb=1000))
    await booked.settle()
    await looked_over(booked)
    assert counted("over") == before + 1


async def test_a_review_rests_and_gives_way_to_who_asks(booked: Any) -> None:
    owner, _ = booked.owners["default"]
    review = Review(booked.caches, owner._agenda, owner._writer.accounts, booked.clock)
    review.begin()
    steps = 0
    while review.open:
        assert not review.go_on(seconds=1e-9), "a slice is one step at the least"
        steps += 1
    assert steps > 2 * len(owner.state.reservations) + len(owner.state.workers)


async def test_a_new_owner_compares_what_it_has_built(booked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(Review, "begin", lambda review: begun.append(review))
    await booked.own(replica="two")
    await booked.settle()
    assert begun
