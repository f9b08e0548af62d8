"""The arrays below the calendar, versions, and how much work a decision may be."""

from __future__ import annotations

import random
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
    earliest,
    explain,
    from_minute,
    minute_ceil,
    minute_floor,
    place,
    power_spans,
    to_minute,
)
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


def test_one_placement_scans_no_more_rows_than_its_days_have_segments(worker):
    calendar = Calendar([PoolPolicy("default")], [worker(f"w-{i}", cpu_cores=64) for i in range(50)])
    rng = random.Random(3)
    for number in range(400):
        start = 6000 + rng.randrange(28 * 96) * 15
        decision = place(calendar, PlacementRequest(f"r{number}", "default", Demand(cpu_cores=8), start, start + 120))
        calendar.book_all(decision.bookings())
    pages = dict(calendar.timeline.days(6000, 6000 + 28 * 1440))
    before = calendar.timeline.scanned
    place(calendar, PlacementRequest("x", "default", Demand(cpu_cores=8), 14_400, 14_520))
    assert calendar.timeline.scanned - before <= pages[14_400].segments <= 40


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
    rows = sum(page.segments for _, page in busy_days.timeline.days(7200, 7200 + 10 * 1440) if page is not None)
    before = busy_days.timeline.scanned
    wish = PlacementRequest("x", "default", Demand(cpu_cores=8), 7200, 7200 + 120, seats=4)
    assert earliest(busy_days, wish) == 7200 + (9 * 24 + 18) * 60
    assert busy_days.timeline.scanned - before <= rows + 60


def test_an_explanation_with_a_suggestion_is_one_decision_and_one_sweep(busy_days):
    rows = sum(page.segments for _, page in busy_days.timeline.days(7200, 7200 + 10 * 1440) if page is not None)
    before = busy_days.timeline.scanned
    told = explain(busy_days, PlacementRequest("x", "default", Demand(cpu_cores=8), 7200, 7260, seats=3))
    assert told.earliest is not None
    assert busy_days.timeline.scanned - before <= rows + 60


def test_a_refusal_without_a_suggestion_looks_at_its_own_days_only(busy_days):
    day = dict(busy_days.timeline.days(7200 + 1440, 7200 + 2880))[7200 + 1440]
    before = busy_days.timeline.scanned
    place(busy_days, PlacementRequest("x", "default", Demand(cpu_cores=8), 7200 + 1500, 7200 + 1560))
    assert busy_days.timeline.scanned - before <= 2 * day.segments


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
