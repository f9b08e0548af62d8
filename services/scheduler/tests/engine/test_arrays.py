"""The arrays below the calendar, versions, and how much work a decision may be."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Refusal,
    Span,
    WorkerView,
    audit,
    earliest,
    fleet,
    from_minute,
    minute_ceil,
    minute_floor,
    place,
    power,
    power_spans,
    to_minute,
)
from lablet_scheduler.engine.fleet import unfit
from lablet_scheduler.engine.timeline import ROWS, Timeline
from lablet_scheduler.engine.versions import in_range, parse_version


def test_the_timeline_equals_a_grid_of_minutes_through_adding_and_taking_away():
    rng = random.Random(5)
    columns, span = 3, 3 * 1440
    grid = np.zeros((ROWS, columns, span), dtype=np.int64)
    timeline = Timeline(columns)
    kept = []
    for step in range(400):
        if kept and (rng.random() < 0.4 or step > 340):
            sign, entry = -1, kept.pop(rng.randrange(len(kept)))
        else:
            start = rng.randrange(span - 1)
            soft = rng.randrange(start + 1, span + 1)
            entry = (rng.randrange(columns), start, soft, min(span, soft + rng.choice((0, 10))), rng.randrange(1, 9))
            sign = 1
            kept.append(entry)
        column, start, soft, end, amount = entry
        timeline.add(column, start, soft, end, (amount,) * ROWS, sign)
        grid[:3, column, start:soft] += sign * amount
        grid[3:, column, start:end] += sign * amount
        begin = rng.randrange(span - 1)
        soft = rng.randrange(begin + 1, span + 1)
        close = min(span, soft + rng.choice((0, 7)))
        expected = np.concatenate([grid[:3, :, begin:soft].max(axis=2), grid[3:, :, begin:close].max(axis=2)])
        assert (timeline.peaks(begin, soft, close) == expected).all()
        assert timeline.peak(1, begin, soft, close) == expected[:, 1].tolist()
    for entry in kept:
        timeline.add(*entry[:4], (entry[4],) * ROWS, -1)
    assert timeline.peaks(0, span, span).max() == 0
    assert all((page.bounds < 1440).sum(axis=0).max() == 1 for _, page in timeline.days(0, span) if page is not None)


def test_power_spans_join_short_rests_and_begin_a_boot_before_the_need(worker):
    calendar = Calendar([PoolPolicy("default", turnaround=10, grace=40, preparation=5)], [worker(boot_minutes=20)])
    for name, start, end in (("a", 6000, 6060), ("b", 6110, 6200), ("c", 6251, 6300)):
        calendar.book(Booking(name, 1, "w-1", start, end, Demand(cpu_cores=1)))
    assert power_spans(calendar, "w-1") == [(5975, 6210), (6226, 6310)]
    calendar.release("b")
    assert power_spans(calendar, "w-1") == [(5975, 6070), (6226, 6310)]
    with pytest.raises(LookupError, match="w-9"):
        power_spans(calendar, "w-9")


def cells(calendar: Calendar, start: int, end: int) -> int:
    """All cells of the days of a span: segments × rows × workers."""
    pages = [page for _, page in calendar.timeline.days(start, end) if page is not None]
    return sum(page.segments for page in pages) * ROWS * calendar.timeline.columns


def test_one_placement_scans_one_row_of_all_workers_and_the_others_of_those_with_room(worker):
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{i}") for i in range(50)])
    rng = random.Random(3)
    for number in range(45):  # 45 workers with a morning of their own each, and full from noon on
        for hour in range(rng.randrange(2, 9)):
            start = 14_400 + hour * 60
            calendar.book(Booking(f"m{number}", hour + 1, f"w-{number}", start, start + 60, Demand(cpu_cores=hour % 2)))
        calendar.book(Booking(f"b{number}", 1, f"w-{number}", 14_400 + 720, 14_400 + 1440, Demand(cpu_cores=8)))
    day = cells(calendar, 14_400, 14_400 + 1440)
    before = calendar.timeline.scanned
    placed = place(calendar, PlacementRequest("x", "default", Demand(cpu_cores=8), 14_400 + 700, 14_400 + 800))
    assert isinstance(placed, Placement)
    assert placed.explanation.feasible == 5
    assert calendar.timeline.scanned - before <= day / ROWS + day * 5 / 50


def test_a_slot_over_midnight_looks_only_at_those_who_are_not_full_as_the_day_begins(worker):
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{i}") for i in range(50)])
    for number in range(48):
        calendar.book(Booking(f"b{number}", 1, f"w-{number}", 14_400 - 60, 14_400 + 60, Demand(cpu_cores=8)))
    days = cells(calendar, 14_400 - 1440, 14_400 + 1440)
    before = calendar.timeline.scanned
    placed = place(calendar, PlacementRequest("x", "default", Demand(cpu_cores=8), 14_400 - 100, 14_400 + 100))
    assert isinstance(placed, Placement)
    assert placed.explanation.feasible == 2
    assert calendar.timeline.scanned - before <= days * 2 / 50


def test_seats_that_find_room_on_workers_that_are_on_price_nobody(worker):
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{i:02d}", boot_minutes=20) for i in range(50)])
    for number in range(3):
        calendar.book(Booking(f"b{number}", 1, f"w-{number:02d}", 6000, 6200, Demand(cpu_cores=4)))
    placed = place(calendar, PlacementRequest("x", "default", Demand(cpu_cores=2), 6050, 6100, seats=6))
    assert isinstance(placed, Placement)
    assert {choice.added_on_minutes for choice in placed.explanation.choices} == {0}
    assert calendar.gaps.priced == 0


def test_workers_that_are_alike_are_judged_once_and_not_again_for_being_switched_on(worker, monkeypatch):
    asked: list[str] = []

    def counted(view, demand, amounts):
        asked.append(view.name)
        return unfit(view, demand, amounts)

    monkeypatch.setattr(fleet, "unfit", counted)
    views = [worker(f"w-{i}") for i in range(20)] + [worker("big", cpu_cores=16)]
    calendar = Calendar([PoolPolicy("default")], views)
    wish = PlacementRequest("x", "default", Demand(cpu_cores=2), 6000, 6060)
    place(calendar, wish)
    assert len(asked) == 2
    calendar.put_worker(replace(views[3], on_since=5900))
    place(calendar, wish)
    assert len(asked) == 2
    calendar.put_worker(replace(views[3], failed=True))
    assert place(calendar, wish).explanation.removed == {"failed": 1}
    assert len(asked) == 5


def test_only_workers_with_room_are_priced_and_each_once(worker):
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{i:02d}") for i in range(50)])
    for number in range(47):
        calendar.book(Booking(f"b{number}", 1, f"w-{number:02d}", 6000, 6100, Demand(cpu_cores=8)))
    placed = place(calendar, PlacementRequest("x", "default", Demand(cpu_cores=2), 6000, 6100, seats=9))
    assert isinstance(placed, Placement)
    assert calendar.gaps.priced == 3


@pytest.fixture
def busy_days(worker):
    """Ten days on which every worker has a slot of its own at each hour, but for the last day's evening."""
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{i}") for i in range(4)])
    for hour in range(9 * 24 + 18):
        start = 7200 + hour * 60
        for i in range(4):
            calendar.book(Booking(f"b{hour}", i + 1, f"w-{i}", start, start + 60, Demand(cpu_cores=7 + hour % 2)))
    return calendar


def test_the_earliest_start_is_found_in_one_sweep_and_a_few_looks(busy_days):
    every = cells(busy_days, 7200, 7200 + 10 * 1440)
    before = busy_days.timeline.scanned
    wish = PlacementRequest("x", "default", Demand(cpu_cores=8), 7200, 7200 + 120, seats=4)
    assert earliest(busy_days, wish) == 7200 + (9 * 24 + 18) * 60
    assert busy_days.timeline.scanned - before <= every * 4 / 3


def test_an_explanation_with_a_suggestion_is_one_decision_and_one_sweep(busy_days):
    every = cells(busy_days, 7200, 7200 + 10 * 1440)
    before = busy_days.timeline.scanned
    wish = PlacementRequest("x", "default", Demand(cpu_cores=8), 7200, 7260, seats=3)
    assert isinstance(place(busy_days, wish), Refusal)
    assert earliest(busy_days, wish) is not None
    assert busy_days.timeline.scanned - before <= every * 4 / 3


def test_a_refusal_without_a_suggestion_looks_at_its_own_days_only(busy_days):
    day = cells(busy_days, 7200 + 1440, 7200 + 2880)
    before = busy_days.timeline.scanned
    place(busy_days, PlacementRequest("x", "default", Demand(cpu_cores=8), 7200 + 1500, 7200 + 1560))
    assert busy_days.timeline.scanned - before <= 2 * day


def test_versions_are_compared_as_versions():
    assert parse_version("2.9.0+build.6") == (2, 9, 0)
    assert in_range("2.10", "2.9", None)
    assert not in_range("2.9", "2.10", None)
    assert in_range("2.9", "2.9.0", "2.9.0")
    assert in_range("2.9.7", None, "2.9")
    assert not in_range("2.9.7", None, "2.9.6")
    with pytest.raises(ValueError, match="not a version"):
        parse_version("latest")


def test_minutes_and_datetimes_are_two_ways_to_say_the_same():
    at = datetime(2027, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    assert from_minute(to_minute(at)) == at
    assert minute_floor(at + timedelta(seconds=59)) == to_minute(at)
    assert minute_ceil(at + timedelta(seconds=1)) == to_minute(at) + 1
    assert minute_ceil(at) == to_minute(at)
    with pytest.raises(ValueError, match="whole minute"):
        to_minute(at + timedelta(seconds=1))
    with pytest.raises(ValueError, match="time zone"):
        to_minute(at.astimezone(UTC).replace(tzinfo=None))


def test_days_on_which_nothing_is_booked_any_more_take_no_room():
    workers = [WorkerView(f"w-{number}", "default", 8, 64, 1000, boot_minutes=20) for number in range(3)]
    calendar = Calendar([PoolPolicy("default", turnaround=10)], workers)
    for day in range(40):
        for number in range(3):
            start = day * 1440 + 500 * number
            calendar.book(
                Booking(f"r{day}-{number}", 1, f"w-{number}", start, start + 300, Demand(cpu_cores=8, ports=("p",)))
            )
    twin = calendar.copy()
    for day in range(40):
        for number in range(3):
            calendar.release(f"r{day}-{number}")
        assert len(calendar.timeline.days_in_use()) == 39 - day
    assert not calendar.timeline.days_in_use()
    assert not calendar.gaps._pages
    assert len(twin.timeline.days_in_use()) == 40
    assert not any(audit.differs(one, "w-1") for one in (calendar, twin))
    whole = Demand(cpu_cores=8)
    assert isinstance(place(calendar, PlacementRequest("a", "default", whole, 1440, 1500, seats=3)), Placement)


def test_a_booking_of_the_far_future_costs_no_look_at_every_day_until_then(monkeypatch: pytest.MonkeyPatch):
    looked, gaps_between = [], power._gaps_between

    def watched(duties: list[Span], base: int, reach: int) -> list[Span]:
        looked.append(base)
        return gaps_between(duties, base, reach)

    monkeypatch.setattr(power, "_gaps_between", watched)
    worker = WorkerView("w-1", "default", 8, 64, 1000, boot_minutes=20)
    demand = Demand(cpu_cores=4)
    starts = (30_000_000, 30_000_100, 30_005_000, 3_690_000_000)
    bookings = [Booking(f"r{at}", 1, "w-1", at, at + 60, demand) for at in starts]
    one, other = (Calendar([PoolPolicy("default", turnaround=2)], [worker]) for _ in range(2))
    one.book_all(bookings)
    for _ in other.load(bookings):
        pass
    assert not audit.differs(one, "w-1")
    assert not audit.differs(other, "w-1")
    assert len(looked) < 200
    assert one.gaps._pages.keys() == other.gaps._pages.keys()
    for number, page in one.gaps._pages.items():
        for kept, laid in ((page.start, other.gaps._pages[number].start), (page.end, other.gaps._pages[number].end)):
            rows = page.count
            assert (kept[:rows] == laid[:rows]).all()
