"""Choosing: all seats or none, the cheapest worker first, ports and turnaround, and what may be asked."""

from __future__ import annotations

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Conflict,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Refusal,
    Spreading,
    earliest,
    place,
    place_earliest,
)
from lablet_scheduler.engine.timeline import Timeline


def calendar_of(worker, count=3, policy=None, **changes):
    return Calendar(
        [policy or PoolPolicy("default", turnaround=10)], [worker(f"w-{i}", **changes) for i in range(1, count + 1)]
    )


def test_seats_are_spread_over_as_many_workers_as_they_need(worker, put):
    placed = put(calendar_of(worker), seats=10)
    assert [seat.worker for seat in placed.seats] == ["w-1"] * 4 + ["w-2"] * 4 + ["w-3"] * 2


def test_all_seats_or_none_are_placed(worker, put, refused):
    calendar = calendar_of(worker)
    put(calendar, reservation="first", seats=3)
    refusal = refused(calendar, seats=10)
    assert not refusal.permanent
    assert refusal.explanation.seats_fitting == 9
    assert calendar.of("r1") == ()


def test_the_hundredth_seat_is_a_seat_and_the_next_is_not(worker, request_for):
    calendar = calendar_of(worker, 25)
    placed = place(calendar, request_for(seats=100))
    assert isinstance(placed, Placement)
    assert len(placed.seats) == 100
    with pytest.raises(ValueError, match="101 seats"):
        request_for(seats=101)


def test_a_worker_that_is_on_anyway_is_cheaper_than_a_fuller_one_that_has_to_boot(worker, put):
    calendar = calendar_of(worker, boot_minutes=20)
    calendar.book(Booking("on", 1, "w-3", 5900, 6000, Demand(cpu_cores=1)))
    assert put(calendar).seats[0].worker == "w-3"


def test_among_workers_that_are_on_the_fuller_one_is_taken_then_the_lower_name(worker, put):
    calendar = calendar_of(worker)
    for name, cores in (("w-2", 1), ("w-3", 4)):
        calendar.book(Booking(f"on-{name}", 1, name, 5900, 6200, Demand(cpu_cores=cores)))
    assert put(calendar).seats[0].worker == "w-3"
    assert put(calendar, reservation="r2", start=9000).seats[0].worker == "w-1"


def test_the_added_minutes_count_boot_and_the_rest_through_which_a_worker_stays_on(worker, put):
    policy = PoolPolicy("default", turnaround=10, grace=30, preparation=5)
    calendar = calendar_of(worker, 1, policy, boot_minutes=20)
    assert put(calendar, reservation="a", start=6000).explanation.choices[0].added_on_minutes == 25 + 60 + 10
    assert put(calendar, reservation="b", start=6100).explanation.choices[0].added_on_minutes == 30 + 70
    assert put(calendar, reservation="c", start=6201).explanation.choices[0].added_on_minutes == 25 + 70
    assert put(calendar, reservation="d", start=6171, minutes=10).explanation.choices[0].added_on_minutes == 6


def test_a_pool_may_spread_instead_of_pack(worker, put):
    policy = PoolPolicy("default", spreading=Spreading.SPREAD)
    placed = put(calendar_of(worker, 3, policy), seats=6)
    assert sorted(seat.worker for seat in placed.seats) == ["w-1", "w-1", "w-2", "w-2", "w-3", "w-3"]


def test_a_worker_that_will_be_ready_in_time_goes_before_one_that_is_cheaper_but_late(worker, put):
    calendar = Calendar(
        [PoolPolicy("default")],
        [worker("w-1", boot_minutes=20), worker("w-2", boot_minutes=20, on_since=5900, on_until=5990)],
    )
    assert put(calendar, start=6000, now=5985).seats[0].worker == "w-2"


def test_ports_are_the_lowest_free_ones_and_named_in_order(worker, put):
    calendar = calendar_of(worker, 1)
    demand = Demand(ports=("b", "a"))
    placed = put(calendar, seats=2, demand=demand)
    assert [seat.ports for seat in placed.seats] == [(("b", 2000), ("a", 2001)), (("b", 2002), ("a", 2003))]
    calendar.release("r1", 1)
    assert put(calendar, reservation="r2", demand=demand).seats[0].ports == (("b", 2000), ("a", 2001))


def test_a_port_is_used_again_only_after_the_turnaround(worker, put):
    calendar = calendar_of(worker, 1)
    demand = Demand(ports=("a",))
    put(calendar, reservation="r1", start=6000, demand=demand)
    assert put(calendar, reservation="r2", start=6069, demand=demand).seats[0].ports == (("a", 2001),)
    assert put(calendar, reservation="r3", start=6070, minutes=5, demand=demand).seats[0].ports == (("a", 2000),)


def test_the_turnaround_separates_slots_on_the_licence_but_not_on_cpu(worker, put, refused):
    calendar = calendar_of(worker, 1, max_nodes=20)
    put(calendar, reservation="r1", start=6000, demand=Demand(cpu_cores=8, nodes=12))
    assert refused(calendar, start=6060, demand=Demand(nodes=9)).explanation.binding == "nodeCount"
    put(calendar, reservation="r2", start=6070, demand=Demand(nodes=9))
    put(calendar, reservation="r3", start=6060, minutes=5, demand=Demand(cpu_cores=8))


def test_a_second_pass_finds_the_placement_that_needs_fewest_licences(worker, put):
    policy = PoolPolicy("default", licence_limits={"ENTERPRISE": 1})
    small, large = worker("a-small", cpu_cores=2), worker("b-large", cpu_cores=8)
    calendar = Calendar([policy], [small, large])
    assert {seat.worker for seat in put(calendar, seats=4).seats} == {"b-large"}


def test_a_pool_whose_licences_could_never_carry_the_seats_refuses_for_ever(worker, refused):
    policy = PoolPolicy("default", licence_limits={"ENTERPRISE": 1})
    assert refused(calendar_of(worker, 3, policy), seats=5).permanent


def test_fractions_add_up_exactly(worker, put, refused):
    calendar = calendar_of(worker, 1, cpu_cores=0.3, memory_gb=1)
    put(calendar, seats=3, demand=Demand(cpu_cores=0.1))
    assert refused(calendar, reservation="r2", demand=Demand(cpu_cores=0.001)).explanation.binding == "cpuCores"


def test_a_refusal_says_who_removed_whom_what_is_short_and_when_it_would_fit(worker, put, refused):
    calendar = Calendar(
        [PoolPolicy("default", turnaround=10)],
        [worker("w-1"), worker("w-2", licence="PERSONAL"), worker("w-3", failed=True), worker("w-4", memory_gb=2)],
    )
    put(calendar, reservation="first", demand=Demand(cpu_cores=7, memory_gb=4, licences=frozenset({"ENTERPRISE"})))
    refusal = refused(calendar, demand=Demand(2, 4, licences=frozenset({"ENTERPRISE"})))
    told = refusal.explanation
    assert told.removed == {"license": 1, "failed": 1, "size": 1, "capacity": 1}
    assert told.considered == 4
    assert told.binding == "cpuCores"
    assert told.nearest is not None
    assert (told.nearest.worker, told.nearest.needed, told.nearest.free) == ("w-1", 2, 1)
    assert earliest(calendar, refusal.request) == 6060
    for part in ("1 with a licence kind", "CPU cores", "w-1 has 1 of the 2"):
        assert part in told.summary


def test_a_placement_says_why_this_worker(worker, request_for):
    calendar = calendar_of(worker, 3, boot_minutes=20)
    calendar.book(Booking("on", 1, "w-2", 5900, 6200, Demand(cpu_cores=4)))
    told = place(calendar, request_for()).explanation
    assert told.binding is None
    assert told.feasible == 3
    assert told.choices[0].worker == "w-2"
    assert "w-2 takes seat 1: it is on anyway" in told.summary


def test_booking_what_does_not_fit_is_a_conflict_and_changes_nothing(worker):
    calendar = calendar_of(worker, 1)
    calendar.book(Booking("r1", 1, "w-1", 6000, 6060, Demand(cpu_cores=6)))
    too_much = [
        Booking("r2", 1, "w-1", 6000, 6060, Demand(cpu_cores=2)),
        Booking("r2", 2, "w-1", 6000, 6060, Demand(cpu_cores=1)),
    ]
    with pytest.raises(Conflict, match="cpuCores needs 1, free 0"):
        calendar.book_all(too_much)
    assert calendar.of("r2") == ()
    calendar.book(too_much[0])
    with pytest.raises(ValueError, match="booked already"):
        calendar.book(too_much[0])


def test_a_port_that_somebody_holds_is_a_conflict(worker):
    calendar = calendar_of(worker, 1)
    calendar.book(Booking("r1", 1, "w-1", 6000, 6060, Demand(ports=("a",)), (("a", 2000),)))
    with pytest.raises(Conflict, match="ports"):
        calendar.book(Booking("r2", 1, "w-1", 6065, 6090, Demand(ports=("a",)), (("a", 2000),)))
    with pytest.raises(Conflict, match="ports"):
        calendar.book(Booking("r2", 1, "w-1", 6000, 6090, Demand(ports=("a",)), (("a", 1999),)))


def test_a_copy_and_its_original_do_not_see_each_other(worker, put, request_for):
    calendar = calendar_of(worker, 1)
    put(calendar, reservation="both", seats=1)
    twin = calendar.copy()
    put(twin, reservation="twin", seats=3)
    assert isinstance(place(twin, request_for()), Refusal)
    assert isinstance(place(calendar, request_for(seats=3)), Placement)
    calendar.release("both")
    assert isinstance(place(calendar, request_for(seats=4)), Placement)
    assert twin.booking("both", 1) is not None
    twin.release("both")
    assert calendar.duties("w-1") == []


def test_workers_come_and_go(worker, put, request_for):
    calendar = calendar_of(worker, 1)
    for number in range(2, 40):
        calendar.put_worker(worker(f"w-{number}"))
    assert len(put(calendar, seats=100).explanation.choices) == 25
    with pytest.raises(ValueError, match="still has bookings"):
        calendar.remove_worker("w-1")
    calendar.release("r1")
    for number in range(1, 39):
        calendar.remove_worker(f"w-{number}")
    calendar.put_worker(worker("new", cpu_cores=4))
    decision = place(calendar, request_for(seats=6))
    assert isinstance(decision, Placement)
    assert {seat.worker for seat in decision.seats} == {"w-39", "new"}


def test_a_changed_worker_and_a_changed_policy_take_their_bookings_along(worker, put, request_for, judge):
    calendar = calendar_of(worker, 2)
    put(calendar, seats=6)
    calendar.put_worker(worker("w-1", cpu_cores=16, boot_minutes=45, maintenance=()))
    policy = PoolPolicy("default", turnaround=25, grace=90, preparation=3)
    calendar.put_policy(policy)
    assert judge.faults([policy], calendar.workers(), calendar.bookings()) == []
    decision = place(calendar, request_for(start=6080, reservation="r2"))
    assert isinstance(decision, Placement)
    assert decision.explanation.choices[0].added_on_minutes == 80
    calendar.release("r1")
    assert calendar.timeline.peaks(0, 10_000, 10_000).max() == 0


def test_memory_follows_the_bookings_and_not_the_horizon(worker, put):
    calendar = calendar_of(worker, 2)
    for week in range(60):
        put(calendar, reservation=f"r{week}", start=6000 + week * 7 * 1440)
    days = [page for _, page in calendar.timeline.days(0, 6000 + 60 * 7 * 1440) if page is not None]
    assert len(days) == 60
    calendar.forget(6000 + 30 * 7 * 1440)
    days = [page for _, page in calendar.timeline.days(0, 6000 + 60 * 7 * 1440) if page is not None]
    assert len(days) == 30


def test_a_slot_that_is_too_long_is_refused_without_a_look_at_its_days(worker, monkeypatch):
    calendar = Calendar([PoolPolicy("default")], [worker("w-1"), worker("w-2")])
    days, window = [], Timeline.window

    def watched(timeline, start, soft_end, end):
        days.append((end - start) // 1440)
        return window(timeline, start, soft_end, end)

    monkeypatch.setattr(Timeline, "window", watched)
    wanted = PlacementRequest("r1", "default", Demand(cpu_cores=1), 6000, 6000 + 3_000_000_000, max_minutes=1440)
    for answer in (place(calendar, wanted), place_earliest(calendar, wanted)):
        assert (answer.permanent, answer.explanation.binding, answer.explanation.considered) == (True, "duration", 2)
    assert not days
