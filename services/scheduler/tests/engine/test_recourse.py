"""Bounded recourse: a few seats move after others have come or gone, never without saving power, never for long."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PoolPolicy,
    Span,
    Spreading,
    Stir,
    WorkerView,
    place,
    power_minutes,
    recourse,
    settle,
)
from lablet_scheduler.engine.optimise_load import Part, lay_out
from lablet_scheduler.engine.optimise_states import Kind
from lablet_scheduler.engine.recourse_search import minutes

from .pools import NOW, a_day

HALF = Demand(cpu_cores=4)
POLICY = PoolPolicy("default", grace=0)
STIR = Stir(("w-1", "w-2"), 6000, 6060)


def look(calendar: Calendar, stir: Stir = STIR, now: int = NOW, most: int = 2, **options: int):
    return settle(calendar, "default", now, stir, max_moves=most, **options)


def test_a_seat_moves_where_that_saves_power_and_the_saving_is_what_the_power_says(wasteful):
    found = look(wasteful)
    assert (len(found.moves), found.minutes_before, found.minutes_after) == (1, 160, 80)
    before = power_minutes(wasteful)
    found.apply(wasteful)
    assert before - power_minutes(wasteful) == found.saved_minutes == 80
    assert wasteful.booking("a", 1).worker == wasteful.booking("b", 1).worker


def test_the_look_itself_changes_nothing(wasteful):
    before = sorted(wasteful.bookings(), key=lambda one: one.key)
    look(wasteful)
    assert sorted(wasteful.bookings(), key=lambda one: one.key) == before
    assert wasteful.duties("w-1") == wasteful.duties("w-2") == [Span(6000, 6060)]


def test_what_has_been_settled_stays(wasteful):
    look(wasteful).apply(wasteful)
    assert look(wasteful).moves == ()


@pytest.mark.parametrize(("price", "moves"), [(79, 1), (80, 0)])
def test_nobody_moves_for_less_than_the_price(wasteful, price, moves):
    assert len(look(wasteful, price=price).moves) == moves


def test_a_pool_that_spreads_is_left_alone(wasteful):
    wasteful.put_policy(replace(POLICY, spreading=Spreading.SPREAD))
    assert look(wasteful).moves == ()


def test_nothing_moves_where_no_moves_are_allowed(wasteful):
    assert look(wasteful, most=0).moves == ()


def test_what_has_started_stays(wasteful):
    for name in ("a", "b"):
        wasteful.replace(replace(wasteful.booking(name, 1), started=True))
    assert look(wasteful).moves == ()


@pytest.mark.parametrize(("now", "moves"), [(5980, 1), (5981, 0)])
def test_what_starts_before_a_worker_could_boot_stays(wasteful, now, moves):
    assert len(look(wasteful, now=now).moves) == moves


@pytest.mark.parametrize(("quiet", "moves"), [(1000, 1), (1001, 0)])
def test_what_starts_soon_stays(wasteful, quiet, moves):
    assert len(look(wasteful, quiet=quiet).moves) == moves


def test_a_worker_that_is_closed_gets_nothing_and_gives_nothing(wasteful, worker):
    wasteful.put_worker(worker("w-2", boot_minutes=20, unschedulable=True))
    assert look(wasteful).moves == ()


def test_workers_that_are_gone_are_no_reason_to_stop(wasteful):
    assert len(look(wasteful, Stir(("gone", "w-1"), 6000, 6060)).moves) == 1
    assert look(wasteful, Stir(("gone",), 6000, 6060)).moves == ()


def test_one_makes_way_for_another(worker):
    """`big` fits nowhere else, unless `small` goes from w-2 to w-3, which is on anyway."""
    calendar = Calendar([POLICY], [worker(name, boot_minutes=20) for name in ("w-1", "w-2", "w-3")])
    calendar.book(Booking("big", 1, "w-1", 6000, 6060, Demand(cpu_cores=5)))
    calendar.book(Booking("small", 1, "w-2", 6000, 6060, Demand(cpu_cores=2)))
    calendar.book(Booking("fixed", 1, "w-2", 6000, 6060, Demand(cpu_cores=3), started=True))
    calendar.book(Booking("other", 1, "w-3", 6000, 6060, Demand(cpu_cores=6), started=True))
    found = look(calendar)
    assert {step.before.reservation: step.after.worker for step in found.moves} == {"big": "w-2", "small": "w-3"}
    assert found.saved_minutes == 80
    assert look(calendar, most=1).moves == (), "it takes two moves"


def test_two_leave_together_where_one_alone_would_save_nothing(worker):
    calendar = Calendar([POLICY], [worker(name, boot_minutes=20) for name in ("w-1", "w-2", "w-3")])
    for name in ("a", "b"):
        calendar.book(Booking(name, 1, "w-1", 6000, 6060, Demand(cpu_cores=3)))
    for name in ("w-2", "w-3"):
        calendar.book(Booking(f"on {name}", 1, name, 6000, 6060, Demand(cpu_cores=5), started=True))
    found = look(calendar)
    assert sorted(step.after.worker for step in found.moves) == ["w-2", "w-3"]
    assert found.saved_minutes == 80
    assert look(calendar, most=1).moves == ()


def test_the_last_two_to_end_leave_together_whoever_began_between_them(worker):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2")])
    for name, start, end in (("a", 6000, 6300), ("c", 6020, 6300)):
        calendar.book(Booking(name, 1, "w-1", start, end, Demand(cpu_cores=2)))
    calendar.book(Booking("b", 1, "w-1", 6010, 6060, Demand(cpu_cores=2), started=True))
    calendar.book(Booking("on", 1, "w-2", 6000, 6300, Demand(cpu_cores=4), started=True))
    found = look(calendar)
    assert {step.before.reservation for step in found.moves} == {"a", "c"}
    assert found.saved_minutes == 250


def test_nodes_and_ports_are_in_use_until_the_turnaround_is_over(worker):
    """w-2 would be on anyway, but its nodes come free ten minutes too late; w-3 has to be on for a little longer."""
    calendar = Calendar(
        [replace(POLICY, turnaround=10)], [worker(name, max_nodes=10) for name in ("w-1", "w-2", "w-3")]
    )
    calendar.book(Booking("seat", 1, "w-1", 6000, 6060, Demand(cpu_cores=2, nodes=8)))
    calendar.book(Booking("before", 1, "w-2", 5900, 6000, Demand(cpu_cores=2, nodes=8), started=True))
    calendar.book(Booking("beside", 1, "w-2", 5900, 6060, Demand(cpu_cores=2), started=True))
    calendar.book(Booking("there", 1, "w-3", 6000, 6050, Demand(cpu_cores=2), started=True))
    found = look(calendar)
    assert [(step.before.reservation, step.after.worker) for step in found.moves] == [("seat", "w-3")]
    assert found.saved_minutes == 60


def test_what_lies_beyond_the_stretch_stays(worker):
    calendar = Calendar([POLICY], [worker("w-1"), worker("w-2")])
    far = 6060 + recourse.REACH
    calendar.book(Booking("near", 1, "w-1", far - 60, far, HALF))
    calendar.book(Booking("far", 1, "w-1", far - 59, far + 1, HALF))
    calendar.book(Booking("there", 1, "w-2", far - 60, far + 1, HALF, started=True))
    assert look(calendar).moves == (), "the one beyond keeps the worker on"
    calendar.release("far")
    assert [step.before.reservation for step in look(calendar).moves] == ["near"]


def test_port_numbers_that_are_too_scattered_leave_all_where_it_is(worker):
    views = [worker(f"w-{i}", port_start=2000, port_end=2001) for i in (1, 2)]
    calendar = Calendar([POLICY], views)
    need = replace(HALF, cpu_cores=1, ports=("console",))
    # on w-1 one of the two numbers is free at each instant, but not the same one for a whole hour
    calendar.book(Booking("x", 1, "w-1", 6000, 6030, need, ports=(("console", 2000),), started=True))
    calendar.book(Booking("y", 1, "w-1", 6030, 6060, need, ports=(("console", 2001),), started=True))
    calendar.book(Booking("z", 1, "w-2", 6000, 6060, need, ports=(("console", 2000),)))
    before = sorted(calendar.bookings(), key=lambda one: one.key)
    assert look(calendar).moves == ()
    assert sorted(calendar.bookings(), key=lambda one: one.key) == before


@pytest.mark.parametrize("seed", range(24))
def test_power_falls_with_every_move_and_nothing_is_ever_over_committed(judge, seed):
    rng = random.Random(seed)
    limits = {"licence_limits": {"ENTERPRISE": 3}} if seed % 3 == 0 else {}
    policy, workers, wanted = a_day(rng, **limits)
    calendar = Calendar([policy], workers)
    moved = 0
    for request in wanted:
        decision = place(calendar, request)
        if not isinstance(decision, Placement):
            continue
        calendar.book_all(decision.bookings())
        stir = Stir(tuple({seat.worker for seat in decision.seats}), request.start, request.end)
        before, keys = power_minutes(calendar), sorted((b.key, b.start, b.end) for b in calendar.bookings())
        found = look(calendar, stir)
        assert power_minutes(calendar) == before
        found.apply(calendar)
        moved += len(found.moves)
        assert len(found.moves) <= 2
        assert before - power_minutes(calendar) == found.saved_minutes
        assert found.saved_minutes > recourse.PRICE * len(found.moves) or not found.moves
        assert keys == sorted((b.key, b.start, b.end) for b in calendar.bookings())
        assert judge.faults([policy], workers, calendar.bookings()) == []
    assert moved or seed, "the first day has something to save"


@pytest.mark.parametrize("seed", range(6))
def test_of_single_moves_the_best_is_found(judge, seed):
    rng = random.Random(seed)
    policy = PoolPolicy("default", turnaround=5, grace=rng.choice((0, 40)))
    workers = [WorkerView(f"w-{i}", "default", 8, 64, 100, boot_minutes=20) for i in range(3)]
    calendar = Calendar([policy], workers)
    for number in range(7):
        start = 6000 + rng.randrange(0, 200, 10)
        demand = Demand(rng.choice((2, 4)))
        views = [view.name for view in workers]
        rng.shuffle(views)
        for name in views:
            booking = Booking(f"r{number}", 1, name, start, start + rng.choice((30, 80)), demand)
            if calendar.conflict(booking) is None:
                calendar.book(booking)
                break
    booked = list(calendar.bookings())
    prices = []
    for moved, view in product(booked, workers):
        trial = [replace(one, worker=view.name) if one is moved else one for one in booked]
        if not judge.faults([policy], workers, trial):
            prices.append(sum(len(judge.on_minutes(policy, worker, trial)) for worker in workers))
    found = look(calendar, Stir(("w-0", "w-1", "w-2"), 6000, 6200), most=1, price=0)
    assert found.minutes_after == min(prices)


def test_the_same_calendar_gives_the_same_moves(wasteful):
    assert look(wasteful) == look(wasteful.copy())


def test_the_power_of_a_lane_is_what_the_calendar_says():
    rng = random.Random(3)
    for _ in range(40):
        policy, workers, wanted = a_day(rng)
        calendar = Calendar([policy], [replace(view, maintenance=()) for view in workers])
        for request in wanted:
            decision = place(calendar, request)
            if isinstance(decision, Placement):
                calendar.book_all(decision.bookings())
        layout = lay_out(calendar, "default", NOW)
        total = sum(minutes(lane, kind) for lane, kind in zip(layout.entries, layout.kinds, strict=True))
        assert total == power_minutes(calendar)
    assert minutes([], Kind((), 20, 20, None)) == 0


def big_pool(workers: int, seats: int, rng: random.Random) -> Calendar:
    """Seats over four weeks, given out at random: there is much to save."""
    policy = PoolPolicy("default", turnaround=10, grace=30, preparation=10)
    names = [f"w-{i:04}" for i in range(workers)]
    calendar = Calendar([policy], [WorkerView(name, "default", 16, 64, 2000, boot_minutes=20) for name in names])
    for number in range(seats):
        start = 6000 + rng.randrange(0, 28 * 1440, 15)
        booking = Booking(f"r{number}", 1, rng.choice(names), start, start + rng.randrange(60, 480, 15), HALF)
        if calendar.conflict(booking) is None:
            calendar.book(booking)
    return calendar


def test_a_look_is_the_same_work_in_a_pool_of_any_size():
    """Workers looked at, and seats tried on them: neither grows with the pool."""
    work = []
    for size in (20, 400):
        calendar = big_pool(size, 50 * size, random.Random(1))
        steps = []
        for booking in sorted(calendar.bookings(), key=lambda one: one.key)[:40]:
            found = look(calendar, Stir((booking.worker,), booking.start, booking.end))
            steps.append(found.steps)
            assert len({move.after.worker for move in found.moves}) <= recourse.WORKERS
        work.append(sum(steps))
    assert max(work) < 40 * 2 * recourse.BUDGET
    assert work[1] < 2 * work[0]


def crowded(workers: int, an_hour: int, hours: int) -> Calendar:
    """So many short labs an hour on each worker, around the clock: everything is one duty."""
    rng = random.Random(1)
    names = [f"w-{i:02}" for i in range(workers)]
    policy = PoolPolicy("default", turnaround=10, grace=30, preparation=10)
    calendar = Calendar([policy], [WorkerView(name, "default", 64, 640, 20_000, boot_minutes=20) for name in names])
    for number in range(workers * hours * an_hour):
        start = 6000 + 60 * (number % hours) + rng.randrange(60)
        name = names[number % workers]
        calendar.book(Booking(f"r{number}", 1, name, start, start + rng.randrange(45, 90), HALF), check=False)
    return calendar


@pytest.mark.parametrize("budget", [300, 3000, recourse.BUDGET])
@pytest.mark.parametrize("an_hour", [1, 3, 6])
def test_the_work_stays_within_the_budget_in_a_crowd_too(budget, an_hour):
    """What is counted is every seat that is looked at: what a step takes beyond the budget is one worker's crowd."""
    calendar = crowded(8, an_hour, 47)
    for start in (6000, 7400, 8700):
        found = look(calendar, Stir(("w-00", "w-01"), start, start + 60), budget=budget)
        assert found.steps < budget + recourse.CROWD


def test_a_look_takes_in_no_more_than_a_crowd(monkeypatch):
    """Where there is more, it reaches less far, and where it is too much everywhere it does not begin."""
    taken = []
    real = recourse.lay_out

    def lay(calendar, pool, now, part):
        taken.append((part.span.end - part.span.start, len(list(part.bookings(calendar)))))
        return real(calendar, pool, now, part)

    monkeypatch.setattr(recourse, "lay_out", lay)
    for an_hour in (1, 6, 40):
        look(crowded(8, an_hour, 47), Stir(("w-00",), 7400, 7460), budget=300)
    (wide, _), (narrow, _) = taken
    assert wide == 60 + 2 * recourse.REACH > narrow
    assert max(seats for _, seats in taken) <= recourse.CROWD


def test_a_part_has_what_may_share_power_with_what_is_in_it(worker):
    """What lies outside the span within a bridge is there, and does not move."""
    calendar = Calendar([PoolPolicy("default", grace=60)], [worker("w-1"), worker("w-2")])
    slots = {"long before": 5700, "before": 5800, "in": 5900, "after": 6000, "long after": 6100, "apart": 7000}
    for name, start in slots.items():
        calendar.book(Booking(name, 1, "w-1", start, start + 60, HALF))
    layout = lay_out(calendar, "default", NOW, Part(("w-1",), Span(5900, 5960)))
    assert [booking.reservation for booking in layout.bookings] == ["before", "in", "after"]
    assert [load.movable for load in layout.loads] == [False, True, False]
