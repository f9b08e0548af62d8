"""What is stored and published reads back as it was written; what is wrong is refused with the field named."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from lablet_common.intents import INTENTS, ReservationChange, ReservationCreate, WorkerDrain
from lablet_common.resources.kinds import DEFINITION, KINDS, RESERVATION, Service, owned_by
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import (
    Explanation,
    Reservation,
    ReservationSpec,
    ReservationStatus,
    SeatPlacement,
    Slot,
)

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
SLOT = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T11:00:00Z"}


def test_a_reservation_reads_back_as_it_was_written():
    value = Reservation(
        metadata=Metadata(id="rsv-1", uid="u", created_at=NOW, labels={"course": "ccna-1"}, finalizers=("archive",)),
        spec=ReservationSpec(definition="lab@1.0.0", pools=("a", "b"), duration_minutes=120, **SLOT),
        status=ReservationStatus(
            phase="Scheduled",
            pool="a",
            slot=Slot(**SLOT),
            placement=(SeatPlacement(seat=1, worker="a-001", ports={"r1_serial": 2000}, instance="ins-1-1"),),
            explanation=Explanation(summary="1 seat placed", considered=3, removed={"capacity": 2}),
        ),
    )
    assert Reservation.model_validate_json(value.to_json()) == value
    document = json.loads(value.to_json())
    assert document["spec"]["durationMinutes"] == 120
    assert document["status"]["slot"] == SLOT
    assert "owner" not in document["metadata"]


def test_times_are_utc_whatever_zone_they_came_in():
    plus_two = datetime(2027, 3, 1, 11, tzinfo=timezone(timedelta(hours=2)))
    assert Slot(start=plus_two, end=plus_two + timedelta(hours=1)).to_dict()["start"] == "2027-03-01T09:00:00Z"


def test_a_time_without_a_zone_is_refused_with_the_remedy():
    with pytest.raises(ValidationError, match="a time needs a zone"):
        Slot(start="2027-03-01T09:00:00", end="2027-03-01T10:00:00Z")


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        ({"seats": 0}, "seats", "greater than or equal to 1"),
        ({"seats": 101}, "seats", "less than or equal to 100"),
        ({"start": "2027-03-01T09:00:30Z"}, "start", "whole minutes"),
        ({"colour": "red"}, "colour", "Extra inputs"),
        ({"end": "2027-03-01T08:00:00Z"}, "end", "end must be after start"),
        ({"durationMinutes": 10}, "end", "one of the two"),
        ({"asap": True}, "asap", "finds the slot by itself"),
        ({"pool": "a", "pools": ["b"]}, "pools", "not both"),
        ({"roster": [{"seat": 2, "user": "x"}]}, "roster", "a seat above 1"),
    ],
)
def test_a_bad_body_names_the_field_at_fault(body, place, words):
    with pytest.raises(ValidationError, match=words) as caught:
        ReservationCreate.model_validate({"definition": "lab", **SLOT} | body)
    (fault, *_) = caught.value.errors()
    assert place == (fault["loc"][0] if fault["loc"] else fault["ctx"]["field"])


def test_as_soon_as_possible_needs_a_duration_only():
    assert ReservationCreate(definition="lab", asap=True, duration_minutes=30).minutes == 30
    assert ReservationCreate.model_validate({"definition": "lab", **SLOT}).minutes == 120


def test_a_change_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="nothing to change"):
        ReservationChange()


def test_every_intent_has_one_owner_and_a_body():
    assert INTENTS["io.lablet.reservation.cancel.requested.v1"].service is Service.SCHEDULER
    assert INTENTS["io.lablet.worker.drain.requested.v1"].body is WorkerDrain
    assert {intent.service for intent in INTENTS.values()} == {Service.SCHEDULER, Service.WORKERS, Service.ARTIFACTS}


def test_every_kind_has_one_owner_and_keys_of_its_own():
    owned = [kind for service in Service for kind in owned_by(service)]
    assert sorted(kind.name for kind in owned) == sorted(KINDS)
    prefixes = [kind.prefix for kind in KINDS.values()]
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)


def test_tenants_cannot_collide():
    assert DEFINITION.key("lab@1.0.0", "a") != DEFINITION.key("lab@1.0.0", "b")
    assert DEFINITION.key("lab@1.0.0", "a") == "/definitions/a/lab/1.0.0"
    assert RESERVATION.key("rsv-1") == "/reservations/rsv-1"
