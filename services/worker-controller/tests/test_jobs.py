"""Labs that end by themselves, and labs of processes that nobody approved, as the controller's steps see them."""

from typing import Any

import pytest

from lablet_common.resources.definition import Approval
from lablet_common.resources.kinds import DEFINITION, WORKER
from lablet_workers.runtimes.memory import MemoryRuntime
from lablet_workers.runtimes.port import LabProgress


@pytest.fixture
async def jobs(fresh: Any) -> Any:
    made = fresh()
    await made.seed()
    await made.define(untilCompleted=True)
    await made.start()
    return made


def says(monkeypatch: pytest.MonkeyPatch, **progress: Any) -> None:
    """What the runtime tells of every lab from now on."""
    told = LabProgress(**{"converged": False, "stopped": False, "nodes": {"a": "RUNNING"}} | progress)

    async def answer(self: MemoryRuntime, lab: str) -> LabProgress:
        self._lab(lab).running = not told.stopped
        return told

    monkeypatch.setattr(MemoryRuntime, "progress", answer)


async def test_a_lab_that_completes_is_collected_and_over_before_its_slot_ends(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jobs.book("a", 60, 120)
    await jobs.at(70)
    assert await jobs.phase() == "Running"
    says(monkeypatch, converged=True, stopped=True, completed=True, exit_code=3, nodes={"a": "EXITED"})
    await jobs.at(80)
    done = await jobs.instance()
    assert (done.phase, done.status.exit_code) == ("Terminated", 3)
    assert [(node.label, node.state) for node in done.status.nodes] == [("a", "EXITED")]
    assert "Collecting" in [move.to for move in done.status.history]
    assert [move.reason for move in done.status.history if move.frm == "Running"] == ["Completed"]


async def test_one_that_was_faster_than_anybody_looked_has_run_all_the_same(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jobs.book("a", 60, 120)
    await jobs.at(40)
    says(monkeypatch, converged=True, stopped=True, completed=True, exit_code=0)
    jobs.closed = {"r1": "nobody listens"}
    await jobs.at(80)
    done = await jobs.instance()
    assert (done.phase, done.status.exit_code, done.status.ran) == ("Terminated", 0, True)
    assert jobs.runtime().history.count(("started", done.id)) == 0


async def test_one_that_was_stopped_on_its_host_has_failed_and_is_tried_again(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jobs.book("a", 60, 120)
    await jobs.at(70)
    says(monkeypatch, stopped=True)
    await jobs.at(75)
    moves = [(move.to, move.reason) for move in (await jobs.instance()).status.history]
    assert ("Failed", "LabStopped") in moves
    assert moves[-1][0] == "Instantiating"


@pytest.mark.parametrize("runtime", ["cml", "process"])
async def test_a_lab_that_was_to_run_until_its_slot_ends_and_is_stopped_on_its_host_has_failed(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """On an agent's host too: its supervisor may be killed, and nobody there starts it anew."""
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    worker = await fleet.worker()
    await fleet.all(WORKER).update(worker.respecified(runtime=runtime))
    says(monkeypatch, stopped=True)
    await fleet.at(75)
    assert ("Failed", "LabStopped") in [(move.to, move.reason) for move in (await fleet.instance()).status.history]


async def test_a_lab_that_will_never_be_up_fails_with_its_nodes_words(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(40)
    says(monkeypatch, failed="a ended with 9")
    await fleet.at(58)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason, failed.status.message) == ("Failed", "NodeFailed", "a ended with 9")


async def test_processes_that_nobody_approved_never_start(fresh: Any) -> None:
    made = fresh()
    await made.seed()
    await made.define(runtime={"name": "process"})
    await made.start()
    await made.book("a", 60, 120)
    await made.at(59)
    failed = await made.instance()
    assert (failed.phase, failed.status.reason) == ("Failed", "NotApproved")
    assert not any(runtime.lab_by_id for runtime in made.runtimes.by_url.values())


async def test_with_an_operators_word_they_do(fresh: Any) -> None:
    made = fresh()
    await made.seed()
    await made.define(runtime={"name": "process"})
    kept = made.all(DEFINITION)
    definition = await kept.require("lab@1.0.0")
    await kept.update(definition.observed("approved", approved=Approval(by="op", at=made.clock.now())))
    await made.start()
    await made.book("a", 60, 120)
    await made.at(59)
    assert await made.phase() == "Running"
