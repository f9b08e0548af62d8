"""What the peers are asked is the same for all, and can be granted by all: no host is wanted twice at a time."""

import importlib
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def work() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
    try:
        yield importlib.import_module("peers.workload")
    finally:
        sys.path.pop(0)
        for name in ("peers", "peers.workload"):
            sys.modules.pop(name, None)


def test_no_host_has_two_reservations_at_a_time_nor_touching_ones(work: Any) -> None:
    made = work.workload(20, 1000, 500, 1.0)
    by_host: dict[int, list[tuple[str, str]]] = {}
    for ask in (*made.before, *made.asked):
        by_host.setdefault(ask.host, []).append((ask.start, ask.end))
    assert max(by_host) < 20
    for spans in by_host.values():
        assert all(end < start for (_, end), (start, _) in pairwise(sorted(spans)))


def test_everybody_is_asked_the_same_in_the_same_order(work: Any) -> None:
    made = work.workload(100, 50, 30, 1.0)
    assert made == work.workload(100, 50, 30, 1.0)
    assert made == work.Workload.from_json(made.to_json())
    assert made != work.workload(100, 50, 30, 1.0, seed=2)
    assert [ask.name for ask in (*made.before, *made.asked)] == [f"r{number:05d}" for number in range(80)]


def test_more_than_the_hosts_hold_is_refused(work: Any) -> None:
    with pytest.raises(ValueError, match="needs more than 1 hosts"):
        work.workload(1, 0, work.SLOTS + 1, 1.0)


def test_a_side_asks_no_more_once_its_budget_is_spent_and_counts_refusals(work: Any) -> None:
    made = work.workload(100, 0, 30, 0.0)
    assert work.one_after_the_other(made, lambda _ask: True).done == 1
    patient = work.workload(100, 0, 30, 60.0)
    figures = work.one_after_the_other(patient, lambda ask: ask.name != "r00003")
    assert (figures.done, figures.refused) == (29, 1)
