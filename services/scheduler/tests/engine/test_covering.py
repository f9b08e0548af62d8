"""Seats that come together: the set of workers that adds least power, by trying every set."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest

from lablet_scheduler.engine import Booking, Calendar, Demand, PlacementRequest, PoolPolicy, WorkerView, place
from lablet_scheduler.engine.covering import cheapest_cover, worth_a_look


@pytest.mark.parametrize("seed", range(40))
def test_no_set_that_holds_the_seats_is_cheaper(seed):
    rng = random.Random(seed)
    items = sorted((rng.randrange(1, 60), rng.randrange(1, 6)) for _ in range(rng.randrange(1, 9)))
    prices, holds = [price for price, _ in items], [count for _, count in items]
    wanted = rng.randrange(1, sum(holds) + 1)
    looked = worth_a_look(np.array(holds), wanted).tolist()
    chosen = [looked[i] for i in cheapest_cover([holds[i] for i in looked], [prices[i] for i in looked], wanted)]
    assert sum(holds[i] for i in chosen) >= wanted
    every = (set_ for size in range(len(items) + 1) for set_ in combinations(range(len(items)), size))
    best = min(sum(prices[i] for i in set_) for set_ in every if sum(holds[i] for i in set_) >= wanted)
    assert sum(prices[i] for i in chosen) == best


def test_too_few_seats_in_all_is_all_of_them():
    assert cheapest_cover([1, 2], [5, 5], 9) == [0, 1]
    assert cheapest_cover([], [], 3) == []


def test_only_as_many_of_a_size_are_looked_at_as_would_do_alone():
    assert worth_a_look(np.array([2] * 50 + [4] * 50), 4).tolist() == [0, 1, 50]


def test_two_workers_that_stay_on_a_little_are_better_than_one_that_is_cheapest_for_the_first_seat():
    """w-1 holds one seat and adds 70 minutes, w-2 and w-3 hold two and add 80 each: 160 for both beat 70 + 80 + 80."""
    views = [
        WorkerView("w-1", "default", 2, 64, 100, boot_minutes=10),
        WorkerView("w-2", "default", 4, 64, 100, boot_minutes=20),
        WorkerView("w-3", "default", 4, 64, 100, boot_minutes=20),
    ]
    calendar = Calendar([PoolPolicy("default", grace=0)], views)
    request = PlacementRequest("r1", "default", Demand(cpu_cores=2), 6000, 6060, seats=4)
    assert sorted(seat.worker for seat in place(calendar, request).seats) == ["w-2", "w-2", "w-3", "w-3"]
    calendar.book(Booking("on", 1, "w-1", 5900, 6060, Demand(memory_gb=1)))
    chosen = place(calendar, request).explanation.choices
    assert {choice.worker: choice.added_on_minutes for choice in chosen} == {"w-1": 0, "w-2": 80, "w-3": 80}
