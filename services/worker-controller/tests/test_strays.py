"""Labs that no record accounts for are ended, late and only on what the runtime positively shows."""

import asyncio
from typing import Any

import pytest

from lablet_common.resources.kinds import WORKER
from lablet_workers.runtimes.memory import MemoryLab
from lablet_workers.strays import is_stray


async def lost_lab(fleet: Any, title: str = "ins-lost-1") -> str:
    """A running lab beside the seat's own; the worker is up, and looks are at every fifth minute."""
    await fleet.book("a", 30, 180)
    await fleet.at(42)
    assert await fleet.phase() == "Running"
    lab: str = await fleet.runtime().import_lab(title, b"")
    await fleet.runtime().start(lab)
    return lab


def there(fleet: Any, lab: str) -> str:
    found = fleet.runtime().lab_by_id.get(lab)
    return "gone" if found is None else "running" if found.running else "stopped"


async def test_a_lab_without_a_record_is_stopped_and_removed_after_two_sightings_and_the_grace(fleet: Any) -> None:
    lab = await lost_lab(fleet)
    await fleet.at(59)
    assert there(fleet, lab) == "running"
    await fleet.at(61)
    assert there(fleet, lab) == "stopped"
    await fleet.at(66)
    assert there(fleet, lab) == "gone"
    assert await fleet.phase() == "Running", "the seat's own goes on"
    assert fleet.runtime().history.count(("started", "ins-a-1")) == 1


@pytest.mark.parametrize(("speed", "looks"), [(1, 12), (240, 1)])
async def test_a_clock_that_runs_fast_does_not_make_workers_answer_more_often(
    fleet: Any, speed: float, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.book("a", 30, 180)
    await fleet.at(42)
    runtime, asked = fleet.runtime(), []
    real = type(runtime).labs

    async def labs(self: Any, *more: Any) -> Any:
        asked.append(fleet.clock.now())
        return await real(self, *more)

    monkeypatch.setattr(type(runtime), "labs", labs)
    monkeypatch.setattr(type(fleet.clock), "speed", speed)
    await fleet.at(102)
    assert len(asked) == looks


@pytest.mark.parametrize("title", ["warm-0123456789abcdef-0", "My own lab", "instance", "Lab at Mon 12:00"])
async def test_other_peoples_labs_are_left_alone(fleet: Any, title: str) -> None:
    lab = await lost_lab(fleet, title)
    await fleet.at(100)
    assert there(fleet, lab) == "running"


async def test_the_lab_of_an_instance_that_has_ended_is_ended(fleet: Any) -> None:
    await fleet.book("old", 20, 30)
    await fleet.book("a", 35, 180)
    await fleet.at(60)
    assert await fleet.phase("old") == "Terminated"
    lab = await fleet.runtime().import_lab("ins-old-1", b"")
    await fleet.at(90)
    assert there(fleet, lab) == "gone"


async def test_a_worker_that_does_not_answer_begins_nothing_and_a_restart_begins_the_grace_anew(fleet: Any) -> None:
    lab = await lost_lab(fleet)
    await fleet.at(56)
    await fleet.crash()
    await fleet.start()
    await fleet.at(70)
    assert there(fleet, lab) == "running"
    await fleet.at(81)
    assert there(fleet, lab) == "gone"


async def test_a_lab_whose_record_comes_meanwhile_is_left_alone(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restore: the seat's instance is made anew, and takes its lab as it runs."""
    lab = await lost_lab(fleet, "ins-b-1")
    await fleet.at(59)
    runtime = fleet.runtime()
    real, booked = type(runtime).progress, []

    async def progress(self: Any, asked: str) -> Any:
        found = await real(self, asked)
        if asked == lab and not booked:
            booked.append(asked)
            await fleet.book("b", 30, 170)
        return found

    monkeypatch.setattr(type(runtime), "progress", progress)
    await fleet.at(100)
    assert booked
    assert there(fleet, lab) == "running"
    assert ("stopped", "ins-b-1") not in runtime.history


async def test_a_second_lab_of_a_seat_that_runs_on_is_ended_and_its_own_is_not(fleet: Any) -> None:
    await fleet.book("a", 30, 180)
    await fleet.at(42)
    runtime, own = fleet.runtime(), (await fleet.instance()).status.lab.id
    runtime.lab_by_id["a-twin"] = MemoryLab("a-twin", "ins-a-1", b"")
    await fleet.at(66)
    assert set(runtime.lab_by_id) == {own}
    assert await fleet.phase() == "Running"
    assert ("stopped", "ins-a-1") not in runtime.history


async def test_only_a_lab_of_ours_where_its_seat_is_not_is_a_stray(fleet: Any) -> None:
    await fleet.book("a", 30, 180)
    await fleet.at(42)
    instance = await fleet.instance()
    own = instance.status.lab.id
    assert not is_stray(own, "ins-a-1", "default-001", instance)
    assert is_stray(own, "ins-a-1", "default-002", instance)
    assert is_stray("another", "ins-a-1", "default-001", instance)
    assert not is_stray("another", "ins-a-1", "default-001", instance.observed(lab=None)), "it may become its own"
    assert is_stray("lab", "ins-b-1", "default-001", None)
    assert not is_stray("lab", "exam", "default-001", None)


@pytest.mark.parametrize("warm", [3600, 0.001], ids=["swept", "warmed"])
async def test_a_worker_that_cannot_be_asked_at_all_stops_nobody_else(fleet: Any, warm: float) -> None:
    """Its password was sealed with a key that is no longer there."""
    fleet.settings["controller_warm_seconds"] = warm
    await fleet.book("a", 30, 180)
    await fleet.book("b", 30, 180, workers=("default-002",))
    await fleet.at(42)
    await fleet.crash()
    worker = await fleet.worker(1)
    await fleet.all(WORKER).update(worker.observed(credentials="older:AAAA"))
    await fleet.start()
    lab = await fleet.runtime("m-2").import_lab("ins-lost-1", b"")
    await asyncio.sleep(0.02)
    await fleet.at(62)
    assert lab not in fleet.runtime("m-2").lab_by_id
    assert await fleet.phase("b") == "Running"


async def test_a_look_that_fails_is_tried_again(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await lost_lab(fleet)

    async def odd(*_: Any) -> Any:
        raise RuntimeError("odd")

    with monkeypatch.context() as for_a_while:
        for_a_while.setattr(type(fleet.runtime()), "labs", odd)
        for_a_while.setattr(fleet.provider, "find", odd)
        await fleet.at(56)
    await fleet.at(90)
    assert there(fleet, lab) == "gone"
