"""Lost workers and maintenance: only what is touched moves, the soonest first, and what cannot is told."""

from __future__ import annotations

import pytest

from lablet_scheduler.engine import Booking, Calendar, Conflict, Demand, PoolPolicy, Span, heal, vacate

FOUR = Demand(cpu_cores=4)


@pytest.fixture
def calendar(worker):
    calendar = Calendar([PoolPolicy("default")], [worker("w-1"), worker("w-2", cpu_cores=4)])
    calendar.book(Booking("later", 1, "w-1", 6300, 6400, FOUR, priority=9))
    calendar.book(Booking("running", 1, "w-1", 5900, 6100, FOUR, started=True))
    calendar.book(Booking("soon", 1, "w-1", 6000, 6100, FOUR))
    calendar.book(Booking("over", 1, "w-1", 5000, 5100, FOUR))
    calendar.book(Booking("elsewhere", 1, "w-2", 6500, 6600, FOUR))
    return calendar


def test_the_seats_of_a_lost_worker_move_the_soonest_first_and_the_rest_is_listed(calendar):
    plan = heal(calendar, ["w-1"], now=5950)
    assert [step.before.reservation for step in plan.moves] == ["running", "later"]
    assert [one.booking.reservation for one in plan.stuck] == ["soon"]
    assert "CPU cores" in plan.stuck[0].reason
    running = plan.moves[0].after
    assert (running.worker, running.start, running.end, running.started) == ("w-2", 5950, 6100, False)


def test_a_plan_changes_the_calendar_only_when_it_is_applied_and_then_as_a_whole(calendar):
    plan = heal(calendar, ["w-1"], now=5950)
    assert calendar.booking("later", 1).worker == "w-1"
    calendar.book(Booking("quick", 1, "w-2", 6300, 6310, FOUR))
    with pytest.raises(Conflict):
        plan.apply(calendar)
    assert calendar.booking("running", 1).worker == "w-1"
    calendar.release("quick")
    plan.apply(calendar)
    assert {name: calendar.booking(name, 1).worker for name in ("running", "soon", "later", "elsewhere")} == {
        "running": "w-2",
        "soon": "w-1",
        "later": "w-2",
        "elsewhere": "w-2",
    }


def test_a_maintenance_span_moves_what_it_touches_but_not_what_runs(calendar):
    plan = vacate(calendar, "w-1", Span(6050, 6200), now=5950)
    assert [step.before.reservation for step in plan.moves] == ["soon"]
    assert [one.booking.reservation for one in plan.stuck] == ["running"]
