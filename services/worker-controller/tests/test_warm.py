"""Labs that wait on workers for seats: as many as are wanted, where they could run, and each becomes one seat's alone."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.objects import put_content
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import DEFINITION, WORKER
from lablet_common.resources.worker import Cordon
from lablet_workers.runtimes.memory import MemoryRuntime
from lablet_workers.runtimes.port import RuntimeFault
from lablet_workers.warm import import_or_adopt, title_of, wanted_on

FILE = b"lab: {title: Small, version: 0.2.2}\nnodes: []\nlinks: []\n"


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def defined(fleet: Any, depth: int) -> Definition:
    digest = await put_content(fleet.objects, "default", FILE, "application/yaml")
    present = await fleet.all(DEFINITION).get("lab@1.0.0")
    topology = present.spec.topology.model_copy(update={"digest": digest, "bytes": len(FILE)})
    await fleet.all(DEFINITION).update(present.respecified(topology=topology, warm_depth=depth))
    fleet.settings["controller_warm_seconds"] = 0.01
    await fleet.crash()
    await fleet.start()
    found: Definition = await fleet.all(DEFINITION).get("lab@1.0.0")
    return found


def waiting(fleet: Any) -> list[str]:
    return sorted(lab.title for lab in fleet.runtime().lab_by_id.values() if lab.title.startswith("warm-"))


async def test_a_seat_takes_a_lab_that_waits_and_another_one_comes_to_wait(fleet: Any) -> None:
    definition = await defined(fleet, 2)
    await fleet.book("a", 60, 120)
    await fleet.at(59)
    await until(lambda: waiting(fleet) == [title_of(definition, 0), title_of(definition, 1)])
    assert await fleet.phase() == "Running", "the first seat came before any lab waited"
    await fleet.book("b", 140, 200)
    await fleet.at(139)
    assert await fleet.phase("b") == "Running"
    assert ("adopted", "ins-b-1") in fleet.runtime().history
    assert ("imported", "ins-b-1") not in fleet.runtime().history
    await until(lambda: len(waiting(fleet)) == 2)
    taken = next(lab for lab in fleet.runtime().lab_by_id.values() if lab.title == "ins-b-1")
    assert taken.topology == b"lab of ins-b-1", "it is what was rendered for the seat"
    assert not any(lab.running for lab in fleet.runtime().lab_by_id.values() if lab.title.startswith("warm-"))


async def test_labs_that_nobody_wants_any_more_are_removed(fleet: Any) -> None:
    definition = await defined(fleet, 1)
    await fleet.book("a", 60, 120)
    await fleet.at(59)
    await until(lambda: len(waiting(fleet)) == 1)
    deprecated = definition.moved("Deprecated", at=fleet.clock.now(), by="test", reason="Test")
    await fleet.all(DEFINITION).update(deprecated)
    await until(lambda: waiting(fleet) == [])
    assert await fleet.phase() == "Running"


async def test_without_a_depth_nothing_waits(fleet: Any) -> None:
    await defined(fleet, 0)
    await fleet.book("a", 60, 120)
    await fleet.at(59)
    await asyncio.sleep(0.1)
    assert waiting(fleet) == []
    assert ("imported", "ins-a-1") in fleet.runtime().history


def definition(**spec: Any) -> Definition:
    body = {
        "name": "lab", "version": "1.0.0", "topology": {"digest": "a" * 64, "bytes": 1}, "warmDepth": 1,
        "requirements": {"cpuCores": 1, "memoryGb": 1, "nodeCount": 5},
    }  # fmt: skip
    return Definition.model_validate(
        {
            "metadata": {"id": "lab@1.0.0", "uid": "d", "createdAt": "2027-03-01T07:00:00Z"},
            "spec": body | spec,
            "status": {"phase": "Published"},
        }
    )


async def test_labs_wait_only_where_they_could_run(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(59)
    worker = await fleet.all(WORKER).get("default-001")
    assert worker.phase == "Ready"
    fits = definition()
    assert list(wanted_on(worker, [fits]).values()) == [fits]
    assert wanted_on(worker, [definition(licenses=["PERSONAL"])]) == {}
    assert wanted_on(worker, [definition(requirements=fits.spec.requirements.to_dict() | {"nodeCount": 10_000})]) == {}
    allowed = fits.spec.requirements.to_dict() | {"nodeCount": 9}
    few = worker.status.license.model_copy(update={"node_quota": 8})
    licensed_for_few = worker.observed(license=few)
    assert wanted_on(worker, [definition(requirements=allowed)]) != {}
    assert wanted_on(licensed_for_few, [definition(requirements=allowed)]) == {}, "its licence allows eight nodes"
    assert wanted_on(worker, [definition(topology={"digest": "a" * 64, "bytes": 1, "format": "process"})]) == {}
    cordoned = worker.respecified(unschedulable=Cordon(reason="test", by="ada"))
    assert wanted_on(cordoned, [fits]) == {}
    deeper = definition(warmDepth=3)
    (chosen,) = wanted_on(worker, [fits, deeper, fits]).values()
    assert chosen.spec.warm_depth == 3, "of definitions with one file the deepest counts"


async def test_two_seats_at_once_never_share_a_lab() -> None:
    runtime, wanted = MemoryRuntime(), definition()
    for number in range(2):
        await runtime.import_lab(title_of(wanted, number), FILE)
    made = await asyncio.gather(*(import_or_adopt(runtime, f"ins-{n}-1", f"{n}".encode(), wanted) for n in range(4)))
    assert len(set(made)) == 4
    assert sum(what == "adopted" for what, _ in runtime.history) == 2
    again = await import_or_adopt(runtime, "ins-0-1", b"0", wanted)
    assert again == made[0], "found again by its title"


@pytest.mark.parametrize("how", ["refused", "unlike"])
async def test_a_lab_that_cannot_be_taken_costs_no_seat(how: str) -> None:
    runtime, wanted = MemoryRuntime(), definition()
    lab = await runtime.import_lab(title_of(wanted, 0), FILE)
    if how == "refused":
        runtime.refusals["adopt"] = [RuntimeFault("500")]
    else:
        runtime.lab_by_id[lab].starts = 1
    made = await import_or_adopt(runtime, "ins-a-1", b"mine", wanted)
    assert made != lab
    assert runtime.lab_by_id[made].topology == b"mine"
    assert (lab in runtime.lab_by_id) == (how == "refused"), "one that is not like its file is thrown away"
