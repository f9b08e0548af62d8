"""The store is lost in the middle of a day and comes back as it was some time before: what runs is found again."""

from datetime import timedelta
from typing import Any

import pytest

from lablet_common.store import MemoryStore
from lablet_common.transfer import export_lines, import_entries, read_lines


async def restored(mesh: Any, lines: list[bytes]) -> None:
    """A new, empty store with what was saved; machines, labs and stored objects are as they are now."""
    await mesh.stop()
    mesh.store = MemoryStore()
    await import_entries(mesh.store, read_lines(lines))
    await mesh.start()


def count(mesh: Any, what: str) -> dict[str, int]:
    """How often that was done to each lab, on all machines."""
    found: dict[str, int] = {}
    for runtime in mesh.runtimes.by_url.values():
        for deed, title in runtime.history:
            if deed == what:
                found[title] = found.get(title, 0) + 1
    return found


@pytest.mark.parametrize(
    "saved", [170, 178, 185], ids=["before the machine was on", "while labs came up", "in the slot"]
)
async def test_a_day_goes_on_from_an_older_state_with_what_really_runs(mesh: Any, saved: int) -> None:
    await mesh.publish("ospf-basics")
    await mesh.reserve("rsv-a", at=timedelta(hours=3), seats=2)
    await mesh.reserve("rsv-b", at=timedelta(hours=6))
    await mesh.until(timedelta(minutes=saved))
    lines = [line async for line in export_lines(mesh.store)]
    await mesh.until(timedelta(hours=3, minutes=20))
    assert (await mesh.instance("ins-a-1")).phase == "Running"

    await restored(mesh, lines)
    await mesh.until(timedelta(hours=3, minutes=30))
    assert {(await mesh.instance(f"ins-a-{seat}")).phase for seat in (1, 2)} == {"Running"}
    assert (await mesh.reservation("rsv-a")).phase == "Active"
    assert count(mesh, "started") == {"ins-a-1": 1, "ins-a-2": 1}, "no lab is run twice"
    assert len(mesh.provider.machines) == 1, "the machine that is on is the worker's own again"

    await mesh.until(timedelta(hours=7, minutes=40))
    assert (await mesh.reservation("rsv-a")).phase == "Completed"
    assert (await mesh.reservation("rsv-b")).phase == "Completed"
    assert all(runtime.lab_by_id == {} for runtime in mesh.runtimes.by_url.values()), "nothing is left over"
    assert (await mesh.worker()).phase == "Offline"
    collected = [ref.name for ref in (await mesh.instance("ins-a-1")).status.artifacts if ref.role == "collected"]
    assert "r1.cfg" in collected


async def test_a_lab_that_the_restored_store_does_not_know_is_ended_and_the_others_are_not(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    await mesh.reserve("rsv-a", at=timedelta(hours=3), minutes=180)
    await mesh.until(timedelta(hours=3, minutes=5))
    lines = [line async for line in export_lines(mesh.store)]
    await mesh.reserve("rsv-lost", at=timedelta(hours=3, minutes=30), minutes=180)
    await mesh.until(timedelta(hours=3, minutes=40))
    assert (await mesh.instance("ins-lost-1")).phase == "Running"

    await restored(mesh, lines)
    await mesh.until(timedelta(hours=4, minutes=10))
    assert await mesh.instance("ins-lost-1") is None
    titles = {lab.title for runtime in mesh.runtimes.by_url.values() for lab in runtime.lab_by_id.values()}
    assert titles == {"ins-a-1"}
    assert count(mesh, "started") == {"ins-a-1": 1, "ins-lost-1": 1}
    assert (await mesh.instance("ins-a-1")).phase == "Running"


async def test_what_was_asked_and_not_decided_is_decided_after_the_restore(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    await mesh.stop()
    await mesh.ask("requested", "rsv-late", {
        "id": "rsv-late", "owner": "teacher", "definition": "ospf-basics@1.0.0", "pools": ["default"], "seats": 1,
        "start": (mesh.clock.now() + timedelta(hours=5)).isoformat(), "durationMinutes": 60,
        "end": (mesh.clock.now() + timedelta(hours=6)).isoformat(),
    })  # fmt: skip
    lines = [line async for line in export_lines(mesh.store)]
    await restored(mesh, lines)
    await mesh.settle()
    assert (await mesh.reservation("rsv-late")).phase == "Scheduled"
