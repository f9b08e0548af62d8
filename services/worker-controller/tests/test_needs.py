"""When workers are on: the calendar's rule as a pure function, and a morning of it minute by minute."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Cordon, PoolSpec, Worker, WorkerPhase
from lablet_workers.needs import Need, WorkerNeeds, needs_of, plan_power

SEVEN = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
GRACE, BOOT, PREPARATION, TURNAROUND = 30, 8, 5, 5


def at(minute: float) -> datetime:
    return SEVEN + timedelta(minutes=minute)


def a_worker(name: str = "p-001", phase: WorkerPhase = WorkerPhase.OFFLINE, boot: int = BOOT, **spec: Any) -> Worker:
    body = {
        "pool": "p",
        "template": "t",
        "capacity": {"cpuCores": 1, "memoryGb": 1, "storageGb": 1},
        "maxNodes": 20,
        "license": "ENTERPRISE",
        "bootMinutes": boot,
    }
    return Worker.model_validate(
        {
            "metadata": Metadata(id=name, uid=name, created_at=SEVEN),
            "spec": body | spec,
            "status": {"phase": phase},
        }
    )


def a_pool(**spec: Any) -> PoolSpec:
    given_ = {"template": "t", "max": 10, "preparation_minutes": PREPARATION, "turnaround_minutes": TURNAROUND}
    return PoolSpec.model_validate({"boot_reserve_minutes": 0} | given_ | spec)


def slots(*spans: tuple[int, int]) -> tuple[Need, ...]:
    return tuple(Need(at(start - PREPARATION), at(end + TURNAROUND)) for start, end in spans)


def wanted(
    spans: Sequence[tuple[int, int]],
    now: float,
    *,
    on: bool = False,
    grace: int = GRACE,
    boot: int = BOOT,
    busy: bool = False,
) -> Any:
    worker = a_worker(phase=WorkerPhase.READY if on else WorkerPhase.OFFLINE, boot=boot)
    plan = plan_power(a_pool(), [WorkerNeeds(worker, slots(*spans), busy)], at(now), timedelta(minutes=grace))
    return plan["p-001"]


def curve(spans: Sequence[tuple[int, int]], until: int, *, grace: int = GRACE, boot: int = BOOT) -> list[int]:
    """The minutes at which the power changes, beginning with off."""
    on, changes = False, []
    for minute in range(until):
        now = wanted(spans, minute, on=on, grace=grace, boot=boot).on
        if now is not on:
            changes.append(minute)
            on = now
    return changes


def test_a_worker_is_on_from_boot_and_preparation_before_its_slot_to_the_turnaround_after() -> None:
    assert curve([(60, 120)], 300) == [60 - BOOT - PREPARATION, 120 + TURNAROUND]


def test_a_morning_of_classes_with_short_gaps_is_one_stretch() -> None:
    assert curve([(60, 120), (135, 180), (180, 200), (235, 300)], 600) == [47, 305]


@pytest.mark.parametrize(("gap", "stretches"), [(GRACE, 1), (GRACE + 1, 2)])
def test_a_gap_up_to_the_grace_is_bridged(gap: int, stretches: int) -> None:
    second = 120 + TURNAROUND + gap
    assert len(curve([(60, 120), (second, second + 60)], 600)) == 2 * stretches


def test_a_gap_in_which_it_would_have_to_boot_at_once_is_bridged_whatever_the_grace() -> None:
    second = 120 + TURNAROUND + BOOT + PREPARATION
    assert curve([(60, 120), (second, second + 60)], 600, grace=0) == [47, second + 65]
    assert len(curve([(60, 120), (second + 1, second + 60)], 600, grace=0)) == 4


def test_the_rule_and_the_time_of_the_next_look_are_told() -> None:
    waiting = wanted([(60, 120)], 0)
    assert (waiting.on, waiting.rule, waiting.look) == (False, "need-later", at(47))
    begun = wanted([(60, 120)], 47)
    assert (begun.on, begun.rule, begun.look) == (True, "calendar", at(125))
    assert wanted([(60, 120)], 20, on=True, grace=60).rule == "gap-within-grace"
    assert wanted([], 0).rule == "no-need"


def test_a_lab_that_overruns_keeps_its_worker_on() -> None:
    assert wanted([(60, 120)], 500, on=True, busy=True).on


def test_nothing_that_ran_turns_a_worker_on_that_is_off() -> None:
    assert not wanted([], 500, on=False, busy=True).on


def test_a_worker_in_maintenance_is_off_and_never_under_a_running_lab() -> None:
    span = {"from": at(0), "to": at(240)}
    worker = a_worker(phase=WorkerPhase.READY, maintenance=[span])
    for busy, on in ((False, False), (True, True)):
        plan = plan_power(a_pool(), [WorkerNeeds(worker, slots((60, 120)), busy)], at(60), timedelta(minutes=30))
        assert plan["p-001"].on is on
    later = plan_power(a_pool(), [WorkerNeeds(worker, slots((300, 360)), False)], at(290), timedelta(minutes=30))
    assert later["p-001"].on


def many(count: int, **spec: Any) -> list[WorkerNeeds]:
    return [WorkerNeeds(a_worker(f"p-{number:03d}", **spec), (), False) for number in range(1, count + 1)]


def on(plan: dict[str, Any]) -> list[str]:
    return sorted(name for name, want in plan.items() if want.on)


def test_the_minimum_is_met_with_the_lowest_names() -> None:
    assert on(plan_power(a_pool(min=2), many(5), at(0), timedelta(0))) == ["p-001", "p-002"]


def test_the_minimum_counts_those_that_the_calendar_has_on() -> None:
    fleet = many(5)
    fleet[4] = WorkerNeeds(fleet[4].worker, slots((10, 60)), False)
    assert on(plan_power(a_pool(min=2), fleet, at(0), timedelta(0))) == ["p-001", "p-005"]


def test_warm_workers_are_kept_beyond_those_in_use() -> None:
    fleet = many(5)
    fleet[0] = WorkerNeeds(a_worker("p-001", phase=WorkerPhase.READY), slots((0, 60)), True)
    assert on(plan_power(a_pool(warm=2), fleet, at(10), timedelta(0))) == ["p-001", "p-002", "p-003"]


def test_a_cordoned_worker_is_neither_minimum_nor_warm_until_its_cordon_ends() -> None:
    fleet = many(2)
    cordon = Cordon(reason="x", by="op", until=at(60))
    fleet[0] = WorkerNeeds(a_worker("p-001", unschedulable=cordon.model_dump()), (), False)
    assert on(plan_power(a_pool(min=1), fleet, at(0), timedelta(0))) == ["p-002"]
    assert on(plan_power(a_pool(min=1), fleet, at(60), timedelta(0))) == ["p-001"]


def test_no_more_workers_are_on_than_licences_are_allowed_and_running_labs_come_first() -> None:
    fleet = many(4)
    fleet[3] = WorkerNeeds(a_worker("p-004", phase=WorkerPhase.READY), (), True)
    fleet[1] = WorkerNeeds(fleet[1].worker, slots((5, 60)), False)
    fleet[2] = WorkerNeeds(fleet[2].worker, slots((1, 60)), False)
    plan = plan_power(a_pool(min=4, allowed_licenses=2), fleet, at(0), timedelta(0))
    assert on(plan) == ["p-003", "p-004"]
    assert plan["p-001"].rule == "licenses"


def test_an_agents_host_takes_no_licence() -> None:
    host = WorkerNeeds(a_worker("a-host", phase=WorkerPhase.READY, runtime="process"), (), False)
    needed = WorkerNeeds(a_worker("p-001"), slots((5, 60)), False)
    assert on(plan_power(a_pool(allowed_licenses=1), [host, needed], at(0), timedelta(0))) == ["p-001"]


@pytest.mark.parametrize("phase", [phase for phase in WorkerPhase if phase is not WorkerPhase.OFFLINE])
def test_a_licence_is_handed_on_when_its_worker_is_off_and_not_while_it_goes_off(phase: WorkerPhase) -> None:
    going = WorkerNeeds(a_worker("p-001", phase=phase), (), False)
    first = WorkerNeeds(a_worker("p-002"), slots((5, 60)), False)
    second = WorkerNeeds(a_worker("p-003"), slots((6, 60)), False)
    on_already = WorkerNeeds(a_worker("p-004", phase=WorkerPhase.READY), slots((7, 60)), False)

    def plan(*fleet: WorkerNeeds, allowed: int) -> dict[str, Any]:
        return plan_power(a_pool(allowed_licenses=allowed), fleet, at(0), timedelta(0))

    assert on(plan(going, first, allowed=1)) == []
    assert plan(going, first, allowed=1)["p-002"].rule == "licenses"
    assert on(plan(going, first, second, allowed=2)) == ["p-002"], "who is needed first"
    assert on(plan(going, on_already, first, allowed=2)) == ["p-004"], "who is on stays on"
    assert on(plan(going, first, second, allowed=3)) == ["p-002", "p-003"]
    gone = WorkerNeeds(a_worker("p-001"), (), False)
    assert on(plan(gone, first, allowed=1)) == ["p-002"]


def booting(name: str, *, since: float) -> Worker:
    """Powered on at minute `since`, and not ready yet."""
    worker = a_worker(name)
    moved = worker.moved(WorkerPhase.PROVISIONING, at=at(since), by="test", reason="PowerOn")
    return moved.moved(WorkerPhase.STARTING, at=at(since + 1), by="test", reason="MachineRuns")


@pytest.mark.parametrize(("reserve", "minutes"), [(None, 2 * BOOT + PREPARATION), (20, BOOT + 20 + PREPARATION)])
def test_a_worker_is_powered_on_so_early_that_a_failed_boot_leaves_time_for_another(
    reserve: int | None, minutes: int
) -> None:
    fleet = [WorkerNeeds(a_worker(), slots((60, 120)), False)]
    pool = a_pool(boot_reserve_minutes=reserve)
    assert on(plan_power(pool, fleet, at(60 - minutes), timedelta(0))) == ["p-001"]
    assert on(plan_power(pool, fleet, at(60 - minutes - 1), timedelta(0))) == []


def test_by_default_the_reserve_is_as_long_as_the_boot() -> None:
    assert PoolSpec(template="t", max=1).reserve_of(20) == 20


def test_a_gap_in_which_the_reserve_would_have_to_begin_is_bridged() -> None:
    first, second = (60, 120), (120 + TURNAROUND + 2 * BOOT + PREPARATION, 300)
    fleet = [WorkerNeeds(a_worker(phase=WorkerPhase.READY), slots(first, second), False)]
    assert plan_power(a_pool(boot_reserve_minutes=None), fleet, at(126), timedelta(0))["p-001"].on


def test_a_boot_that_takes_longer_than_it_should_has_a_stand_in_until_it_is_ready() -> None:
    fleet = many(4)
    slow = booting("p-002", since=0)
    fleet[1] = WorkerNeeds(slow, slots((20, 60)), False)
    assert on(plan_power(a_pool(), fleet, at(BOOT - 0.1), timedelta(0))) == ["p-002"]
    plan = plan_power(a_pool(), fleet, at(BOOT), timedelta(0))
    assert on(plan) == ["p-001", "p-002"]
    assert plan["p-001"].rule == "stand-in"
    up = slow.moved(WorkerPhase.LICENSING, at=at(9), by="test", reason="RuntimeAnswers")
    up = up.moved(WorkerPhase.READY, at=at(9), by="test", reason="InCompliance")
    fleet[1] = WorkerNeeds(up, slots((20, 60)), False)
    assert on(plan_power(a_pool(), fleet, at(10), timedelta(0))) == ["p-002"]


def test_a_slow_cloud_is_not_stormed_with_stand_ins() -> None:
    fleet = many(60)
    for number in range(25):
        fleet[number] = WorkerNeeds(booting(fleet[number].worker.id, since=0), slots((20, 60)), False)
    assert len(on(plan_power(a_pool(max=60), fleet, at(BOOT), timedelta(0)))) == 25 + 3


def reservation(number: int, phase: str, workers: Sequence[str], start: int = 60, end: int = 120) -> Reservation:
    seats = [
        {"seat": seat, "worker": worker, "instance": f"ins-{number}-{seat}"} for seat, worker in enumerate(workers, 1)
    ]
    return Reservation.model_validate(
        {
            "metadata": {"id": f"rsv-{number}", "uid": str(number), "createdAt": SEVEN},
            "spec": {"definition": "d@1.0.0", "seats": max(1, len(seats)), "durationMinutes": end - start},
            "status": {"phase": phase, "slot": {"start": at(start), "end": at(end)}, "placement": seats},
        }
    )


def test_a_thousand_waiting_seats_want_no_worker_on_and_placed_ones_exactly_theirs() -> None:
    waiting = [reservation(number, "Waitlisted", ()) for number in range(1000)]
    placed = [reservation(2000 + n, "Scheduled", [f"p-{1 + n % 3:03d}"] * 5) for n in range(20)]
    needs = needs_of([*waiting, *placed], a_pool())
    fleet = [WorkerNeeds(one.worker, needs.get(one.worker.id, ()), False) for one in many(10)]
    assert on(plan_power(a_pool(), fleet, at(50), timedelta(minutes=30))) == ["p-001", "p-002", "p-003"]
    assert on(plan_power(a_pool(), fleet, at(46), timedelta(minutes=30))) == []


def test_only_seats_that_are_placed_and_not_ended_need_their_worker() -> None:
    done = reservation(1, "Active", ["p-001", "p-002"])
    assert set(needs_of([done], a_pool(), {"ins-1-1"})) == {"p-002"}
    for phase in ("Completed", "Cancelled", "Failed", "Expired", "Pending"):
        assert not needs_of([reservation(2, phase, ["p-001"])], a_pool())
    assert needs_of([reservation(3, "Held", ["p-001"])], a_pool())


spans = st.lists(
    st.tuples(st.integers(0, 600), st.integers(1, 180)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=6
)


@settings(deadline=None)
@given(spans=spans, now=st.integers(0, 900), is_on=st.booleans(), grace=st.integers(0, 90), boot=st.integers(0, 40))
def test_a_worker_is_on_whenever_a_need_runs_and_off_when_none_is_near(
    spans: list[tuple[int, int]], now: int, is_on: bool, grace: int, boot: int
) -> None:
    want = wanted(sorted(spans), now, on=is_on, grace=grace, boot=boot)
    lead = boot + PREPARATION
    if any(start - lead <= now < end + TURNAROUND for start, end in spans):
        assert want.on
    elif not any(now < start and start - now <= max(grace, lead) for start, _ in spans):
        assert not want.on
    assert want.on or want.look is None or want.look > at(now)


@settings(deadline=None)
@given(spans=spans, grace=st.integers(0, 60))
def test_the_power_changes_twice_for_each_stretch_of_the_placement_engine(
    spans: list[tuple[int, int]], grace: int
) -> None:
    """A duty, as the engine counts the money, is a run of needs with gaps of at most max(grace, boot + preparation)."""
    duties: list[list[int]] = []
    for start, end in sorted((start + 20, end + 20) for start, end in spans):
        if duties and start - duties[-1][1] <= max(grace, BOOT + PREPARATION):
            duties[-1][1] = max(duties[-1][1], end + TURNAROUND)
        else:
            duties.append([start, end + TURNAROUND])
    expected = [moment for start, end in duties for moment in (start - BOOT - PREPARATION, end)]
    assert curve(sorted((start + 20, end + 20) for start, end in spans), 1000, grace=grace) == expected
