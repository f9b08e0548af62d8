"""Labs that run again inside their slot: started after a stop, restarted when they stopped by themselves, tried again."""

from typing import Any

import pytest

from lablet_common.resources.kinds import INSTANCE
from lablet_workers.providers.port import MachineState
from lablet_workers.runtimes.port import RuntimeFault, RuntimeUnavailable


def lab(fleet: Any) -> Any:
    return next(iter(fleet.runtime().lab_by_id.values()))


async def outcome(fleet: Any, verb: str) -> tuple[str, str]:
    request = await fleet.ask("instance", verb, "ins-a-1")
    problem = request.status.problem
    return str(request.phase), problem.type.rpartition("/")[2] if problem else request.status.reason


async def test_a_lab_that_was_stopped_inside_its_slot_is_started_again(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    assert await outcome(fleet, "stop") == ("Decided", "StopRequested")
    await fleet.at(73)
    assert (await fleet.phase(), lab(fleet).running) == ("Stopped", False)
    assert await outcome(fleet, "start") == ("Decided", "StartRequested")
    assert await outcome(fleet, "start") == ("Decided", "AlreadyStarted")
    await fleet.at(75)
    again = await fleet.instance()
    assert (again.phase, again.status.reason, again.status.restart) == ("Running", "Restarted", False)
    assert fleet.imports == ["ins-a-1"], "the lab is the same, with what was saved in it"
    assert lab(fleet).starts == 2
    await fleet.at(123)
    assert await fleet.phase() == "Terminated"


async def test_a_stopped_lab_is_kept_for_a_while_and_then_given_up(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    await outcome(fleet, "stop")
    await fleet.at(84)
    assert await fleet.phase() == "Stopped"
    await fleet.at(88)
    assert await fleet.phase() == "Terminated"
    assert await outcome(fleet, "start") == ("Refused", "illegal-transition")


async def test_a_start_goes_on_after_a_crash(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    await outcome(fleet, "stop")
    await fleet.at(73)
    await fleet.crash()
    await outcome(fleet, "start")
    await fleet.start()
    await fleet.at(76)
    assert await fleet.phase() == "Running"


async def test_a_lab_that_does_not_come_up_again_fails_by_its_deadline(fleet: Any) -> None:
    await fleet.book("a", 60, 300)
    await fleet.at(70)
    await outcome(fleet, "stop")
    await fleet.at(73)
    fleet.closed = {"r1": "nothing answers"}
    await outcome(fleet, "start")
    await fleet.at(130)
    assert await fleet.phase() == "Stopped"
    await fleet.at(134)
    assert (await fleet.instance()).status.reason == "DeadlineMissed"


async def asked_to_start_at(fresh: Any, moment: float) -> Any:
    """One whose slot is from 60 to 120 was stopped, and comes up again for long."""
    fleet = fresh()
    await fleet.seed()
    await fleet.define(collect=["configurations", "export"])
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(moment - 4)
    await outcome(fleet, "stop")
    await fleet.at(moment)
    assert await fleet.phase() == "Stopped"
    fleet.runtime().instant = False
    await outcome(fleet, "start")
    await fleet.at(moment + 2)
    assert lab(fleet).running
    return fleet


@pytest.mark.parametrize("cancelled", [False, True], ids=["its slot ends", "its reservation is cancelled"])
async def test_a_lab_that_is_coming_up_again_is_stopped_exported_and_removed_when(fresh: Any, cancelled: bool) -> None:
    fleet = await asked_to_start_at(fresh, 90 if cancelled else 115)
    if cancelled:
        await fleet.at(93)
        await fleet.cancel("a")
    await fleet.at(97 if cancelled else 124)
    ended = await fleet.instance()
    assert (ended.phase, lab_count(fleet)) == ("Terminated", 0)
    assert "Exported" in [move.reason for move in ended.status.history]
    assert ended.status.restart is False


async def test_a_start_that_is_taken_back_leaves_the_lab_stopped(fresh: Any) -> None:
    fleet = await asked_to_start_at(fresh, 80)
    assert await outcome(fleet, "stop") == ("Decided", "StopRequested")
    await fleet.at(83)
    assert (await fleet.phase(), lab(fleet).running) == ("Stopped", False)
    assert await outcome(fleet, "stop") == ("Decided", "AlreadyStopped")
    fleet.runtime().instant = True
    await outcome(fleet, "start")
    await fleet.at(86)
    assert await fleet.phase() == "Running"


def lab_count(fleet: Any) -> int:
    return len(fleet.runtime().lab_by_id)


async def test_a_lab_that_stopped_by_itself_is_noticed_and_started_again(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    lab(fleet).running = False
    await fleet.at(73)
    again = await fleet.instance()
    assert (again.phase, again.status.restarts, lab(fleet).running) == ("Running", 1, True)
    assert "LabStopped" in [move.reason for move in again.status.history]
    assert fleet.imports == ["ins-a-1"]


async def test_a_lab_that_vanished_is_imported_again(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.runtime().lab_by_id.clear()
    await fleet.at(74)
    again = await fleet.instance()
    assert (again.phase, again.status.restarts) == ("Running", 1)
    assert "LabVanished" in [move.reason for move in again.status.history]
    assert fleet.imports == ["ins-a-1", "ins-a-1"]


async def test_after_three_restarts_the_seat_gets_another_place(fleet: Any) -> None:
    await fleet.book("a", 60, 300)
    for moment in range(65, 100, 5):
        await fleet.at(moment)
        if fleet.runtime().lab_by_id and await fleet.phase() == "Running":
            lab(fleet).running = False
    gone = await fleet.instance()
    assert (gone.phase, gone.status.released, gone.status.restarts) == ("Failed", True, 3)
    assert fleet.runtime().lab_by_id == {}
    await fleet.move_seat("a", "default-002")
    await fleet.at(115)
    moved = await fleet.instance()
    assert (moved.phase, moved.spec.worker, moved.status.restarts) == ("Running", "default-002", 0)


async def test_a_runtime_that_does_not_answer_says_nothing_about_its_labs(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.runtime().up = False
    await fleet.at(75)
    fleet.runtime().up = True
    await fleet.at(80)
    assert (await fleet.phase(), (await fleet.instance()).status.restarts) == ("Running", 0)


async def test_the_state_of_each_node_follows_what_the_lab_does(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    before = (await fleet.instance()).status.nodes
    lab(fleet).states = {"r1": "BOOTED", "r2": "STOPPED"}
    await fleet.at(72)
    after = await fleet.instance()
    assert before != after.status.nodes
    assert [(node.label, node.state) for node in after.status.nodes] == [("r1", "BOOTED"), ("r2", "STOPPED")]
    assert after.phase == "Running", "one node that somebody stopped is that somebody's business"
    await fleet.at(80)
    assert (await fleet.instance()).revision == after.revision, "nothing new: nothing is written"


async def test_a_failed_seat_is_tried_again_on_its_worker(fleet: Any) -> None:
    fleet.runtimes.by_url["memory://m-1"] = runtime = type(fleet.runtimes.open("memory://x", "y"))()
    runtime.refusals = {"start": [RuntimeFault("no licence left")] * 3}
    await fleet.book("a", 60, 300)
    await fleet.at(70)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason, failed.status.released) == ("Failed", "RuntimeRefused", True)
    assert await outcome(fleet, "retry") == ("Decided", "RetryRequested")
    await fleet.at(73)
    assert await fleet.phase() == "Running"
    assert await outcome(fleet, "retry") == ("Decided", "AlreadyTrying")


async def test_a_retry_waits_until_the_lab_is_proven_gone(fleet: Any) -> None:
    fleet.runtimes.by_url["memory://m-1"] = runtime = type(fleet.runtimes.open("memory://x", "y"))()
    runtime.refusals = {"start": [RuntimeFault("no")] * 3, "remove": [RuntimeUnavailable("later")] * 5000}
    await fleet.book("a", 60, 300)
    await fleet.at(64)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.released) == ("Failed", False)
    assert await outcome(fleet, "retry") == ("Refused", "not-ready")


async def test_a_retry_after_the_slot_or_of_a_lost_seat_is_refused(fleet: Any) -> None:
    fleet.runtimes.by_url["memory://m-1"] = runtime = type(fleet.runtimes.open("memory://x", "y"))()
    runtime.refusals = {"start": [RuntimeFault("no")] * 30}
    await fleet.book("a", 60, 90)
    await fleet.at(80)

    def lost(reservation: Any) -> Any:
        seat = reservation.status.placement[0].model_copy(update={"state": "lost"})
        return reservation.observed(placement=(seat,))

    await fleet.crash()
    await fleet.rebook("a", lost)
    assert await outcome(fleet, "retry") == ("Refused", "illegal-transition")


@pytest.mark.parametrize("stuck", ["Collecting", "Collecting before", "Grading", "Stopping", "Exported"])
async def test_a_seat_that_was_ended_on_request_is_not_run_again_when_it_fails_then(fresh: Any, stuck: str) -> None:
    """Its failure does not offer it for another place at any revision."""
    fleet = fresh()
    await fleet.seed()
    await fleet.define(grade=True, collect=["configurations"])
    await fleet.start()
    await fleet.book("a", 60, 180)
    await fleet.at(70)
    runtime = fleet.runtime()
    runtime.refusals = {"stop": [RuntimeUnavailable("later")] * 5000} if stuck == "Stopping" else {}
    fleet.settings["controller_restart_minutes"] = 0
    await fleet.crash()
    await fleet.start()
    if stuck == "Exported":
        runtime.refusals = {"remove": [RuntimeUnavailable("later")] * 5000}
    fleet.clerk_works = not stuck.startswith("Collecting")
    if stuck == "Collecting before":
        await outcome(fleet, "collect")
        stuck = "Collecting"
    await outcome(fleet, "stop")
    await fleet.at(74)
    if stuck not in ("Collecting", "Grading"):
        await fleet.ask("assessment", "grading.completed", "ins-a-1", {"passed": True, "score": 3})
        await fleet.at(78)
    assert await fleet.phase() == stuck
    offered: list[str] = []
    fleet.controller.estate.caches[INSTANCE].subscribe(
        lambda _old, new, _: offered.append(str(new.phase)) if new is not None and new.status.released else None
    )
    if stuck == "Exported":  # it cannot be removed in time
        await fleet.at(112)
        assert await fleet.phase() == "Failed"
        runtime.refusals = {}
        await fleet.at(116)
    else:
        runtime.up = False
        fleet.provider.become("m-1", MachineState.STOPPED, "lost")
        await fleet.at(84)
    ended = await fleet.instance()
    assert set(offered) == {"Terminated"}
    assert (ended.phase, ended.status.released, ended.status.ran) == ("Terminated", True, True)
    assert fleet.imports == ["ins-a-1"]
