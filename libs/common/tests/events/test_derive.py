"""What a commit becomes on its way out."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest

from lablet_common.events import EVENTS, data_of, derive, resource_of, schemas, sequence_of
from lablet_common.events.binding import decode, encode
from lablet_common.resources import Request, Reservation, Worker
from lablet_common.resources.kinds import REQUEST, RESERVATION, WORKER
from lablet_common.resources.worker import Scaling

AT = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
SOURCE = "/lablet/scheduler"


def scheduled(reservation: Reservation) -> Reservation:
    return reservation.moved("Scheduled", at=AT + timedelta(seconds=5), by=SOURCE, reason="Placed", cause="req-1")


def test_a_move_becomes_the_event_of_its_phase(reservation: Reservation) -> None:
    (out,) = derive(RESERVATION, reservation, scheduled(reservation), 42, source=SOURCE)
    event = out.event
    assert event.get_type() == "io.lablet.reservation.scheduled.v1"
    assert event.get_id() == "reservation/u-1/42"
    assert event.get_source() == SOURCE
    assert event.get_subject() == "reservation/rsv-1"
    assert event.get_time() == AT + timedelta(seconds=5)
    assert event.get_extension("sequence") == "00000000000000000042"
    assert event.get_extension("partitionkey") == "east"
    assert event.get_extension("tenant") == "acme"
    assert event.get_extension("correlationid") == "req-1"
    assert event.get_extension("causationid") == "req-1"
    assert event.get_extension("traceparent") == reservation.metadata.trace_parent
    assert event.get_extension("replayed") is None
    assert out.subject == "lablet.event.acme.reservation.east.rsv-1"


def test_the_data_is_the_whole_resource_and_the_phase_before(reservation: Reservation) -> None:
    after = scheduled(reservation)
    (out,) = derive(RESERVATION, reservation, after, 42, source=SOURCE)
    event = decode(*encode(out.event))
    assert data_of(event)["previousPhase"] == "Pending"
    assert resource_of(event) == after.at_revision(42)
    assert sequence_of(event) == 42


def test_the_data_fits_the_schema_that_it_names(reservation: Reservation, worker: Worker) -> None:
    (first,) = derive(RESERVATION, None, scheduled(reservation), 42, source=SOURCE)
    up = worker.observed(scaling=Scaling(direction="up", rule="calendar", at=AT))
    for out in (first, *derive(WORKER, worker, up, 43, source=SOURCE)):
        schema = schemas()[out.event.get_type()]
        assert schema["$id"] == out.event.get_dataschema()
        jsonschema.validate(data_of(out.event), schema)


def test_a_new_resource_has_no_phase_before(reservation: Reservation) -> None:
    (out,) = derive(RESERVATION, None, reservation, 7, source=SOURCE)
    assert out.event.get_type() == "io.lablet.reservation.pending.v1"
    assert "previousPhase" not in data_of(out.event)


def test_a_commit_without_a_fact_is_a_change(reservation: Reservation) -> None:
    (out,) = derive(RESERVATION, reservation, reservation.relabelled({"a": "b"}), 8, source=SOURCE)
    assert out.event.get_type() == "io.lablet.reservation.changed.v1"
    assert out.event.get_extension("causationid") is None


def test_a_fact_that_is_no_phase_names_its_event(reservation: Reservation) -> None:
    before = scheduled(reservation)
    after = before.observed("starting-soon", cause="clock")
    (out,) = derive(RESERVATION, before, after, 9, source=SOURCE)
    assert out.event.get_type() == "io.lablet.reservation.starting-soon.v1"


def test_an_unknown_fact_is_published_as_a_change_and_reported(
    reservation: Reservation, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (out,) = derive(RESERVATION, reservation, reservation.observed("juggled"), 9, source=SOURCE)
    assert out.event.get_type() == "io.lablet.reservation.changed.v1"
    assert "not in the catalogue" in caplog.text


def test_a_deletion_carries_the_last_known_resource(reservation: Reservation) -> None:
    last = scheduled(reservation).at_revision(42)
    (out,) = derive(RESERVATION, last, None, 50, source=SOURCE)
    assert out.event.get_type() == "io.lablet.reservation.deleted.v1"
    assert out.event.get_id() == "reservation/u-1/50"
    assert sequence_of(out.event) == 50
    assert resource_of(out.event) == last


def test_nothing_comes_of_a_key_that_was_and_is_absent() -> None:
    assert derive(RESERVATION, None, None, 50, source=SOURCE) == []


def test_a_namesake_made_after_a_deletion_is_new(reservation: Reservation) -> None:
    other = reservation.model_copy(update={"metadata": reservation.metadata.model_copy(update={"uid": "u-2"})})
    (out,) = derive(RESERVATION, scheduled(reservation), other, 60, source=SOURCE)
    assert out.event.get_type() == "io.lablet.reservation.pending.v1"
    assert "previousPhase" not in data_of(out.event)


def test_the_same_commit_gives_the_same_message_to_the_byte(reservation: Reservation) -> None:
    first, again = (derive(RESERVATION, reservation, scheduled(reservation), 42, source=SOURCE)[0] for _ in range(2))
    assert first.msg_id == again.msg_id
    assert encode(first.event) == encode(again.event)


def test_a_replayed_event_keeps_its_id_and_says_so(reservation: Reservation) -> None:
    (live,) = derive(RESERVATION, reservation, scheduled(reservation), 42, source=SOURCE)
    (replayed,) = derive(RESERVATION, None, scheduled(reservation), 42, source=SOURCE, replayed=True)
    assert replayed.event.get_extension("replayed") == "true"
    assert (replayed.event.get_id(), replayed.msg_id) == (live.event.get_id(), live.msg_id)
    assert replayed.event.get_type() == live.event.get_type()


def test_message_ids_of_tenants_cannot_meet(reservation: Reservation) -> None:
    other = reservation.model_copy(update={"metadata": reservation.metadata.model_copy(update={"tenant": "evil"})})
    ids = {derive(RESERVATION, None, r, 42, source=SOURCE)[0].msg_id for r in (reservation, other)}
    assert len(ids) == 2


def test_a_large_body_stays_behind_a_reference(reservation: Reservation) -> None:
    large = reservation.relabelled({f"k{i}": "x" * 200 for i in range(400)})
    (out,) = derive(RESERVATION, reservation, large, 42, source=SOURCE)
    assert out.event.get_data() is None
    assert out.event.get_extension("dataref") == "/api/v1/reservations/rsv-1"
    assert resource_of(out.event) is None


def test_an_id_cannot_widen_its_subject(reservation: Reservation) -> None:
    odd = reservation.model_copy(update={"metadata": reservation.metadata.model_copy(update={"id": "a.b>* %"})})
    (out,) = derive(RESERVATION, None, odd, 1, source=SOURCE)
    assert out.subject == "lablet.event.acme.reservation.east.a%2Eb%3E%2A%20%25"


def test_a_changed_scaling_decision_is_an_event_of_its_own(worker: Worker) -> None:
    up = worker.observed(scaling=Scaling(direction="up", rule="calendar", at=AT))
    state, scaling = derive(WORKER, worker, up, 10, source=SOURCE)
    assert state.event.get_type() == "io.lablet.worker.changed.v1"
    assert scaling.event.get_type() == "io.lablet.scaling.up.decided.v1"
    assert scaling.event.get_id() != state.event.get_id()
    assert scaling.event.get_subject() == "worker/east-001"
    assert scaling.subject == "lablet.event.default.scaling.east.east-001"
    assert data_of(scaling.event)["rule"] == "calendar"


def test_a_scaling_decision_that_stands_is_not_told_again(worker: Worker) -> None:
    up = worker.observed(scaling=Scaling(direction="up", rule="calendar", at=AT))
    later = up.observed(scaling=Scaling(direction="up", rule="calendar", at=AT + timedelta(minutes=1), message="still"))
    assert len(derive(WORKER, up, later, 11, source=SOURCE)) == 1


@pytest.mark.parametrize(
    ("direction", "state", "fact"),
    [
        ("up", "decided", "up.decided"),
        ("up", "completed", "up.completed"),
        ("down", "decided", "down.decided"),
        ("down", "completed", "down.completed"),
        ("held", "decided", "held"),
    ],
)
def test_every_scaling_decision_has_its_type(worker: Worker, direction: str, state: str, fact: str) -> None:
    scaling = Scaling.model_validate({"direction": direction, "state": state, "rule": "r", "at": AT})
    out = derive(WORKER, worker, worker.observed(scaling=scaling), 12, source=SOURCE)[1]
    assert out.event.get_type() == f"io.lablet.scaling.{fact}.v1"
    assert out.event.get_type() in EVENTS


def test_the_login_of_a_worker_is_not_published(worker: Worker) -> None:
    (out,) = derive(WORKER, worker, worker.observed(credentials="sealed:hunter2"), 13, source=SOURCE)
    assert b"hunter2" not in encode(out.event)[1]


def test_an_accepted_request_sends_its_state_and_its_intent(make_request: Callable[..., Request]) -> None:
    state, intent = derive(REQUEST, None, make_request(), 20, source="/lablet/api-gateway")
    assert state.event.get_type() == "io.lablet.request.accepted.v1"
    assert state.event.get_extension("correlationid") == "req-1"
    event = intent.event
    assert event.get_type() == "io.lablet.reservation.cancel.requested.v1"
    assert event.get_id() == "7f0c0a52-0000-5000-8000-000000000001"
    assert event.get_subject() == "reservation/rsv-1"
    assert data_of(event) == {"reason": "rain"}
    assert event.get_extension("traceparent") == "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
    assert intent.subject == "lablet.intent.scheduler.east.reservation.rsv-1"


def test_a_decided_request_sends_no_intent(make_request: Callable[..., Request]) -> None:
    request = make_request()
    decided = request.moved("Decided", at=AT, by=SOURCE, reason="Placed")
    (out,) = derive(REQUEST, request, decided, 21, source="/lablet/api-gateway")
    assert out.event.get_type() == "io.lablet.request.decided.v1"


def test_a_request_handed_on_wakes_the_next_shard(make_request: Callable[..., Request]) -> None:
    east, west = make_request(), make_request(shard="west")
    first = derive(REQUEST, None, east, 20, source="/lablet/api-gateway")[1]
    _, again = derive(REQUEST, east, west, 22, source="/lablet/api-gateway")
    assert again.subject == "lablet.intent.scheduler.west.reservation.rsv-1"
    assert again.event.get_id() == first.event.get_id()
    assert again.msg_id != first.msg_id


@pytest.mark.parametrize("word", ["correlation_id", "cause"])
def test_a_word_of_an_outside_system_that_is_too_long_is_left_out_of_the_event(
    reservation: Reservation, word: str
) -> None:
    """It may be anything, is written with up to three bytes for one in a header, and would keep the event out of NATS."""
    long = "ü" * 200_000
    cause = long if word == "cause" else "req-1"
    if word == "correlation_id":
        metadata = reservation.metadata.model_copy(update={"correlation_id": long})
        reservation = reservation.model_copy(update={"metadata": metadata})
    moved = reservation.moved("Scheduled", at=AT, by=SOURCE, reason="Placed", cause=cause)
    (out,) = derive(RESERVATION, reservation, moved, 42, source=SOURCE)
    headers, payload = encode(out.event)
    assert out.event.get_extension("correlationid" if word == "correlation_id" else "causationid") is None
    assert sum(len(name) + len(value) for name, value in headers.items()) + len(payload) < 100_000
    assert out.event.get_extension("sequence")
