"""Longer, and too long."""

from __future__ import annotations

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    PoolPolicy,
    extend,
    overrun,
    power_spans,
)

SIX = Demand(cpu_cores=6)


@pytest.fixture
def calendar(worker):
    calendar = Calendar([PoolPolicy("default", turnaround=10)], [worker("w-1"), worker("w-2")])
    calendar.book(Booking("r1", 1, "w-1", 6000, 6060, SIX, started=True))
    calendar.book(Booking("r1", 2, "w-2", 6000, 6060, SIX, started=True))
    calendar.book(Booking("r2", 1, "w-2", 6090, 6150, SIX))
    return calendar


def test_an_extension_that_fits_is_granted_to_all_seats(calendar):
    answer = extend(calendar, "r1", 6090)
    assert answer.granted
    assert [seat.end for seat in answer.bookings] == [6090, 6090]
    assert calendar.of("r1")[0].end == 6060


def test_an_extension_that_does_not_fit_is_answered_with_the_longest_that_would(calendar):
    answer = extend(calendar, "r1", 6200)
    assert not answer.granted
    assert answer.longest == 6090
    assert answer.bookings == calendar.of("r1")
    assert answer.miss is not None
    assert (answer.miss.worker, answer.miss.dimension) == ("w-2", "cpuCores")
    assert "the latest end that fits" in answer.summary


def test_an_extension_keeps_its_port_numbers_or_is_refused(worker):
    calendar = Calendar([PoolPolicy("default", turnaround=10)], [worker()])
    demand = Demand(ports=("a",))
    calendar.book(Booking("r1", 1, "w-1", 6000, 6060, demand, (("a", 2000),)))
    calendar.book(Booking("r2", 1, "w-1", 6100, 6160, demand, (("a", 2000),)))
    assert extend(calendar, "r1", 6120).longest == 6090


def test_an_extension_stops_where_the_licences_run_out(worker):
    policy = PoolPolicy("default", grace=0, licence_limits={"ENTERPRISE": 1})
    calendar = Calendar([policy], [worker("w-1"), worker("w-2")])
    calendar.book(Booking("r1", 1, "w-1", 6000, 6060, SIX))
    calendar.book(Booking("r2", 1, "w-2", 6090, 6160, SIX))
    answer = extend(calendar, "r1", 6120)
    assert answer.longest == 6090
    assert answer.miss is not None
    assert answer.miss.dimension == "licenseCount"


def test_only_a_later_end_is_an_extension_and_only_of_what_is_booked(calendar):
    with pytest.raises(ValueError, match="not later"):
        extend(calendar, "r1", 6060)
    with pytest.raises(LookupError, match="r9"):
        extend(calendar, "r9", 6060)


def test_an_overrun_displaces_who_has_no_room_any_more(calendar):
    result = overrun(calendar, "r1", 2, 6100)
    assert [lost.key for lost in result.displaced] == [("r2", 1)]
    assert len(calendar.of("r2")) == 1, "nothing is changed yet"
    calendar.release("r2")
    calendar.replace(result.booking, check=False)
    assert calendar.booking("r1", 2).until == 6100
    assert power_spans(calendar, "w-2")[-1].end == 6110


def test_an_overrun_that_is_renewed_displaces_all_since_the_end_of_the_slot(calendar):
    calendar.book(Booking("r3", 1, "w-2", 6070, 6080, SIX))
    first = overrun(calendar, "r1", 2, 6092)
    assert [lost.key for lost in first.displaced] == [("r3", 1), ("r2", 1)]
    calendar.replace(first.booking, check=False)
    assert overrun(calendar, "r1", 2, 6094).displaced == first.displaced


def test_an_overrun_that_is_in_nobodys_way_is_told_without_a_copy_of_the_calendar(calendar, monkeypatch):
    monkeypatch.setattr(Calendar, "copy", None)
    assert overrun(calendar, "r1", 1, 6100).displaced == ()


def test_an_overrun_displaces_the_less_urgent_and_only_as_many_as_it_must(worker):
    calendar = Calendar([PoolPolicy("default")], [worker()])
    calendar.book(Booking("late", 1, "w-1", 6000, 6060, Demand(cpu_cores=4), started=True))
    for name, priority in (("low", 0), ("high", 5)):
        calendar.book(Booking(name, 1, "w-1", 6060, 6120, Demand(cpu_cores=4), priority=priority))
    assert [lost.reservation for lost in overrun(calendar, "late", 1, 6070).displaced] == ["low"]


def test_an_overrun_that_keeps_a_counted_licence_displaces_on_other_workers_too(worker):
    policy = PoolPolicy("default", grace=0, licence_limits={"ENTERPRISE": 1})
    calendar = Calendar([policy], [worker("w-1"), worker("w-2")])
    calendar.book(Booking("r1", 1, "w-1", 6000, 6060, SIX, started=True))
    calendar.book(Booking("r2", 1, "w-2", 6060, 6100, SIX))
    assert [lost.reservation for lost in overrun(calendar, "r1", 1, 6061).displaced] == ["r2"]
