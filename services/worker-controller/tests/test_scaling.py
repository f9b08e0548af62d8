"""What keeps a worker on without a need or off in spite of one: the gap, the cooldown, the licences; and how it is told."""

from typing import Any

import pytest

from lablet_common.resources.kinds import POOL
from lablet_workers.providers.port import InsufficientCapacity


def scaling(worker: Any) -> tuple[str, str, str]:
    told = worker.status.scaling
    return told.direction, told.state, told.rule


async def test_a_worker_kept_off_by_the_pool_s_licences_says_so_once_and_goes_up_when_there_is_one(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed(allowed_licenses=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.book("b", 60, 240, workers=("default-002",))
    before = await fleet.gate()
    await fleet.at(48)
    held = await fleet.worker(2)
    assert scaling(held) == ("held", "decided", "licenses")
    await fleet.at(50)
    assert (await fleet.worker(2)).revision == held.revision, "told once"
    assert await fleet.gate() == before
    await fleet.at(130)
    assert scaling(await fleet.worker(2)) == ("up", "completed", "calendar")


async def test_a_worker_kept_on_through_a_gap_says_so_once_and_then_that_it_is_needed_again(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 145, 200)
    await fleet.at(119)
    assert scaling(await fleet.worker()) == ("up", "completed", "calendar"), "a lab that comes up is no new decision"
    before = await fleet.gate()
    await fleet.at(126)
    held = await fleet.worker()
    assert scaling(held) == ("held", "decided", "gap-within-grace")
    await fleet.at(128)
    assert (await fleet.worker()).revision == held.revision, "told once"
    await fleet.at(150)
    assert scaling(await fleet.worker()) == ("held", "decided", "calendar")
    assert await fleet.gate() == before
    await fleet.at(207)
    assert scaling(await fleet.worker()) == ("down", "completed", "no-need")


async def test_a_worker_that_came_up_stays_on_for_the_cooldown_and_says_so(fresh: Any) -> None:
    """It is Ready at 47 and needed until 95; an hour and a half after it came up it may go."""
    fleet = fresh()
    await fleet.seed(cooldown_minutes=90)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.at(97)
    held = await fleet.worker()
    assert scaling(held) == ("held", "decided", "cooldown")
    await fleet.at(136)
    assert (await fleet.worker()).revision == held.revision
    await fleet.at(139)
    down = await fleet.worker()
    assert (down.phase, scaling(down)) == ("Offline", ("down", "completed", "no-need"))


@pytest.mark.parametrize(("cooldown", "late"), [(0, 0), (35, 0), (35, 12), (60, 12)])
async def test_a_cooldown_no_longer_than_the_slot_keeps_no_worker_on_for_longer(
    fresh: Any, cooldown: int, late: int
) -> None:
    """Slot and turnaround take thirty-five minutes, so whatever came up by the slot has cooled down by then (ADR 0034)."""
    fleet = fresh()
    await fleet.seed(cooldown_minutes=cooldown)
    await fleet.define()
    await fleet.start()
    if late:
        fleet.provider.launch_refused = InsufficientCapacity("not yet")
    await fleet.book("a", 60, 90)
    await fleet.at(47 + late)
    fleet.provider.launch_refused = None
    await fleet.at(62)
    assert await fleet.phase() == "Running"
    await fleet.at(97)
    assert (await fleet.worker()).phase == ("Ready" if cooldown == 60 else "Offline")


@pytest.mark.parametrize("way", ["replaced", "maintenance", "licenses"])
async def test_a_cooldown_keeps_nobody_from_being_switched_off_for_another_reason(fresh: Any, way: str) -> None:
    fleet = fresh()
    await fleet.seed(cooldown_minutes=600, allowed_licenses=1 if way == "licenses" else None)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.at(97)
    assert (await fleet.worker()).phase == "Ready"
    match way:
        case "replaced":
            await fleet.ask("worker", "replace", "default-001")
        case "maintenance":
            await fleet.ask("worker", "drain", "default-001", {"force": True})
        case "licenses":
            pool = await fleet.all(POOL).require("default")
            await fleet.all(POOL).update(pool.respecified(allowed_licenses=0))
    await fleet.at(105)
    assert (await fleet.worker()).phase == "Offline"


async def test_a_worker_that_only_cools_down_leaves_its_licence_to_one_that_is_needed(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed(cooldown_minutes=600, allowed_licenses=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.book("b", 120, 200, workers=("default-002",))
    await fleet.at(100)
    assert (await fleet.worker(1)).phase == "Ready"
    await fleet.at(125)
    assert ((await fleet.worker(1)).phase, await fleet.phase("b")) == ("Offline", "Running")
