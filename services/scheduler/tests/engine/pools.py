"""Pools of a few workers and what is asked of them: by chance from a seed, or as hypothesis draws them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

from lablet_scheduler.engine import Demand, PlacementRequest, PoolPolicy, Span, Spreading, WorkerView

NOW = 5000
"""When all of a day is asked for; it begins at 6000."""


def a_day(
    rng: random.Random, requests: int = 16, **policy: object
) -> tuple[PoolPolicy, list[WorkerView], list[PlacementRequest]]:
    """A pool and what is asked of it, with few ports, a maintenance span and counted nodes."""
    pool = PoolPolicy("default", turnaround=rng.choice((0, 10)), grace=rng.choice((0, 45)), preparation=5, **policy)  # type: ignore[arg-type]  # test values
    workers = [
        WorkerView(
            f"w-{i}",
            "default",
            rng.choice((8, 16)),
            64,
            100,
            max_nodes=20,
            boot_minutes=15,
            port_start=2000,
            port_end=2007,
            maintenance=(Span(6200, 6260),) if i == 1 else (),
        )
        for i in range(4)
    ]
    wanted = []
    for number in range(requests):
        start = 6000 + rng.randrange(0, 600, 15)
        demand = Demand(rng.choice((2, 4, 8)), 8, 10, rng.choice((2, 8)), ("a", "b"))
        length = rng.choice((30, 60, 120, 200))
        seats = rng.choice((1, 1, 2, 3))
        wanted.append(PlacementRequest(f"r{number}", "default", demand, start, start + length, seats=seats, now=NOW))
    return pool, workers, wanted


def fleets(
    names: str,
    *,
    cores: Sequence[float],
    nodes: Sequence[int | None],
    licences: Sequence[str],
    maintenance: Sequence[tuple[Span, ...]] = ((),),
) -> st.SearchStrategy[list[WorkerView]]:
    """One worker to as many as there are letters in `names`, few of whose ports are free, some slow to boot."""
    workers = st.builds(
        WorkerView,
        name=st.sampled_from(list(names)),
        pool=st.just("p"),
        cpu_cores=st.sampled_from(cores),
        memory_gb=st.sampled_from([4.0, 8.0]),
        storage_gb=st.just(50.0),
        max_nodes=st.sampled_from(nodes),
        licence=st.sampled_from(licences),
        port_start=st.just(2000),
        port_end=st.sampled_from([2001, 2003, 2050]),
        boot_minutes=st.sampled_from([0, 7, 40]),
        maintenance=st.sampled_from(maintenance),
    )
    return st.lists(workers, min_size=1, max_size=len(names), unique_by=lambda view: view.name)


def policies(turnarounds: Sequence[int]) -> st.SearchStrategy[PoolPolicy]:
    """Of the pool `p`, with counted licences, or none left of a kind, or no limit."""
    return st.builds(
        PoolPolicy,
        pool=st.just("p"),
        turnaround=st.sampled_from(turnarounds),
        grace=st.sampled_from([0, 10, 45]),
        preparation=st.sampled_from([0, 5]),
        spreading=st.sampled_from(list(Spreading)),
        licence_limits=st.sampled_from([{}, {"ENTERPRISE": 1}, {"PERSONAL": 0, "ENTERPRISE": 2}]),
    )


def demands(cores: Sequence[float], most_nodes: int) -> st.SearchStrategy[Demand]:
    """Of a seat; some want next to nothing."""
    return st.builds(
        Demand,
        cpu_cores=st.sampled_from(cores),
        memory_gb=st.sampled_from([0.0, 1.0, 3.3]),
        storage_gb=st.sampled_from([0.0, 20.0]),
        nodes=st.integers(0, most_nodes),
        ports=st.sampled_from([(), ("x",), ("x", "y")]),
    )
