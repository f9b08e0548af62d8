"""Whatever happens in whatever order: nothing is ever over-committed, and the same input gives the same output."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lablet_scheduler.engine import (
    Calendar,
    Demand,
    Placement,
    PlacementRequest,
    Span,
    Waiting,
    earliest,
    from_minute,
    kept_for,
    place,
    power_minutes,
    retry,
)

from . import pools

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""A failing history is told as it was found: shortening one takes minutes."""

START = 1440 * 5 - 200
"""Just before midnight, so that slots cross a page."""

fleets = pools.fleets(
    "abcd",
    cores=[2.0, 4.0, 7.5],
    nodes=[None, 5, 20],
    licences=["PERSONAL", "ENTERPRISE"],
    maintenance=[(), (Span(START + 90, START + 130),)],
)
policies = pools.policies([0, 1, 15])
demands = pools.demands([0.0, 0.5, 1.1, 2.0, 4.0], 6)
slots = st.tuples(st.integers(0, 400), st.integers(1, 300))
wishes = st.builds(
    lambda slot, demand, seats, priority: PlacementRequest(
        "r", "p", demand, START + slot[0], START + slot[0] + slot[1], seats=seats, priority=priority
    ),
    slots,
    demands,
    st.integers(1, 4),
    st.integers(0, 2),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleet=fleets, policy=policies, requests=st.lists(wishes, min_size=1, max_size=14))
def test_placements_never_over_commit_and_replay_gives_the_same(judge, fleet, policy, requests):
    def run(views):
        calendar = Calendar([policy], views)
        told = []
        for number, request in enumerate(requests):
            decision = place(calendar, replace(request, reservation=f"r{number}"))
            told.append(decision)
            if isinstance(decision, Placement):
                before = power_minutes(calendar)
                calendar.book_all(decision.bookings())
                added = sum(choice.added_on_minutes for choice in decision.explanation.choices)
                assert power_minutes(calendar) - before == added
        return calendar, told

    calendar, told = run(fleet)
    assert judge.faults([policy], fleet, calendar.bookings()) == []
    on = sum(len(judge.on_minutes(policy, view, calendar.bookings())) for view in fleet)
    assert power_minutes(calendar) == on
    _, again = run(list(reversed(fleet)))
    assert [getattr(one, "seats", None) for one in told] == [getattr(one, "seats", None) for one in again]
    for decision in told:
        assert isinstance(decision, Placement) == (decision.explanation.binding is None)
        assert sum(decision.explanation.removed.values()) <= decision.explanation.considered


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleet=fleets, policy=policies, requests=st.lists(wishes, min_size=1, max_size=10))
def test_what_is_refused_for_lack_of_room_really_has_no_room(judge, fleet, policy, requests):
    policy = replace(policy, licence_limits={})
    roomy = [replace(view, port_end=2050) for view in fleet]
    calendar = Calendar([policy], roomy)
    for number, request in enumerate(requests):
        wanted = replace(request, reservation=f"r{number}")
        decision = place(calendar, wanted)
        assert isinstance(decision, Placement) == judge.fits([policy], roomy, calendar.bookings(), wanted)
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
        elif decision.permanent:
            assert not judge.fits([policy], [replace(view, maintenance=()) for view in roomy], [], wanted)


@settings(max_examples=100, deadline=None)
@given(fleet=fleets, policy=policies, requests=st.lists(wishes, max_size=14), more=st.lists(wishes, max_size=4))
def test_a_calendar_that_is_loaded_is_the_one_that_was_booked(fleet, policy, requests, more):
    booked = Calendar([policy], fleet)
    for number, request in enumerate(requests):
        decision = place(booked, replace(request, reservation=f"r{number}"))
        if isinstance(decision, Placement):
            booked.book_all(decision.bookings())
    loaded = Calendar([policy], fleet)
    assert {*loaded.load(reversed(list(booked.bookings())))} == {one.worker for one in booked.bookings()}
    assert set(loaded.bookings()) == set(booked.bookings())
    assert power_minutes(loaded) == power_minutes(booked)
    for view in fleet:
        column = booked.fleet.columns[view.name]
        one, other = (
            {
                minute: used
                for begin, end, used in calendar.timeline.steps(calendar.fleet.columns[view.name], START, START + 1500)
                for minute in range(begin, end)
            }
            for calendar in (booked, loaded)
        )
        assert one == other
        assert (
            booked.timeline.peaks(START, START + 900, START + 900)[:, column]
            == loaded.timeline.peaks(START, START + 900, START + 900)[:, loaded.fleet.columns[view.name]]
        ).all()
    for number, request in enumerate(more):
        wanted = replace(request, reservation=f"m{number}")
        one, other = place(booked, wanted), place(loaded, wanted)
        assert one == other
        if isinstance(one, Placement):
            booked.book_all(one.bookings())
            loaded.book_all(one.bookings())
    for name in {booking.reservation for booking in list(loaded.bookings())}:
        loaded.release(name)
    assert power_minutes(loaded) == 0


def near_one_time(cores, seats):
    """Wishes for slots that touch, overlap or follow each other closely."""
    return st.builds(
        lambda demand, seats, offset, minutes: PlacementRequest(
            "r", "p", demand, START + offset, START + offset + minutes, seats=seats
        ),
        st.builds(Demand, cpu_cores=st.sampled_from(cores), ports=st.sampled_from([(), ("x",), ("x", "y")])),
        seats,
        st.sampled_from([0, 0, 0, 20, 30, 45, 60]),
        st.sampled_from([60, 60, 60, 20, 90]),
    )


few = near_one_time([0.5, 2.0], st.just(1))
many = near_one_time([2.0, 4.0], st.integers(1, 4))


@settings(max_examples=200, deadline=None, phases=PHASES)
@given(
    fleet=fleets,
    policy=policies,
    booked=st.lists(few, min_size=1, max_size=3),
    waiting=st.lists(many, min_size=1, max_size=4),
    behind=st.lists(few, min_size=4, max_size=12),
)
def test_who_overtakes_leaves_room_for_each_of_those_that_wait(fleet, policy, booked, waiting, behind):
    """Once all that was booked before has gone, each that waits fits beside those who went ahead of it: with their ports,
    and with their licences."""
    calendar = Calendar([policy], fleet)
    for number, request in enumerate(booked):
        decision = place(calendar, replace(request, reservation=f"r{number}"))
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
    line = [
        Waiting(replace(request, reservation=f"w{number}"), requested_at=from_minute(number))
        for number, request in enumerate([*waiting, *behind])
    ]
    results = retry(calendar, line, 0)
    for wanted in (one.waiting.request for one in results if not isinstance(one.decision, Placement)):
        if not isinstance(place(Calendar([policy], fleet), wanted), Placement):
            continue
        after = Calendar([policy], fleet)
        for one in results:
            if isinstance(one.decision, Placement) and wanted.reservation in one.overtook:
                after.book_all(one.decision.bookings())
        assert isinstance(place(after, wanted), Placement), f"{wanted.reservation} is delayed"


def used(bookings, worker, policy, minute):
    """What some bookings use of a worker in a minute: cpu, memory, storage, nodes, ports."""
    mine = [one for one in bookings if one.worker == worker and one.start <= minute]
    running = [one.demand for one in mine if minute < one.end]
    holding = [one.demand for one in mine if minute < one.end + policy.turnaround]
    return (
        sum(need.cpu_cores for need in running),
        sum(need.memory_gb for need in running),
        sum(need.storage_gb for need in running),
        sum(need.nodes for need in holding),
        sum(len(need.ports) for need in holding),
    )


@settings(max_examples=150, deadline=None, phases=PHASES)
@given(
    fleet=fleets,
    policy=policies,
    booked=st.lists(few, min_size=1, max_size=4),
    waiting=st.lists(many, min_size=1, max_size=3),
    which=st.integers(0, 3),
    changed=st.one_of(few, many, wishes),
)
def test_who_is_changed_has_its_own_room_and_no_more_of_what_those_ahead_wait_for(
    fleet, policy, booked, waiting, which, changed
):
    calendar = Calendar([policy], fleet)
    for number, request in enumerate(booked):
        decision = place(calendar, replace(request, reservation=f"r{number}"))
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
    own = calendar.of(f"r{which}")
    line = [
        Waiting(replace(request, reservation=f"w{number}"), requested_at=from_minute(number))
        for number, request in enumerate(waiting)
    ]
    closed, left = kept_for(calendar, line, 0), kept_for(calendar, line, 0, beside=f"r{which}")
    assert left.release(f"r{which}") == own
    left.copy().book_all(own)
    decision = place(left, replace(changed, reservation=f"r{which}"))
    if not isinstance(decision, Placement):
        return
    for worker in {booking.worker for booking in decision.bookings()}:
        column = closed.fleet.columns[worker]
        for begin, end, (*_, kept) in closed.timeline.steps(column, START, START + 1000):
            own_maintenance = any(span.start <= begin < span.end for span in calendar.worker(worker).maintenance)
            if not kept or own_maintenance:
                continue
            for minute in range(begin, end):
                now, before = (used(some, worker, policy, minute) for some in (decision.bookings(), own))
                assert all(one <= other + 1e-6 for one, other in zip(now, before, strict=True))


@settings(max_examples=80, deadline=None)
@given(
    fleet=fleets,
    policy=policies,
    requests=st.lists(wishes, min_size=1, max_size=10),
    wanted=wishes,
    now=st.integers(0, 60),
)
def test_the_earliest_start_is_the_first_that_placing_minute_by_minute_finds(fleet, policy, requests, wanted, now):
    calendar = Calendar([policy], fleet)
    for number, request in enumerate(requests):
        decision = place(calendar, replace(request, reservation=f"r{number}"))
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
    wanted = replace(wanted, reservation="late", start=START, end=START + wanted.minutes, now=START + now)
    horizon = 500
    brute = next(
        (
            at
            for at in range(START + now, START + now + horizon + 1)
            if isinstance(place(calendar, replace(wanted, start=at, end=at + wanted.minutes, punctual=True)), Placement)
        ),
        None,
    )
    assert earliest(calendar, wanted, START, horizon) == brute
