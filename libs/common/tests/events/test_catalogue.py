"""The catalogue against the contract and against the state machines."""

import pytest

from lablet_common.events import EVENTS, schemas
from lablet_common.events.catalogue import WITHOUT_FACT, type_of
from lablet_common.intents import INTENTS
from lablet_common.resources.kinds import KINDS, Kind, Service
from lablet_common.resources.model import fact_of_phase

STATE = {
    "request": "accepted decided refused",
    "key": "created revoked",
    "definition": "published approved deprecated archived",
    "series": "placed refused cancelled completed",
    "reservation": "pending held scheduled waitlisted rejected moved active completed cancelled expired failed "
    "starting-soon ending-soon at-risk",
    "instance": "pending instantiating running collecting grading graded stopping stopped exported terminated failed",
    "worker": "offline provisioning starting licensing ready draining drain-cancelled stopping terminating failed "
    "unknown cordoned uncordoned",
    "pool": "created",
    "template": "created",
    "scaling": "up.decided up.completed down.decided down.completed held",
    "artifact": "stored rendered collected exported",
}


SERVICE_OF = {"io.lablet.pool.optimise.requested.v1": Service.SCHEDULER}
"""Intents that are not decided by the owner of the kind."""


@pytest.mark.parametrize("kind", STATE)
def test_every_fact_of_the_contract_has_a_type(kind: str) -> None:
    facts = set(STATE[kind].split()) | ({"changed", "deleted"} if kind in KINDS else set())
    assert {event.fact for event in EVENTS.values() if event.kind == kind and not event.intent} == facts


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_phase_of_every_kind_has_its_fact(kind: Kind) -> None:
    for phase in kind.model.machine.phases:
        fact = fact_of_phase(phase)
        known = type_of(kind.name, fact) in EVENTS
        assert known != ((kind.name, fact) in WITHOUT_FACT), f"{kind.name} {phase}"


def test_every_intent_is_in_the_catalogue_with_its_decider() -> None:
    for intent in INTENTS.values():
        event = EVENTS[intent.type]
        assert event.intent
        assert event.service is (SERVICE_OF.get(intent.type) or intent.kind.owner)
        assert event.data is intent.body


def test_state_events_are_sent_by_the_owner_of_the_kind_alone() -> None:
    for event in EVENTS.values():
        if event.is_state:
            assert event.service is KINDS[event.kind].owner
    assert {event.service for event in EVENTS.values() if event.kind == "scaling"} == {Service.WORKERS}


def test_what_assessment_systems_tell_is_decided_by_the_owner_of_instances() -> None:
    told = {name: event for name, event in EVENTS.items() if event.kind == "assessment"}
    assert set(told) == {
        "io.lablet.assessment.collection.completed.v1",
        "io.lablet.assessment.grading.completed.v1",
    }
    assert {event.service for event in told.values()} == {Service.WORKERS}
    assert all(event.service is not None for event in EVENTS.values())


def test_every_type_has_a_schema_under_its_own_address() -> None:
    documents = schemas()
    assert set(documents) == set(EVENTS)
    assert all(document["$id"] == EVENTS[name].schema_url for name, document in documents.items())
