"""The life of a seat's lab: every phase, every deadline, what is asked of it, and what happens around it."""

import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from lablet_common.objects import digest_of, put_content
from lablet_common.references import reference_key
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import SeatState
from lablet_common.store import Transaction
from lablet_common.store.changes import create_in
from lablet_workers.providers.port import MachineState
from lablet_workers.runtimes.port import RuntimeFault


def phases(instance: Any) -> list[str]:
    return [move.to for move in instance.status.history]


async def test_a_lab_lives_through_its_phases_and_leaves_everything_behind_it_clean(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(24)
    assert await fleet.instance() is None
    await fleet.at(25)
    assert await fleet.phase() == "Pending"
    await fleet.at(59)
    assert await fleet.phase() == "Running"
    await fleet.at(119)
    assert await fleet.phase() == "Running"
    await fleet.at(121)
    done = await fleet.instance()
    assert phases(done) == [
        "Instantiating",
        "Running",
        "Collecting",
        "Stopping",
        "Stopped",
        "Exported",
        "Terminated",
    ]
    assert {(ref.role, ref.name) for ref in done.status.artifacts} == {
        ("rendered", "lab.yaml"),
        ("collected", "r1.cfg"),
        ("collected", "collection.json"),
        ("exported", "lab.yaml"),
    }
    assert done.status.attempts[-1].ended_at is not None
    assert fleet.runtime().lab_by_id == {}


async def test_no_lab_starts_before_its_lab_file_is_rendered(fleet: Any) -> None:
    fleet.clerk_works = False
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    assert await fleet.phase() == "Pending"
    await fleet.file(await fleet.instance(), "rendered", "lab.yaml", b"late")
    await fleet.at(71)
    assert await fleet.phase() == "Running"


async def test_a_lab_starts_at_once_also_where_its_use_of_a_file_was_pushed_out_before_anybody_looked(
    fleet: Any,
) -> None:
    """A whole class has the same file, and the list that brings it holds the latest uses in the artifact alone."""
    fleet.clerk_works = False
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    assert await fleet.phase() == "Pending"
    digest = await put_content(fleet.objects, "default", b"alike", "application/yaml")
    mine, other = (Reference(subject=f"instance/{name}", role="rendered", name="lab.yaml", attempt=1)
                   for name in ("ins-a-1", "ins-z-1"))  # fmt: skip
    status = ArtifactStatus(phase=ArtifactPhase.STORED, references=(other,), older_references=1)
    metadata = Metadata(id=digest, uid=digest, created_at=fleet.clock.now())
    txn = Transaction().put(reference_key("default", digest, mine), mine.to_json())
    create_in(txn, Artifact(metadata=metadata, spec=ArtifactSpec(digest=digest, bytes=5), status=status))
    await txn.commit(fleet.store)
    await fleet.at(71)
    assert await fleet.phase() == "Running"


async def test_a_lab_file_that_cannot_be_rendered_fails_its_instance_with_the_reason(fleet: Any) -> None:
    fleet.clerk_works = False
    await fleet.book("a", 60, 120)
    await fleet.at(30)
    await fleet.file(await fleet.instance(), "report", "render-error.txt", b"line 3: no port is given for 'r9'")
    await fleet.at(31)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason) == ("Failed", "RenderFailed")
    assert "r9" in failed.status.message
    assert failed.status.released


async def test_a_lab_whose_file_never_comes_has_failed_when_its_slot_ends(fleet: Any) -> None:
    fleet.clerk_works = False
    await fleet.book("a", 60, 120)
    await fleet.at(121)
    done = await fleet.instance()
    assert (done.phase, done.status.reason) == ("Terminated", "NeverReady")


async def test_a_lab_whose_ports_stay_closed_fails_at_its_deadline(fleet: Any) -> None:
    fleet.closed = {"r1": "refused"}
    await fleet.book("a", 60, 240)
    await fleet.at(110)
    assert await fleet.phase() == "Instantiating"
    await fleet.at(116)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason) == ("Failed", "DeadlineMissed")
    assert failed.status.released
    assert fleet.runtime().lab_by_id == {}


async def test_a_start_that_is_refused_is_tried_again_and_then_fails(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    runtime = fleet.runtime()
    runtime.refusals = {"start": [RuntimeFault("no licence"), RuntimeFault("no licence")]}
    await fleet.at(60)
    assert await fleet.phase() == "Running"
    assert runtime.refusals["start"] == []


async def test_a_lab_that_is_refused_every_time_fails_with_the_runtimes_words(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    fleet.runtime().refusals = {"start": [RuntimeFault("insufficient capacity")] * 5}
    await fleet.at(60)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason) == ("Failed", "RuntimeRefused")
    assert failed.status.message == "insufficient capacity"
    assert len(fleet.runtime().refusals["start"]) == 2
    assert fleet.runtime().lab_by_id == {}


async def test_between_the_tries_there_are_pauses_that_grow(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    runtime = fleet.runtime()
    asked: list[datetime] = []

    async def refuse(_: str) -> None:
        asked.append(fleet.clock.now())
        raise RuntimeFault("no licence")

    monkeypatch.setattr(type(runtime), "start", lambda _, lab: refuse(lab))
    await fleet.at(60, step=1 / 60)
    assert (await fleet.instance()).status.reason == "RuntimeRefused"
    first, second = (later - earlier for earlier, later in pairwise(asked))
    assert len(asked) == 3
    assert timedelta(seconds=5) < first < second, "a refusal is not answered by asking at once"


async def test_who_cancels_does_not_wait_for_the_pause_after_a_failure(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(48)

    async def refuse(_: Any, __: str) -> None:
        raise RuntimeFault("no licence")

    runtime = fleet.runtime()
    monkeypatch.setattr(type(runtime), "start", refuse)
    seconds = 48 * 60
    while (await fleet.instance()).status.tries < 2:
        seconds += 1
        assert seconds < 60 * 60
        await fleet.at(seconds / 60, step=1 / 60)
    await fleet.cancel("a")
    await fleet.at((seconds + 1) / 60, step=1 / 60)
    assert await fleet.phase() != "Instantiating", "the pause after a second failure is many times as long"


async def test_on_a_worker_that_drains_a_lab_is_tried_three_times_and_then_elsewhere(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    runtime = fleet.runtime()
    runtime.instant = False
    await fleet.at(56)
    assert await fleet.phase() == "Instantiating"
    await fleet.ask("worker", "drain", "default-001")
    next(iter(runtime.lab_by_id.values())).running = False
    runtime.refusals = {"start": [RuntimeFault("no room")] * 9}
    await fleet.at(60)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason, failed.status.released) == ("Failed", "RuntimeRefused", True)
    assert len(runtime.refusals["start"]) == 6, "three tries"
    assert fleet.imports == ["ins-a-1"], "and never imported anew where it drains"
    await fleet.move_seat("a", "default-002")
    await fleet.at(75)
    moved = await fleet.instance()
    assert (moved.phase, moved.spec.worker, moved.status.attempt) == ("Running", "default-002", 2)


async def test_an_extended_slot_keeps_the_lab_and_a_shortened_one_ends_it(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 60, 120)
    await fleet.at(100)
    await fleet.set_end("a", 150)
    await fleet.set_end("b", 110)
    assert (await fleet.instance("a")).spec.end.minute == 30
    await fleet.at(111)
    assert await fleet.phase("b") == "Terminated"
    await fleet.at(149)
    assert await fleet.phase("a") == "Running"
    await fleet.at(151)
    assert await fleet.phase("a") == "Terminated"


async def test_a_lab_that_comes_up_has_the_time_of_the_slot_as_it_is_now(fleet: Any) -> None:
    fleet.closed = {"r1": "nobody listens"}
    for name in ("longer", "shorter"):
        await fleet.book(name, 60, 90)
    await fleet.at(80)
    await fleet.set_end("longer", 150)
    await fleet.set_end("shorter", 85)
    await fleet.at(86)
    assert (await fleet.instance("shorter")).status.ran is False
    assert await fleet.phase("shorter") == "Terminated"
    await fleet.at(92)
    assert await fleet.phase("longer") == "Instantiating"
    fleet.closed = {}
    await fleet.at(94)
    assert await fleet.phase("longer") == "Running"


async def test_a_lab_is_not_ended_on_a_stale_view_of_its_reservation(fleet: Any) -> None:
    """The slot is extended in the moment in which its end comes: the end is decided again."""
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    real = fleet.controller.labs.situation

    def stale(instance: Any) -> Any:
        situation = real(instance)
        situation.reservation = seen
        return situation

    seen = fleet.controller.estate.caches[RESERVATION].get("rsv-a")
    fleet.controller.labs.situation = stale
    await fleet.set_end("a", 150)
    await fleet.clock.advance(timedelta(minutes=2))
    for _ in range(50):
        await fleet.clock.advance(timedelta(seconds=0))
    assert await fleet.phase("a") == "Running"
    fleet.controller.labs.situation = real
    await fleet.at(149)
    assert await fleet.phase("a") == "Running"


@pytest.mark.parametrize("moment", [10, 30, 47, 48, 55, 70, 119])
async def test_a_cancelled_reservation_leaves_nothing_whenever_it_is_cancelled(fleet: Any, moment: int) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(moment)
    await fleet.cancel("a")
    await fleet.at(moment + 20)
    assert await fleet.phase() in (None, "Terminated")
    assert (await fleet.worker()).phase == "Offline"
    assert all(not runtime.lab_by_id for runtime in fleet.runtimes.by_url.values())
    assert all(machine.state is not MachineState.RUNNING for machine in fleet.provider.machines.values())
    if moment <= 47:
        assert len(fleet.provider.power_ons) == (1 if moment == 47 else 0)


@pytest.mark.parametrize(("moment", "collected"), [(58, False), (70, True)])
async def test_what_was_done_in_a_slot_that_is_given_back_is_collected(
    fleet: Any, moment: int, collected: bool
) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(moment)
    assert await fleet.phase() == "Running"
    await fleet.cancel("a")
    await fleet.at(moment + 20)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert ("Collecting" in phases(done)) is collected
    assert (("collected", "r1.cfg") in {(ref.role, ref.name) for ref in done.status.artifacts}) is collected


@pytest.mark.parametrize("stuck", ["Instantiating", "Collecting", "Stopping", "Stopped"])
async def test_a_cancelled_reservation_ends_its_lab_in_every_phase(fleet: Any, stuck: str) -> None:
    if stuck == "Instantiating":
        fleet.closed = {"r1": "refused"}
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    if stuck in ("Collecting", "Stopped"):
        fleet.clerk_works = stuck == "Stopped"
    if stuck == "Stopping":
        fleet.runtime().refusals = {"stop": [RuntimeFault("busy")] * 20}
    if stuck != "Instantiating":
        await fleet.at(120)
    if stuck == "Stopped":
        fleet.clerk_works = False
    await fleet.cancel("a")
    fleet.clerk_works = True
    await fleet.at(200)
    assert await fleet.phase() == "Terminated"
    assert fleet.runtime().lab_by_id == {}
    assert (await fleet.worker()).phase == "Offline"


async def test_a_stop_that_is_asked_for_collects_first(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    request = await fleet.ask("instance", "stop", "ins-a-1")
    assert request.phase == "Decided"
    again = await fleet.ask("instance", "stop", "ins-a-1")
    assert (again.phase, again.status.reason) == ("Decided", "AlreadyStopped")
    await fleet.at(87)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert phases(done)[2:4] == ["Collecting", "Stopping"]
    await fleet.at(97)
    assert (await fleet.worker()).phase == "Offline", "a seat that has ended needs no worker any more"


async def test_a_collection_inside_the_slot_returns_to_running_and_the_last_one_counts(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    (lab,) = fleet.runtime().lab_by_id.values()
    lab.configurations = {"r1": b"hostname early\n"}
    request = await fleet.ask("instance", "collect", "ins-a-1")
    assert request.phase == "Decided"
    back = await fleet.instance()
    assert back.phase == "Running"
    assert phases(back)[-2:] == ["Collecting", "Running"]
    early = {ref.digest for ref in back.status.artifacts if ref.name == "r1.cfg"}
    lab.configurations = {"r1": b"hostname late\n"}
    await fleet.at(121)
    late = {ref.digest for ref in (await fleet.instance()).status.artifacts if ref.name == "r1.cfg"}
    assert len(early) == 1
    assert late - early, "the configuration of the end is kept too"


async def test_what_the_books_say_was_collected_is_what_was_stored_and_not_what_was_known_before(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest goes when all is stored. Who finds it gone had looked for what is stored before that."""
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    (lab,) = fleet.runtime().lab_by_id.values()
    lab.configurations = {"r1": b"hostname early\n"}
    await fleet.ask("instance", "collect", "ins-a-1")
    assert await fleet.phase() == "Running"
    await fleet.at(119)
    lab.configurations = {"r1": b"hostname late\n"}
    fleet.clerk_works = False
    taken = fleet.objects.get

    async def takes_over_first(key: str) -> bytes:
        if key.endswith("/collected/manifest.json"):
            monkeypatch.setattr(fleet.objects, "get", taken)
            await fleet._take_over(await fleet.instance())
        return await taken(key)  # type: ignore[no-any-return]

    monkeypatch.setattr(fleet.objects, "get", takes_over_first)
    await fleet.at(121)
    assert "Stopping" in phases(await fleet.instance())
    kept = {ref.digest for ref in (await fleet.instance()).status.artifacts if ref.name == "r1.cfg"}
    assert digest_of(b"hostname late\n") in kept


async def test_a_collection_inside_the_slot_is_over_when_its_staging_is_free_again(fleet: Any) -> None:
    """What is collected next has the same keys: whoever is still clearing them would take it away."""
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.clerk_works = False
    await fleet.ask("instance", "collect", "ins-a-1")
    seat = await fleet.instance()
    for entry in json.loads(await fleet.objects.get(seat.status.staged.manifest)):
        await fleet.file(seat, "collected", entry["name"], await fleet.objects.get(entry["key"]))
    await fleet.at(75)
    assert await fleet.phase() == "Collecting"
    await fleet.objects.delete(seat.status.staged.manifest)
    await fleet.at(76)
    assert await fleet.phase() == "Running"


async def test_a_stop_during_a_collection_inside_the_slot_ends_after_it(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.clerk_works = False
    await fleet.ask("instance", "collect", "ins-a-1")
    assert await fleet.phase() == "Collecting"
    await fleet.ask("instance", "stop", "ins-a-1")
    await fleet.at(110)
    assert await fleet.phase() in ("Stopped", "Terminated")
    done = await fleet.instance()
    assert "Running" not in phases(done)[3:]


async def test_a_collection_that_nobody_takes_over_ends_at_its_deadline(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    fleet.clerk_works = False
    await fleet.at(149)
    assert await fleet.phase() == "Collecting"
    await fleet.at(215)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert "CollectionMissed" in [move.reason for move in done.status.history]
    assert "ExportMissed" in [move.reason for move in done.status.history]


async def test_collecting_waits_for_a_runtime_that_is_silent_and_goes_on_when_it_answers(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    fleet.runtime().up = False
    await fleet.at(125)
    assert await fleet.phase() == "Collecting"
    fleet.runtime().up = True
    await fleet.at(127)
    assert await fleet.phase() == "Terminated"


async def test_an_object_store_that_is_down_delays_and_loses_nothing(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    fleet.objects.unavailable = True
    await fleet.at(130)
    assert await fleet.phase() == "Collecting"
    fleet.objects.unavailable = False
    await fleet.at(132)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert {ref.role for ref in done.status.artifacts} == {"rendered", "collected", "exported"}


async def test_a_seat_of_a_lost_worker_runs_where_it_was_moved_to(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.provider.become("m-1", MachineState.STOPPED, "lost")
    fleet.runtime().lose_power()
    await fleet.at(71)
    failed = await fleet.instance()
    assert (failed.phase, failed.status.reason, failed.status.released) == ("Failed", "WorkerLost", True)
    assert failed.status.attempts[-1].reason == "WorkerLost"
    await fleet.move_seat("a", "default-002")
    await fleet.at(90)
    healed = await fleet.instance()
    assert (healed.phase, healed.spec.worker, healed.status.attempt) == ("Running", "default-002", 2)
    await fleet.at(121)
    assert await fleet.phase() == "Terminated"


async def test_a_seat_that_waits_for_a_boot_goes_where_it_was_moved_to_without_having_failed(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed(max=2)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(56)
    await fleet.move_seat("a", "default-002")
    fleet.provider.become("m-2", MachineState.RUNNING)
    await fleet.at(60, step=0.5)
    lab = await fleet.instance()
    assert (lab.phase, lab.spec.worker, lab.status.attempt) == ("Running", "default-002", 2)
    assert [move.to for move in lab.status.history] == ["Instantiating", "Running"]


async def test_a_seat_is_not_released_while_its_machine_may_still_run(fleet: Any) -> None:
    """The runtime is silent: only the provider's word that the machine has ended releases the seat."""
    fleet.provider.instant = False
    await fleet.book("a", 60, 180)
    await fleet.at(48)
    fleet.provider.become("m-1", MachineState.RUNNING)
    await fleet.at(70)
    fleet.runtime().up = False
    await fleet.at(87)
    failed = await fleet.instance()
    assert (await fleet.worker()).phase == "Terminating"
    assert (failed.phase, failed.status.released) == ("Failed", False)
    await fleet.at(100)
    assert not (await fleet.instance()).status.released
    fleet.provider.become("m-1", MachineState.TERMINATED)
    await fleet.at(101)
    assert (await fleet.instance()).status.released


async def test_a_seat_whose_only_worker_comes_back_before_its_slot_runs_there(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed(max=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    fleet.provider.become("m-1", MachineState.STOPPED, "bad disk")
    await fleet.at(49)
    assert (await fleet.instance()).status.reason == "WorkerLost"
    fleet.provider.become("m-1", MachineState.TERMINATED)
    fleet.provider.instant = True
    await fleet.at(58)
    back = await fleet.instance()
    assert (back.phase, back.status.attempt) == ("Running", 1)


async def test_a_lost_seat_and_one_past_its_slot_end(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.provider.become("m-1", MachineState.STOPPED, "lost")
    fleet.runtime().lose_power()
    await fleet.at(71)

    def lost(reservation: Any) -> Any:
        seat = reservation.status.placement[0].model_copy(update={"state": SeatState.LOST})
        return reservation.observed(placement=(seat,))

    await fleet.rebook("a", lost)
    await fleet.at(73)
    done = await fleet.instance()
    assert (done.phase, done.status.reason) == ("Terminated", "WorkerLost")


async def test_a_lab_that_cannot_be_removed_ends_with_its_machine(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    fleet.runtime().refusals = {"remove": [RuntimeFault("disk busy")] * 10_000}
    await fleet.at(230)
    assert await fleet.phase() == "Terminated"
    assert (await fleet.worker()).phase == "Offline"


async def test_a_lab_that_is_gone_from_its_worker_is_imported_again_while_it_comes_up(fleet: Any) -> None:
    fleet.closed = {"r1": "refused"}
    await fleet.book("a", 60, 120)
    await fleet.at(55)
    fleet.runtime().lab_by_id.clear()
    fleet.closed = {}
    await fleet.at(60)
    assert await fleet.phase() == "Running"
    assert fleet.imports == ["ins-a-1", "ins-a-1"]


async def test_a_lab_is_wanted_by_its_roster_and_not_by_its_booker(fleet: Any) -> None:
    await fleet.book("a", 60, 120)

    def seated(reservation: Any) -> Any:
        return reservation.respecified(roster=[{"seat": 1, "user": "grace"}])

    await fleet.rebook("a", seated)
    await fleet.at(30)
    assert (await fleet.instance()).metadata.owner == "grace"


async def test_a_lab_waits_while_the_one_before_it_still_holds_its_port(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 120, 180)
    await fleet.at(119)
    assert (await fleet.phase("a"), await fleet.phase("b")) == ("Running", "Pending")
    await fleet.at(121)
    assert (await fleet.phase("a"), await fleet.phase("b")) == ("Terminated", "Running")


async def test_content_that_many_leave_alike_is_news_only_to_whoever_has_left_it_now(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soak's find: with hundreds of seats of one lab, each file that one of them left woke all of them."""
    await fleet.book("a", 60, 120)
    await fleet.book("b", 60, 120)
    await fleet.at(30)
    await fleet.file(await fleet.instance("a"), "collected", "r1.cfg", b"as it came")
    await fleet.settle()
    woken: list[str] = []
    monkeypatch.setattr(fleet.controller._instances, "add", woken.append)
    await fleet.file(await fleet.instance("b"), "collected", "r1.cfg", b"as it came")
    await fleet.settle()
    assert woken == ["ins-b-1"]
