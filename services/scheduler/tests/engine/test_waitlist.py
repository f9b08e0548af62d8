"""Who goes next, and who may go ahead of whom."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PoolPolicy,
    Span,
    Waiting,
    behind,
    kept_for,
    place,
    retry,
    waiting_order,
)


@pytest.fixture
def calendar(worker):
    calendar = Calendar([PoolPolicy("default")], [worker("w-1"), worker("w-2", memory_gb=4)])
    calendar.book(Booking("full", 1, "w-1", 6000, 6060, Demand(cpu_cores=5)))
    return calendar


def at(microseconds: int) -> datetime:
    return datetime(2027, 3, 1, 9, tzinfo=UTC) + timedelta(microseconds=microseconds)


def outcome(results):
    return {one.waiting.request.reservation: isinstance(one.decision, Placement) for one in results}


def test_priority_goes_first_then_the_older_request(calendar, request_for):
    demand = Demand(cpu_cores=8)
    waiting = [
        Waiting(request_for(start=7000, reservation=name, demand=demand, priority=priority), at(requested_at))
        for name, priority, requested_at in (("young", 0, 9), ("old", 0, 3), ("urgent", 1, 8))
    ]
    assert outcome(retry(calendar, waiting, now=5000)) == {"urgent": True, "old": True, "young": False}


def test_of_two_requests_in_the_same_minute_the_earlier_one_is_ahead_whatever_their_names(request_for):
    order = waiting_order(Waiting(request_for(reservation=name), at(when)) for name, when in (("a", 7), ("z", 6)))
    assert [one.request.reservation for one in order] == ["z", "a"]
    tied = waiting_order(Waiting(request_for(reservation=name), at(5)) for name in ("z", "a"))
    assert [one.request.reservation for one in tied] == ["a", "z"]


def test_a_smaller_request_does_not_eat_the_room_that_a_larger_one_waits_for(calendar, request_for):
    large = Waiting(request_for(reservation="large", demand=Demand(8, 8)), at(1))
    small = Waiting(request_for(reservation="small", demand=Demand(2, 8)), at(2))
    assert outcome(retry(calendar, [large, small], now=5000)) == {"large": False, "small": False}
    assert outcome(retry(calendar, [small], now=5000)) == {"small": True}


def test_a_request_that_delays_nobody_ahead_overtakes_and_says_whom(calendar, request_for):
    large = Waiting(request_for(reservation="large", demand=Demand(8, 8)), at(1))
    later = Waiting(request_for(start=6060, reservation="later", demand=Demand(2, 8)), at(2))
    other = Waiting(request_for(reservation="other", demand=Demand(2, 2)), at(3))
    results = retry(calendar, [other, later, large], now=5000)
    assert outcome(results) == {"large": False, "later": True, "other": True}
    assert [one.overtook for one in results] == [(), ("large",), ("large",)]
    assert results[2].decision.seats[0].worker == "w-2"


def test_what_is_in_maintenance_is_not_what_is_kept(worker, request_for):
    away = worker("w-0", maintenance=(Span(5990, 6100),))
    calendar = Calendar([PoolPolicy("default")], [away, worker("w-1")])
    calendar.book(Booking("full", 1, "w-1", 6000, 6060, Demand(cpu_cores=5)))
    large = Waiting(request_for(reservation="large", demand=Demand(8, 8)), at(1))
    small = Waiting(request_for(reservation="small", demand=Demand(2, 8)), at(2))
    assert outcome(retry(calendar, [large, small], now=5000)) == {"large": False, "small": False}


def test_a_licence_that_comes_free_is_for_who_waits_for_it(worker, request_for):
    calendar = Calendar(
        [PoolPolicy("default", licence_limits={"ENTERPRISE": 2})],
        [worker("w-1"), worker("w-2"), worker("w-3", memory_gb=4)],
    )
    calendar.book(Booking("full", 1, "w-1", 6000, 6060, Demand(cpu_cores=8)))
    large = Waiting(request_for(reservation="large", demand=Demand(8, 8), seats=2), at(1))
    small = Waiting(request_for(reservation="small", demand=Demand(2, 2)), at(2))
    later = Waiting(request_for(start=7000, reservation="later", demand=Demand(2, 2)), at(3))
    results = retry(calendar, [large, small, later], now=5000)
    assert outcome(results) == {"large": False, "small": False, "later": True}


def test_where_licences_have_run_out_nobody_behind_keeps_a_worker_on(worker, request_for):
    calendar = Calendar(
        [PoolPolicy("default", licence_limits={"ENTERPRISE": 1})], [worker("w-1"), worker("w-2", memory_gb=4)]
    )
    calendar.book(Booking("full", 1, "w-2", 6000, 6060, Demand(cpu_cores=2)))
    large = Waiting(request_for(reservation="large", demand=Demand(8, 8)), at(1))
    small = Waiting(request_for(reservation="small", demand=Demand(2, 2)), at(2))
    assert outcome(retry(calendar, [large, small], now=5000)) == {"large": False, "small": False}
    assert outcome(retry(calendar, [small], now=5000)) == {"small": True}


def test_what_somebody_ahead_keeps_for_a_part_of_the_slot_is_kept_for_the_rest_of_it_too(calendar, request_for):
    """Only w-1 takes the large ones; the second wants it half an hour longer than the first."""
    wanted = (("first", 6000, Demand(8, 8)), ("second", 6030, Demand(8, 8)), ("small", 6060, Demand(2, 8)))
    line = [
        Waiting(request_for(start, reservation=name, demand=demand), at(since))
        for since, (name, start, demand) in enumerate(wanted)
    ]
    assert outcome(retry(calendar, line, now=5000)) == {"first": False, "second": False, "small": False}
    assert outcome(retry(calendar, [line[0], line[2]], now=5000)) == {"first": False, "small": True}


def half_full(worker, request_for, kinds: list[str], booked: list[str], seats: int, **limits: int):
    """How many of two small ones go ahead of one that wants so many whole workers, of which some are in use."""
    views = [worker(f"w-{number}", licence=kind) for number, kind in enumerate(kinds)]
    calendar = Calendar([PoolPolicy("default", licence_limits=limits)], views)
    for name in booked:
        calendar.book(Booking(f"on {name}", 1, name, 6000, 6060, Demand(cpu_cores=5)))
    large = Waiting(request_for(reservation="large", demand=Demand(8), seats=seats), at(1))
    small = [Waiting(request_for(reservation=f"s{number}", demand=Demand(2)), at(2 + number)) for number in (1, 2)]
    found = outcome(retry(calendar, [large, *small], now=5000))
    assert not found.pop("large")
    return sum(found.values())


def test_a_worker_of_a_kind_that_has_no_licence_is_not_what_is_kept(worker, request_for):
    kinds = ["PERSONAL", "ENTERPRISE", "ENTERPRISE"]
    assert half_full(worker, request_for, kinds, ["w-1", "w-2"], 2, PERSONAL=0) == 0


def test_no_more_workers_of_a_kind_are_kept_than_it_has_licences(worker, request_for):
    """It needs one ENTERPRISE, and both PERSONAL."""
    kinds = ["ENTERPRISE", "ENTERPRISE", "PERSONAL", "PERSONAL"]
    assert half_full(worker, request_for, kinds, ["w-2", "w-3"], 3, ENTERPRISE=1) == 0


def test_where_a_kept_worker_has_no_licence_nobody_rides_along_where_one_is_in_use(worker, request_for):
    """The first two are kept; whoever goes onto the third keeps the licence of one of them in use."""
    assert half_full(worker, request_for, ["ENTERPRISE"] * 3, ["w-1", "w-2"], 2, ENTERPRISE=2) == 0
    assert half_full(worker, request_for, ["ENTERPRISE"] * 3, ["w-1", "w-2"], 2, ENTERPRISE=3) == 1


def test_who_is_changed_keeps_its_own_licence_where_others_wait_for_one(worker, request_for):
    calendar = Calendar([PoolPolicy("default", licence_limits={"ENTERPRISE": 1})], [worker("w-1"), worker("w-2")])
    calendar.book(Booking("mine", 1, "w-1", 6000, 6060, Demand(8)))
    ahead = Waiting(request_for(reservation="ahead", demand=Demand(8)), at(1))
    left = kept_for(calendar, [ahead], 5000, beside="mine")
    left.release("mine")
    assert isinstance(place(left, request_for(reservation="mine", minutes=30, demand=Demand(8))), Placement)
    assert not isinstance(place(left, request_for(reservation="mine", seats=2, demand=Demand(8))), Placement)


def test_who_asks_now_goes_behind_those_who_wait(calendar, request_for):
    large = Waiting(request_for(reservation="large", demand=Demand(8, 8)), at(1))
    wish = request_for(reservation="small", demand=Demand(2, 8))
    free = place(calendar, wish)
    assert isinstance(free, Placement)
    refusal = place(kept_for(calendar, [large], 5000), wish)
    assert not isinstance(refusal, Placement)
    told = behind(free, wish, ahead=2)
    assert (told.permanent, told.explanation.binding) == (False, "waitList")
    assert told.explanation.summary.startswith("There is room for 1 seat, but 2 requests that are ahead wait for it")
    assert sum(told.explanation.removed.values()) == told.explanation.considered
    assert isinstance(place(calendar, wish), Placement), "the calendar is as it was"


def test_each_of_those_ahead_keeps_workers_of_its_own_beside_who_is_changed(worker, request_for):
    calendar = Calendar([PoolPolicy("default")], [worker("w-1"), worker("w-2")])
    calendar.book_all(
        [Booking("mine", 1, "w-1", 6000, 6060, Demand(8)), Booking("other", 1, "w-2", 6030, 6060, Demand(8))]
    )
    ahead = [Waiting(request_for(reservation=name, demand=Demand(8)), at(since)) for since, name in enumerate("ab")]
    wish = request_for(reservation="mine", minutes=30, demand=Demand(8), seats=2)
    free = calendar.copy()
    free.release("mine")
    assert isinstance(place(free, wish), Placement)
    left = kept_for(calendar, ahead, 5000, beside="mine")
    left.release("mine")
    assert not isinstance(place(left, wish), Placement), "the first keeps w-1, and the second w-2"
    assert place(left, request_for(reservation="mine", minutes=30, demand=Demand(8))).seats[0].worker == "w-1"


def test_as_soon_as_possible_may_start_later_but_not_too_late(calendar, request_for):
    wish = request_for(demand=Demand(8, 8))
    (result,) = retry(calendar, [Waiting(wish, at(1), latest_start=6060)], now=5000)
    assert result.decision.request.start == 6060
    (result,) = retry(calendar, [Waiting(wish, at(1), latest_start=6059)], now=5000)
    assert not isinstance(result.decision, Placement)


def test_what_has_begun_is_not_tried_and_the_calendar_stays_as_it_is(calendar, request_for):
    assert retry(calendar, [Waiting(request_for(), at(1))], now=6001) == []
    retry(
        calendar,
        [Waiting(request_for(start=7000), at(1)), Waiting(request_for(reservation="x", demand=Demand(8)), at(2))],
        0,
    )
    assert [booking.reservation for booking in calendar.bookings()] == ["full"]
    assert calendar.timeline.peaks(0, 9000, 9000)[5].max() == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_large_job_is_not_starved_though_only_the_closest_workers_are_kept_for_it(worker, request_for, seed):
    """Small ones come without end and fill whatever they may. What runs on a kept worker ends, nobody new comes onto it, and
    another is kept in its place only where less is lacking: the large one begins when the longest of those that ran when
    it asked has ended, at the latest."""
    rng = random.Random(seed)
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{number}") for number in range(4)])
    small, longest, now, count = Demand(cpu_cores=2), 60, 6000, 0

    def fill(wanted: list[Waiting]) -> bool:
        found = retry(calendar, wanted, now)
        for one in found:
            if isinstance(one.decision, Placement):
                calendar.book_all(one.decision.bookings())
        return isinstance(found[0].decision, Placement)

    def stream(many: int) -> list[Waiting]:
        nonlocal count
        count += many
        lengths = [rng.randint(1, longest) for _ in range(many)]
        return [
            Waiting(request_for(now, minutes, f"s{count}-{n}", demand=small), at(1000 + count + n))
            for n, minutes in enumerate(lengths)
        ]

    fill(stream(16))
    asked = now
    while True:
        for one in [one for one in calendar.bookings() if one.end <= now]:
            calendar.release(one.reservation)
        large = Waiting(request_for(now, longest, "large", demand=Demand(cpu_cores=8), seats=2), at(1))
        if fill([large, *stream(16)]):
            break
        now += 1
        assert now - asked <= longest, "starved"
    assert now > asked, "it had to wait"
