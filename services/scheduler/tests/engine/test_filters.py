"""Each filter has a worker that it alone refuses: the same request passes when only that one thing is in order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Filter,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Refusal,
    Span,
    WorkerView,
    place,
)

GOOD = WorkerView(
    "w-1",
    "default",
    cpu_cores=8,
    memory_gb=32,
    storage_gb=100,
    max_nodes=20,
    licence="ENTERPRISE",
    port_start=2000,
    port_end=2003,
    labels={"zone": "a", "rack": "7"},
    version="2.9.1",
    node_definitions=frozenset({"iosv", "csr1000v"}),
    boot_minutes=20,
)
DEMAND = Demand(
    cpu_cores=4,
    memory_gb=16,
    storage_gb=10,
    nodes=10,
    ports=("r1_serial", "r2_serial"),
    licences=frozenset({"ENTERPRISE", "EVALUATION"}),
    min_version="2.9",
    max_version="2.10",
    node_definitions=frozenset({"iosv"}),
    selector=(("zone", "a"),),
)
REQUEST = PlacementRequest("r1", "default", DEMAND, start=6000, end=6120, now=5000, punctual=True)
POLICY = PoolPolicy("default", turnaround=10, preparation=5)


def decide(worker: WorkerView, request: PlacementRequest = REQUEST, booked: tuple[Booking, ...] = (), **policy: object):
    calendar = Calendar([replace(POLICY, **policy)], [worker])
    calendar.book_all(booked, check=False)
    return place(calendar, request)


def test_the_good_worker_is_taken():
    assert isinstance(decide(GOOD), Placement)


TIMELESS = {
    Filter.POOL: replace(GOOD, pool="other"),
    Filter.SELECTOR: replace(GOOD, labels={"zone": "b"}),
    Filter.RUNTIME: replace(GOOD, runtime="process"),
    Filter.LICENCE: replace(GOOD, licence="PERSONAL"),
    Filter.VERSION: replace(GOOD, version="2.8.1"),
    Filter.NODE_DEFINITIONS: replace(GOOD, node_definitions=frozenset({"csr1000v"})),
    Filter.NODE_LIMIT: replace(GOOD, max_nodes=9),
    Filter.SIZE: replace(GOOD, memory_gb=15.999),
    Filter.FAILED: replace(GOOD, failed=True),
    Filter.UNSCHEDULABLE: replace(GOOD, unschedulable=True),
    Filter.MAINTENANCE: replace(GOOD, maintenance=(Span(6119, 6200),)),
}


@pytest.mark.parametrize("name", TIMELESS, ids=str)
def test_a_worker_that_only_this_filter_refuses_is_refused_and_counted_there(name: Filter):
    decision = decide(TIMELESS[name])
    assert isinstance(decision, Refusal)
    assert decision.explanation.removed == {name: 1}
    assert decision.explanation.binding == name
    assert decision.explanation.considered == 1
    temporary = name in {Filter.FAILED, Filter.UNSCHEDULABLE, Filter.MAINTENANCE}
    assert decision.permanent is not temporary


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (Filter.SELECTOR, {"labels": {}}),
        (Filter.LICENCE, {"licence": "enterprise"}),
        (Filter.VERSION, {"version": "2.11.0"}),
        (Filter.NODE_DEFINITIONS, {"node_definitions": frozenset()}),
        (Filter.SIZE, {"cpu_cores": 3.9}),
        (Filter.SIZE, {"storage_gb": 9}),
        (Filter.SIZE, {"port_end": 2000}),
        (Filter.UNSCHEDULABLE, {"unschedulable": True, "unschedulable_until": 6001}),
        (Filter.MAINTENANCE, {"maintenance": (Span(5990, 6001),)}),
    ],
    ids=str,
)
def test_every_bound_of_a_filter_refuses_by_itself(name: Filter, change: dict[str, object]):
    decision = decide(replace(GOOD, **change))
    assert isinstance(decision, Refusal)
    assert decision.explanation.removed == {name: 1}


def test_an_excluded_worker_is_refused_but_not_for_ever():
    decision = decide(GOOD, replace(REQUEST, exclude=frozenset({"w-1"})))
    assert isinstance(decision, Refusal)
    assert decision.explanation.removed == {Filter.EXCLUDED: 1}
    assert not decision.permanent


def test_a_worker_that_cannot_boot_in_time_is_refused_to_a_punctual_request_only():
    soon = replace(REQUEST, now=6000 - 24)
    decision = decide(GOOD, soon)
    assert isinstance(decision, Refusal)
    assert decision.explanation.removed == {Filter.BOOT: 1}
    assert decision.explanation.nearest is not None
    assert (decision.explanation.nearest.needed, decision.explanation.nearest.free) == (25, 24)
    assert isinstance(decide(GOOD, replace(soon, now=6000 - 25)), Placement)
    late = decide(GOOD, replace(soon, punctual=False))
    assert isinstance(late, Placement)
    assert late.explanation.choices[0].late_minutes == 1
    assert isinstance(decide(replace(GOOD, on_since=5000), soon), Placement)


def test_a_cordon_that_ends_before_the_slot_does_not_matter():
    assert isinstance(decide(replace(GOOD, unschedulable=True, unschedulable_until=6001)), Refusal)
    assert isinstance(decide(replace(GOOD, unschedulable=True, unschedulable_until=6000)), Placement)


def test_maintenance_that_begins_with_the_end_of_the_turnaround_does_not_matter():
    assert isinstance(decide(replace(GOOD, maintenance=(Span(6130, 6200), Span(5900, 6000)))), Placement)
    assert isinstance(decide(replace(GOOD, maintenance=(Span(6129, 6200),))), Refusal)


def test_a_slot_longer_than_the_definition_allows_is_refused_for_ever():
    decision = decide(GOOD, replace(REQUEST, max_minutes=119))
    assert isinstance(decision, Refusal)
    assert decision.permanent
    assert decision.explanation.binding == Filter.DURATION


@pytest.mark.parametrize(
    ("dimension", "used", "free"),
    [
        ("cpuCores", Demand(cpu_cores=4.001), 3.999),
        ("memoryGb", Demand(memory_gb=17), 15),
        ("storageGb", Demand(storage_gb=90.5), 9.5),
        ("nodeCount", Demand(nodes=11), 9),
    ],
)
def test_a_worker_that_lacks_one_dimension_is_refused_and_the_miss_is_told_in_numbers(dimension, used, free):
    booked = Booking("r0", 1, "w-1", 6119, 6300, used)
    decision = decide(GOOD, booked=(booked,))
    assert isinstance(decision, Refusal)
    assert not decision.permanent
    assert decision.explanation.removed == {Filter.CAPACITY: 1}
    assert decision.explanation.binding == dimension
    assert decision.explanation.nearest is not None
    assert decision.explanation.nearest.worker == "w-1"
    assert decision.explanation.nearest.free == pytest.approx(free)
    later = replace(booked, start=6130)
    assert isinstance(decide(GOOD, booked=(later,)), Placement)


def test_a_worker_without_enough_ports_is_refused():
    booked = Booking("r0", 1, "w-1", 6100, 6300, Demand(ports=("a", "b", "c")), (("a", 2000), ("b", 2001), ("c", 2002)))
    decision = decide(GOOD, booked=(booked,))
    assert isinstance(decision, Refusal)
    assert decision.explanation.removed == {Filter.PORTS: 1}
    assert decision.explanation.binding == "ports"


def test_ports_that_are_free_in_turn_but_not_throughout_do_not_count():
    booked = tuple(
        Booking(f"b{i}", 1, "w-1", start, start + 50, Demand(ports=("a", "b")), (("a", one), ("b", two)))
        for i, (start, one, two) in enumerate([(6000, 2000, 2001), (6060, 2002, 2003)])
    )
    decision = decide(GOOD, booked=booked)
    assert isinstance(decision, Refusal)
    assert decision.explanation.binding == "ports"
    assert not decision.permanent


def test_counted_licences_refuse_the_worker_too_many():
    calendar = Calendar([replace(POLICY, licence_limits={"ENTERPRISE": 1})], [GOOD, replace(GOOD, name="w-2")])
    calendar.book(Booking("r0", 1, "w-1", 6000, 6200, Demand(cpu_cores=8)))
    decision = place(calendar, REQUEST)
    assert isinstance(decision, Refusal)
    assert decision.explanation.binding == Filter.LICENCE_COUNT
    assert decision.explanation.removed == {Filter.CAPACITY: 1, Filter.LICENCE_COUNT: 1}
    assert not decision.permanent
    assert isinstance(place(calendar, replace(REQUEST, start=6300, end=6400)), Placement)
    calendar.put_policy(replace(POLICY, licence_limits={"ENTERPRISE": 2}))
    freed = place(calendar, REQUEST)
    assert isinstance(freed, Placement), "nothing but the licence stood in the way"
    assert freed.seats[0].worker == "w-2"


def test_two_ten_is_newer_than_two_nine():
    for version, fits in (("2.9.0", True), ("2.10.4", True), ("2.11", False), ("2.8.9", False), ("3.0", False)):
        assert isinstance(decide(replace(GOOD, version=version)), Placement) is fits, version


def test_a_worker_whose_version_and_definitions_are_not_known_is_not_refused_for_them():
    assert isinstance(decide(replace(GOOD, version=None, node_definitions=None)), Placement)


def test_more_seats_than_the_empty_pool_holds_are_refused_for_ever():
    decision = decide(GOOD, replace(REQUEST, seats=3))
    assert isinstance(decision, Refusal)
    assert decision.permanent
    assert decision.explanation.seats_fitting == 2


def test_what_can_never_fit_is_told_from_the_empty_pool_and_nobody_is_called_full():
    small, lost = replace(GOOD, name="w-2", cpu_cores=2), replace(GOOD, name="w-3", failed=True)
    calendar = Calendar([POLICY], [GOOD, small, lost, replace(GOOD, name="x", pool="other")])
    calendar.book(Booking("r0", 1, "w-1", 6000, 6200, Demand(cpu_cores=8)))
    decision = place(calendar, replace(REQUEST, seats=5))
    assert isinstance(decision, Refusal)
    assert decision.permanent
    assert decision.explanation.removed == {Filter.SIZE: 1, Filter.POOL: 1}
    assert decision.explanation.seats_fitting == 4
    assert decision.explanation.binding == "cpuCores"
    assert "those that may host it hold 4 seats when nothing is booked" in decision.explanation.summary
    assert "full" not in decision.explanation.summary


def test_licences_that_could_never_suffice_are_the_reason_that_is_told():
    calendar = Calendar([replace(POLICY, licence_limits={"ENTERPRISE": 1})], [GOOD, replace(GOOD, name="w-2")])
    decision = place(calendar, replace(REQUEST, seats=3))
    assert isinstance(decision, Refusal)
    assert decision.permanent
    assert decision.explanation.binding == Filter.LICENCE_COUNT
    assert "2 workers would have to be on at once, the licences allow 1" in decision.explanation.summary


def test_no_licence_at_all_refuses_a_worker_that_nothing_else_would_refuse():
    decision = decide(GOOD, licence_limits={"ENTERPRISE": 0})
    assert isinstance(decision, Refusal)
    assert decision.explanation.binding == Filter.LICENCE_COUNT
    assert isinstance(decide(GOOD, licence_limits={"ENTERPRISE": 1}), Placement)


def test_a_pool_without_workers_refuses_but_not_for_ever():
    decision = place(Calendar([POLICY]), REQUEST)
    assert isinstance(decision, Refusal)
    assert not decision.permanent
    assert "no workers" in decision.explanation.summary


def test_no_filter_is_without_its_tests_and_its_line_in_the_guide():
    """A new one has to be entered here, beside a test in which it alone refuses."""
    elsewhere = {
        Filter.DURATION: test_a_slot_longer_than_the_definition_allows_is_refused_for_ever,
        Filter.EXCLUDED: test_an_excluded_worker_is_refused_but_not_for_ever,
        Filter.BOOT: test_a_worker_that_cannot_boot_in_time_is_refused_to_a_punctual_request_only,
        Filter.CAPACITY: test_a_worker_that_lacks_one_dimension_is_refused_and_the_miss_is_told_in_numbers,
        Filter.PORTS: test_a_worker_without_enough_ports_is_refused,
        Filter.LICENCE_COUNT: test_counted_licences_refuse_the_worker_too_many,
    }
    assert {*TIMELESS, *elsewhere} == set(Filter) - {Filter.WAIT_LIST}  # which refuses a request, not a worker
    guide = (Path(__file__).parents[4] / "docs/guides/scheduling.md").read_text(encoding="utf-8")
    assert [name for name in Filter if f"`{name}`" not in guide] == []
