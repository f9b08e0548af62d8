"""As soon as possible: the first start at which everything fits, boot times counted. (The property is in test_properties.)"""

from __future__ import annotations

import sys

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PoolPolicy,
    Refusal,
    audit,
    earliest,
    place_earliest,
)


def test_a_worker_that_is_off_is_ready_after_boot_and_preparation(worker, request_for):
    calendar = Calendar([PoolPolicy("default", preparation=5)], [worker(boot_minutes=20)])
    assert earliest(calendar, request_for(start=6000, now=6000)) == 6025


def test_a_worker_that_is_on_is_ready_after_the_preparation(worker, request_for):
    calendar = Calendar([PoolPolicy("default", preparation=5)], [worker(boot_minutes=20, on_since=5000)])
    assert earliest(calendar, request_for(start=6000, now=6000)) == 6005


def test_a_worker_that_is_being_booted_for_somebody_else_is_ready_with_it(worker, request_for):
    calendar = Calendar([PoolPolicy("default", preparation=5)], [worker(boot_minutes=20)])
    calendar.book(Booking("r0", 1, "w-1", 6010, 6100, Demand(cpu_cores=1)))
    assert earliest(calendar, request_for(start=6000, now=6000)) == 6010


def test_just_after_midnight_the_boot_of_the_day_before_still_counts(worker, request_for):
    calendar = Calendar([PoolPolicy("default", turnaround=0, grace=0)], [worker(boot_minutes=20)])
    midnight = 5 * 1440
    calendar.book(Booking("r0", 1, "w-1", midnight + 15, midnight + 100, Demand(cpu_cores=1)))
    assert earliest(calendar, request_for(start=midnight + 2, now=midnight + 2)) == midnight + 15


def test_seats_wait_until_enough_of_them_fit_at_the_same_time(worker, request_for):
    calendar = Calendar([PoolPolicy("default")], [worker("w-1"), worker("w-2")])
    calendar.book(Booking("a", 1, "w-1", 6000, 6300, Demand(cpu_cores=7)))
    calendar.book(Booking("b", 1, "w-2", 6100, 6400, Demand(cpu_cores=7)))
    assert earliest(calendar, request_for(start=6000, seats=4)) == 6000
    assert earliest(calendar, request_for(start=6001, seats=4, minutes=99)) == 6001
    assert earliest(calendar, request_for(start=6001, seats=4, minutes=100)) == 6300
    assert earliest(calendar, request_for(start=6001, seats=5, minutes=100)) == 6400


def test_cordons_and_failures_are_waited_for_or_left_out(worker, request_for):
    calendar = Calendar(
        [PoolPolicy("default")],
        [worker("w-1", unschedulable=True, unschedulable_until=6600), worker("w-2", failed=True)],
    )
    assert earliest(calendar, request_for()) == 6600


def test_nothing_within_the_horizon_is_the_refusal_of_the_first_start(worker, request_for):
    calendar = Calendar([PoolPolicy("default")], [worker()])
    calendar.book(Booking("a", 1, "w-1", 6000, 9000, Demand(cpu_cores=8)))
    assert isinstance(place_earliest(calendar, request_for(), horizon=2999), Refusal)
    found = place_earliest(calendar, request_for(), horizon=3000)
    assert isinstance(found, Placement)
    assert (found.request.start, found.request.end) == (9000, 9060)


def test_what_can_never_fit_is_not_searched_for(worker, request_for):
    calendar = Calendar([PoolPolicy("default")], [worker()])
    decision = place_earliest(calendar, request_for(demand=Demand(cpu_cores=9)))
    assert isinstance(decision, Refusal)
    assert decision.permanent


def test_a_year_that_is_full_is_searched_to_its_end(worker, request_for):
    calendar = Calendar([PoolPolicy("default")], [worker()])
    year = 53 * 7 * 1440
    for week in range(53):
        start = 6000 + week * 7 * 1440
        calendar.book(Booking(f"b{week}", 1, "w-1", start, start + 7 * 1440, Demand(cpu_cores=7)))
    assert earliest(calendar, request_for()) == 6000 + year


def test_a_slot_of_the_far_future_is_a_slot_like_any_other(worker, request_for):
    calendar = Calendar([PoolPolicy("default", grace=0)], [worker("w-1"), worker("w-2")])
    far = 2**31 + 6000
    calendar.book(Booking("a", 1, "w-1", far, far + 300, Demand(cpu_cores=7)))
    calendar.book(Booking("b", 1, "w-2", far, far + 400, Demand(cpu_cores=7)))
    assert earliest(calendar, request_for(start=far, seats=4, minutes=100)) == far + 300
    assert earliest(calendar, request_for(start=far, seats=5, minutes=100)) == far + 400
    assert not audit.differs(calendar, "w-1")


def test_where_licences_run_out_a_start_is_tried_only_where_one_is_left(worker, request_for, monkeypatch):
    workers = [worker(f"w-{number}") for number in range(12)]
    calendar = Calendar([PoolPolicy("default", grace=0, licence_limits={"ENTERPRISE": 2})], workers)
    for number in range(60):
        for name in ("w-1", "w-2"):
            start = 6000 + 20 * number + 3 * int(name[-1])
            calendar.book(Booking(f"r{number}", int(name[-1]), name, start, start + 20, Demand(cpu_cores=7)))
    module = sys.modules[earliest.__module__]
    tried, real = [], module.place

    def watched(*arguments):
        tried.append(arguments[1].start)
        return real(*arguments)

    monkeypatch.setattr(module, "place", watched)
    last = max(booking.end for booking in calendar.bookings() if booking.worker == "w-1")
    wanted = request_for(start=6010, minutes=60)
    assert earliest(calendar, wanted) == last
    assert len(tried) < 5
