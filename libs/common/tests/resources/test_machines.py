"""The state machines as the architecture draws them, and moves that are kept."""

from datetime import UTC, datetime

import pytest

from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import KINDS
from lablet_common.resources.machine import IllegalTransition, table
from lablet_common.resources.model import HISTORY_LIMIT, Metadata, fact_of_phase
from lablet_common.resources.reservation import Reservation, ReservationPhase, ReservationSpec, ReservationStatus
from lablet_common.resources.worker import WorkerPhase

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)


def reservation(phase: ReservationPhase = ReservationPhase.PENDING) -> Reservation:
    return Reservation(
        metadata=Metadata(id="rsv-1", uid="u1", created_at=NOW),
        spec=ReservationSpec(definition="lab@1.0.0", duration_minutes=60),
        status=ReservationStatus(phase=phase),
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_phase_can_be_reached_from_an_initial_one(kind):
    machine = kind.model.machine
    reached = set(machine.initial)
    while True:
        further = {to for phase in reached for to in machine.transitions[phase]} - reached
        if not further:
            break
        reached |= further
    assert reached == machine.phases


def test_a_legal_move_is_kept_and_names_its_reason_and_its_fact():
    moved = reservation().moved("Scheduled", at=NOW, by="/lablet/scheduler", reason="Placed")
    assert moved.status.phase is ReservationPhase.SCHEDULED
    (move,) = moved.status.history
    assert (move.frm, move.to, move.reason) == ("Pending", "Scheduled", "Placed")
    assert moved.status.last_fact is not None
    assert moved.status.last_fact.name == "scheduled"


def test_an_illegal_move_names_both_phases_and_what_may_follow():
    with pytest.raises(IllegalTransition, match=r"rsv-1 is Completed and cannot become Active.*final"):
        reservation(ReservationPhase.COMPLETED).moved("Active", at=NOW, by="x", reason="y")
    with pytest.raises(IllegalTransition, match=r"what may follow is Cancelled, Held, Rejected, Scheduled, Waitlisted"):
        reservation().moved("Completed", at=NOW, by="x", reason="y")


def test_only_the_latest_moves_are_kept():
    value = reservation(ReservationPhase.SCHEDULED)
    for _ in range(HISTORY_LIMIT + 7):
        value = value.moved("Scheduled", at=NOW, by="x", reason="Moved")
    assert len(value.status.history) == HISTORY_LIMIT
    assert value.status.last_fact is not None
    assert value.status.last_fact.serial == HISTORY_LIMIT + 7


def test_a_change_without_a_move_has_a_fact_of_its_own_and_leaves_the_history_alone():
    changed = reservation().observed("starting-soon")
    assert changed.status.history == ()
    assert changed.status.last_fact is not None
    assert changed.status.last_fact.name == "starting-soon"


def test_a_field_that_the_status_does_not_have_is_refused():
    with pytest.raises(TypeError, match=r"Reservation\.status has no field colour"):
        reservation().observed(colour="red")


def test_a_changed_spec_is_a_new_generation_and_is_validated():
    changed = reservation().respecified(seats=3)
    assert (changed.spec.seats, changed.metadata.generation) == (3, 2)
    with pytest.raises(ValueError, match="seats"):
        reservation().respecified(seats=0)


def test_a_condition_keeps_the_time_since_which_it_has_been_true():
    first = reservation().observed(conditions=reservation().with_condition("Degraded", True, at=NOW))
    later = datetime(2027, 3, 1, 10, tzinfo=UTC)
    again = first.observed(conditions=first.with_condition("Degraded", True, at=later))
    assert again.status.condition("Degraded").since == NOW
    gone = again.observed(conditions=again.with_condition("Degraded", False, at=later))
    assert gone.status.condition("Degraded") is None


@pytest.mark.parametrize(
    ("phase", "fact"), [("Scheduled", "scheduled"), ("DrainCancelled", "drain-cancelled"), ("Offline", "offline")]
)
def test_phases_have_facts(phase, fact):
    assert fact_of_phase(phase) == fact


def test_a_table_with_a_phase_that_has_no_row_is_refused():
    with pytest.raises(ValueError, match="without a row"):
        table("X", WorkerPhase.OFFLINE, {WorkerPhase.OFFLINE: {WorkerPhase.READY}})


def test_a_failed_instance_may_be_tried_again_or_end():
    machine = KINDS["instance"].model.machine
    assert machine.transitions[InstancePhase.FAILED] == {"Terminated", "Pending"}
    earlier = machine.phases - {"Failed", "Terminated"}
    assert all("Failed" in machine.transitions[phase] for phase in earlier)
