"""Replanning for fewer worker-hours: what it may move, what it saves, and that nothing is ever over-committed."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Conflict,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Span,
    WorkerView,
    optimise,
    place,
    power_minutes,
)

from .pools import NOW, a_day

HALF = Demand(cpu_cores=4)
POLICY = PoolPolicy("default", grace=0)


def load(seed: int, **policy: object) -> tuple[PoolPolicy, list[WorkerView], Calendar]:
    """A day's requests placed one by one."""
    pool, workers, wanted = a_day(random.Random(seed), 14, **policy)
    calendar = Calendar([pool], workers)
    for request in wanted:
        decision = place(calendar, request)
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings())
    return pool, workers, calendar


def test_two_half_full_workers_become_one_and_the_saving_is_what_the_power_says(wasteful):
    found = optimise(wasteful, "default", NOW, seed=1)
    assert (found.minutes_before, found.minutes_after, found.saved_minutes) == (160, 80, 80)
    assert len(found.moves) == 1
    assert found.proven
    before = power_minutes(wasteful)
    found.apply(wasteful)
    assert before - power_minutes(wasteful) == found.saved_minutes
    assert wasteful.booking("a", 1).worker == wasteful.booking("b", 1).worker


def test_a_dry_run_leaves_the_calendar_as_it_is(wasteful):
    before = sorted(wasteful.bookings(), key=lambda one: one.key)
    optimise(wasteful, "default", NOW, seed=1)
    assert sorted(wasteful.bookings(), key=lambda one: one.key) == before


def test_a_plan_is_carried_out_wholly_or_not_at_all(wasteful):
    wasteful.book(Booking("c", 1, "w-1", 7000, 7060, HALF))
    wasteful.book(Booking("d", 1, "w-2", 7000, 7060, HALF))
    found = optimise(wasteful, "default", NOW, seed=1)
    assert len(found.moves) == 2
    target = found.moves[1].after.worker
    wasteful.book(Booking("late", 1, target, 7000, 7060, HALF))
    with pytest.raises(Conflict):
        found.apply(wasteful)
    assert {one.reservation: one.worker for one in wasteful.bookings() if one.reservation != "late"} == {
        "a": "w-1",
        "b": "w-2",
        "c": "w-1",
        "d": "w-2",
    }


def test_a_plan_is_refused_when_a_seat_that_it_moves_has_changed_meanwhile(wasteful):
    found = optimise(wasteful, "default", NOW, seed=1)
    (step,) = found.moves
    wasteful.replace(replace(step.before, started=True))
    with pytest.raises(Conflict):
        found.apply(wasteful)
    assert wasteful.booking(*step.before.key).worker == step.before.worker


def test_what_has_started_stays(wasteful):
    for name in ("a", "b"):
        wasteful.replace(replace(wasteful.booking(name, 1), started=True))
    assert optimise(wasteful, "default", NOW, seed=1).moves == ()


def test_what_starts_before_a_worker_could_boot_stays(wasteful):
    assert optimise(wasteful, "default", 5981, seed=1).moves == ()
    assert len(optimise(wasteful, "default", 5980, seed=1).moves) == 1


@pytest.mark.parametrize(
    "change",
    [{"unschedulable": True}, {"failed": True}, {"maintenance": (Span(6010, 6020),)}, {"labels": {"room": "2"}}],
    ids=lambda change: next(iter(change)),
)
def test_a_worker_that_would_not_be_given_the_seat_today_gets_none(worker, change):
    picky = replace(HALF, selector=(("room", "1"),))
    target = worker("w-2", **({"labels": {"room": "1"}} | change))
    calendar = Calendar([POLICY], [worker("w-1", labels={"room": "1"}), target])
    calendar.book(Booking("a", 1, "w-1", 6000, 6060, picky))
    calendar.book(Booking("b", 1, "w-2", 6000, 6120, HALF, started=True), check=False)
    assert optimise(calendar, "default", NOW, seed=1).moves == ()
    calendar.put_worker(worker("w-2", labels={"room": "1"}))
    assert len(optimise(calendar, "default", NOW, seed=1).moves) == 1


def test_the_seats_of_one_reservation_may_part(worker):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2"), worker("w-3")])
    calendar.book_all(Booking("pair", seat, "w-3", 6000, 6060, HALF) for seat in (1, 2))
    for name in ("w-1", "w-2"):
        calendar.book(Booking(f"on {name}", 1, name, 6000, 6060, HALF, started=True))
    found = optimise(calendar, "default", NOW, seed=1)
    assert sorted(step.after.worker for step in found.moves) == ["w-1", "w-2"]
    assert found.saved_minutes == 60


def test_other_pools_are_left_alone(worker):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2"), worker("x-1", pool="x"), worker("x-2", pool="x")])
    for name in ("w-1", "w-2", "x-1", "x-2"):
        calendar.book(Booking(name, 1, name, 6000, 6060, HALF))
    found = optimise(calendar, "default", NOW, seed=1)
    assert found.minutes_before == 120
    assert {step.before.worker[0] for step in found.moves} == {"w"}


@pytest.mark.parametrize("most", [0, 1, 2, 4])
def test_no_more_seats_move_than_the_cap_and_the_moves_that_save_most_go_first(worker, most):
    calendar = Calendar([POLICY], [worker(f"w-{i}") for i in range(1, 7)])
    for number, minutes in enumerate((15, 30, 60, 120), start=1):
        start = 6000 + 1000 * number
        calendar.book(Booking(f"fixed{number}", 1, "w-1", start, start + minutes, HALF, started=True))
        calendar.book(Booking(f"free{number}", 1, f"w-{number + 1}", start, start + minutes, HALF))
    found = optimise(calendar, "default", NOW, seed=1, max_moves=most, budget=20_000)
    assert len(found.moves) == most
    assert found.saved_minutes == sum((120, 60, 30, 15)[:most])


def test_the_same_seed_gives_the_same_plan():
    _, _, calendar = load(4)
    once, again = (optimise(calendar, "default", NOW, seed=7, budget=30_000) for _ in range(2))
    assert once == again
    assert once.moves


def test_the_work_stays_within_the_budget_and_ends_when_time_has_expired():
    _, _, calendar = load(3)
    assert optimise(calendar, "default", NOW, seed=7, budget=5_000).steps < 10_000
    looks = iter([False] * 5)
    assert optimise(calendar, "default", NOW, seed=7, expired=lambda: next(looks, True)).steps < 1_000


@pytest.mark.parametrize("seed", range(12))
def test_no_plan_over_commits_a_worker_a_port_or_a_licence(judge, seed):
    limits = {"licence_limits": {"ENTERPRISE": 3}} if seed % 2 else {}
    policy, workers, calendar = load(seed, **limits)
    before = list(calendar.bookings())
    found = optimise(calendar, "default", NOW, seed=seed, budget=20_000)
    found.apply(calendar)
    after = list(calendar.bookings())
    assert judge.faults([policy], workers, after) == []
    assert sorted((b.key, b.start, b.end) for b in before) == sorted((b.key, b.start, b.end) for b in after)
    assert power_minutes(calendar) == found.minutes_after <= found.minutes_before


@pytest.mark.parametrize("seed", range(8))
def test_what_is_proven_is_what_trying_everything_finds(judge, seed):
    rng = random.Random(seed)
    policy = PoolPolicy("default", turnaround=5, grace=rng.choice((0, 40)))
    workers = [WorkerView(f"w-{i}", "default", 8, 64, 100, boot_minutes=20) for i in range(3)]
    calendar = Calendar([policy], workers)
    for number in range(6):
        start = 6000 + rng.randrange(0, 200, 10)
        demand = Demand(rng.choice((2, 4)))
        request = PlacementRequest(f"r{number}", "default", demand, start, start + rng.choice((30, 80)), now=NOW)
        decision = place(calendar, request)
        assert isinstance(decision, Placement)
        calendar.book_all(decision.bookings())
    found = optimise(calendar, "default", NOW, seed=1)
    booked = list(calendar.bookings())
    prices = []
    for names in product([worker.name for worker in workers], repeat=len(booked)):
        trial = [replace(one, worker=name) for one, name in zip(booked, names, strict=True)]
        # the first seat may as well be on the first worker: all are alike
        if names[0] == "w-0" and not judge.faults([policy], workers, trial):
            prices.append(sum(len(judge.on_minutes(policy, worker, trial)) for worker in workers))
    assert found.proven
    assert found.minutes_after == min(prices)


def test_seats_that_are_over_the_limit_already_do_not_stop_the_others(worker):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2"), worker("w-3")])
    for number in range(3):
        calendar.book(Booking(f"fact{number}", 1, "w-1", 6000, 6060, HALF, started=True), check=False)
    calendar.book(Booking("a", 1, "w-2", 7000, 7060, HALF))
    calendar.book(Booking("b", 1, "w-3", 7000, 7060, HALF))
    found = optimise(calendar, "default", NOW, seed=1)
    assert found.saved_minutes == 60
    found.apply(calendar)


def test_scattered_port_numbers_are_never_handed_out_twice(worker, judge):
    views = [worker(f"w-{i}", port_start=2000, port_end=2001) for i in (1, 2)]
    calendar = Calendar([POLICY], views)
    need = replace(HALF, cpu_cores=1, ports=("console",))
    # on w-1 one of the two numbers is free at each instant, but not the same one for a whole hour
    calendar.book(Booking("x", 1, "w-1", 6000, 6030, need, ports=(("console", 2000),), started=True))
    calendar.book(Booking("y", 1, "w-1", 6030, 6060, need, ports=(("console", 2001),), started=True))
    calendar.book(Booking("z", 1, "w-2", 6000, 6060, need, ports=(("console", 2000),)))
    found = optimise(calendar, "default", NOW, seed=1)
    assert found.moves == ()
    assert found.saved_minutes == 0


def test_four_seats_go_to_the_one_worker_that_holds_them_all(worker, put):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2", cpu_cores=16)])
    placed = put(calendar, seats=4, demand=HALF)
    assert {seat.worker for seat in placed.seats} == {"w-2"}


def test_of_two_empty_workers_the_larger_one_is_switched_on(worker, put):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2", cpu_cores=16, memory_gb=64)])
    assert put(calendar, demand=HALF).seats[0].worker == "w-2"
    calendar.book(Booking("on", 1, "w-1", 9000, 9100, HALF))
    assert put(calendar, start=9000, reservation="r2", demand=HALF).seats[0].worker == "w-1"
