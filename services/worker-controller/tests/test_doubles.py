"""Two labs of one seat: imports of two owners that cross. One is recorded; the other is not left behind either.

An import looks for the title and then makes the lab; a runtime knows nothing of fences. Whoever stands still between the two
over the end of its lease sends its request when somebody else has looked already.
"""

import asyncio
from typing import Any

import pytest

from lablet_common.resources.instance import LabRef
from lablet_workers.instances.failing import none_left
from lablet_workers.instances.room import Neighbour
from lablet_workers.runtimes.memory import MemoryLab, MemoryRuntime
from lablet_workers.runtimes.port import RuntimeUnavailable
from lablet_workers.strays import Strays

BESIDE = ("default-002", "default-001")
"""Seat 2 is on the worker of the other reservation's seat 1, and has ports of its own."""


@pytest.fixture(autouse=True)
def no_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seat's end does not rely on the sweep, which would find them too, later (`test_strays.py`)."""

    async def look(*_: Any) -> None:
        return

    monkeypatch.setattr(Strays, "look", look)


def titles(fleet: Any) -> list[str]:
    return sorted(lab.title for lab in fleet.runtime().lab_by_id.values())


def twin(fleet: Any, lab: str = "a-twin", title: str = "ins-a-1", *, running: bool = False) -> str:
    """What such a request makes, whoever sent it."""
    fleet.runtime().lab_by_id[lab] = MemoryLab(lab, title, b"", running=running)
    return lab


@pytest.mark.parametrize("late", [45, 70], ids=["before it is recorded", "while it runs"])
async def test_an_owner_that_stood_still_imports_after_the_next_one_has_looked(
    fleet: Any, late: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault run saw it: one lab is started, once; at the end of the slot neither is left."""
    looked, sent, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    real = MemoryRuntime.import_lab

    async def on_its_way(runtime: MemoryRuntime) -> None:
        await sent.wait()
        twin(fleet)
        answered.set()

    async def import_lab(runtime: MemoryRuntime, title: str, topology: bytes) -> str:
        if looked.is_set():
            made = await real(runtime, title, topology)
            if late < 60:
                sent.set()
                await answered.wait()
            return made
        assert title not in (await runtime.labs()).values()
        looked.set()
        requests.append(asyncio.create_task(on_its_way(runtime)))
        await asyncio.Event().wait()
        raise AssertionError

    requests: list[asyncio.Task[None]] = []
    monkeypatch.setattr(MemoryRuntime, "import_lab", import_lab)
    await fleet.book("a", 60, 90)
    await fleet.at(57)
    assert looked.is_set()
    await fleet.crash()
    await fleet.start()
    await fleet.at(70)
    sent.set()
    await requests[0]
    assert await fleet.phase() == "Running"
    assert titles(fleet) == ["ins-a-1", "ins-a-1"]
    await fleet.at(97)
    assert await fleet.phase() == "Terminated"
    assert titles(fleet) == []
    assert fleet.runtime().history.count(("started", "ins-a-1")) == 1


@pytest.mark.parametrize("running", [False, True])
async def test_the_end_of_a_seat_is_the_end_of_every_lab_that_bears_its_title_and_of_no_other(
    fleet: Any, running: bool
) -> None:
    await fleet.book("a", 60, 90)
    await fleet.book("b", 60, 120, workers=BESIDE)
    await fleet.at(70)
    twin(fleet, running=running)
    twin(fleet, "another")
    twin(fleet, "exam", "Lab at Mon 12:00")
    await fleet.at(97)
    assert await fleet.phase() == "Terminated"
    assert titles(fleet) == ["Lab at Mon 12:00", "ins-b-2"]
    assert fleet.runtime().history.count(("started", "ins-b-2")) == 1
    assert await fleet.phase("b", 2) == "Running"


async def test_the_labs_of_other_seats_are_not_asked_for_their_titles(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a controller each title costs a call; labs of hands and strays cost one, a neighbour's recorded lab does not."""
    await fleet.book("a", 60, 90)
    await fleet.book("b", 60, 180, workers=BESIDE)
    await fleet.at(70)
    other, named = (await fleet.instance("b", 2)).status.lab.id, []
    real = MemoryRuntime.labs

    async def labs(runtime: MemoryRuntime, besides: Any = ()) -> Any:
        named.append(set(besides))
        return await real(runtime, besides)

    await fleet.at(89)
    monkeypatch.setattr(MemoryRuntime, "labs", labs)
    await fleet.at(94)
    assert await fleet.phase() == "Terminated"
    assert {other} in named


@pytest.mark.parametrize(("machine", "asked"), [("m-1", False), ("m-0", True)])
async def test_what_a_neighbour_had_on_an_earlier_machine_says_nothing_of_a_lab_here(
    fleet: Any, machine: str, asked: bool
) -> None:
    """Ids are a machine's own: another one may have given the same."""
    await fleet.book("a", 60, 90)
    await fleet.book("b", 60, 180, workers=BESIDE)
    await fleet.at(70)
    lab = twin(fleet)
    situation = fleet.controller.labs.situation(await fleet.instance())
    recorded = LabRef(id=lab, worker="default-001", machine=machine)
    beside = (await fleet.instance("b", 2)).observed(lab=recorded)
    situation.neighbours = lambda: [Neighbour(beside, None)]
    assert not await none_left(situation), "its own lab still runs"
    assert (lab not in fleet.runtime().lab_by_id) is asked


async def test_a_seat_whose_own_lab_vanished_leaves_no_twin_either(fleet: Any) -> None:
    await fleet.book("a", 60, 90)
    await fleet.at(89)
    fleet.runtime().refusals["stop"] = [RuntimeUnavailable("later")]
    await fleet.at(90)
    assert await fleet.phase() == "Stopping"
    twin(fleet)
    del fleet.runtime().lab_by_id[(await fleet.instance()).status.lab.id]
    await fleet.at(97)
    assert await fleet.phase() == "Terminated"
    assert titles(fleet) == []


async def test_a_seat_that_is_given_back_before_its_lab_was_recorded_leaves_neither(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def import_lab(runtime: MemoryRuntime, title: str, topology: bytes) -> str:
        if not runtime.lab_by_id:
            twin(fleet)
            twin(fleet, "another", running=True)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(MemoryRuntime, "import_lab", import_lab)
    await fleet.book("a", 60, 90)
    await fleet.at(57)
    assert titles(fleet) == ["ins-a-1", "ins-a-1"]
    await fleet.crash()
    await fleet.cancel("a")
    await fleet.start()
    await fleet.at(65)
    assert await fleet.phase() == "Terminated"
    assert titles(fleet) == []


async def test_an_attempt_that_failed_is_over_when_no_lab_of_it_is_left(fleet: Any) -> None:
    """Before, its seat is not free, and nothing of it may be started elsewhere."""
    fleet.settings["controller_instantiation_minutes"] = 6
    await fleet.crash()
    await fleet.start()
    await fleet.book("a", 60, 240)
    fleet.closed = {"r1": "does not answer"}
    await fleet.at(59)
    assert await fleet.phase() == "Instantiating"
    twin(fleet)
    await fleet.at(64)
    instance = await fleet.instance()
    assert (instance.phase, instance.status.reason, instance.status.released) == ("Failed", "DeadlineMissed", True)
    assert titles(fleet) == []


async def test_labs_that_people_named_alike_are_all_stopped_so_that_the_licence_is_given_back(fleet: Any) -> None:
    await fleet.book("a", 60, 90)
    await fleet.at(89)
    for lab in ("z", "y"):
        twin(fleet, lab, "Lab at Mon 12:00", running=True)
    await fleet.at(130)
    assert (await fleet.worker()).phase == "Offline"
    assert ("deregistered", "") in fleet.runtime().history
