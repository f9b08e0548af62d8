"""Every body that a route of the API takes, with good examples, and read as the route reads it.

FastAPI parses the JSON itself, as deep as the stack goes, and gives the value to the model; what is wrong is told by
`faults`. What the model takes has to stand the way that it then goes: it is written, kept, and read again by others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lablet_common.intents import (
    Nothing,
    PoolApply,
    PoolOptimise,
    PoolReplace,
    ReservationChange,
    ReservationCreate,
    SimulationCreate,
    TemplateApply,
    WorkerCordon,
    WorkerDrain,
    WorkerRegister,
    WorkerReplace,
)
from lablet_common.quotas import Quota
from lablet_common.resources.model import Model
from lablet_common.resources.subscription import SubscriptionChange, SubscriptionCreate
from lablet_common.strangers import Free, NotJson
from lablet_common.terms import SeriesChange, SeriesCreate
from lablet_gateway.api.claims import ClaimsCreate
from lablet_gateway.api.keys import KeyCreate
from lablet_gateway.faults import invalid_input
from lablet_gateway.merging import merge
from lablet_gateway.problems import Refused

_SPEC = {"template": "simulated", "min": 0, "max": 4, "warm": 1, "cooldownMinutes": 5, "policy": "spread"}
_SHAPE = {
    "instanceType": "m5.xlarge", "capacity": {"cpuCores": 16, "memoryGb": 64, "storageGb": 200}, "license": "PERSONAL",
    "maxNodes": 20, "bootMinutes": 8, "costPerHourUsd": 1.5,
}  # fmt: skip
RESERVATIONS: Sequence[Any] = (
    {"definition": "ospf-basics", "seats": 2, "start": "2027-03-02T09:00:00Z", "durationMinutes": 60, "labels": {"a": "b"}},
    {"definition": "a@1.0.0", "asap": True, "durationMinutes": 30, "pools": ["x", "y"], "workerSelector": {"zone": "1"}},
    {"definition": "a", "start": "2027-03-02T09:00:00Z", "end": "2027-03-02T11:00:00+01:00", "priority": 3,
     "roster": [{"seat": 1, "user": "learner-1"}], "hold": {"expiresAt": "2027-03-02T08:00:00Z"}},
)  # fmt: skip
TERMS: Sequence[Any] = (
    {"definition": "ospf-basics", "seats": 2, "start": "2027-03-02T09:00:00Z", "durationMinutes": 60,
     "timezone": "Europe/Paris", "rule": "FREQ=WEEKLY;COUNT=4", "exceptDates": ["2027-03-09"], "mode": "fits"},
)  # fmt: skip
BODIES: Mapping[Any, Sequence[Any]] = {
    ReservationCreate: RESERVATIONS,
    ReservationChange: (
        {"end": "2027-03-02T12:00:00Z"}, {"roster": [{"seat": 2, "user": "ann"}], "seats": 3, "extendableMinutes": 30},
    ),
    SeriesCreate: TERMS,
    SeriesChange: ({"scope": "following", "date": "2027-03-09", "start": "2027-03-09T10:00:00Z", "durationMinutes": 90},),
    SimulationCreate: (
        *RESERVATIONS, [*RESERVATIONS, *TERMS], {"reservations": RESERVATIONS, "series": TERMS, "workers": -1},
    ),
    ClaimsCreate: ({}, {"seats": [1, 2]}),
    KeyCreate: ({"name": "lms", "role": "machine", "scopes": ["reservations:write"], "days": 30},),
    SubscriptionCreate: (
        {"name": "lms", "sink": "https://lms.example.org/events", "mode": "binary", "types": ["io.lablet.reservation."],
         "subjects": ["reservation/"], "labelSelector": "course in (a, b)", "labels": {"a": "b"}},
    ),
    SubscriptionChange: ({"sink": "https://lms.example.org/x", "paused": False}, {"labelSelector": "!a"}),
    Quota: ({"tenant": {"openSeats": 40, "furthestAheadDays": 90}, "owner": {"openSeatHours": 8}, "retentionDays": 3.5},),
    PoolApply: ({"spec": _SPEC, "labels": {"zone": "1"}},),
    PoolOptimise: ({"dryRun": True, "maxMoves": 3, "budgetSeconds": 0.5},),
    PoolReplace: ({"maxUnavailable": 2, "deadlineMinutes": 10, "message": "a new image"},),
    TemplateApply: ({"spec": _SHAPE},),
    WorkerRegister: (
        {"pool": "agents", "host": "10.0.0.5", "capacity": {"cpuCores": 4, "memoryGb": 8, "storageGb": 50},
         "portRange": {"start": 20000, "end": 29999}, "version": "0.1.0"},
    ),
    WorkerDrain: ({"at": "2027-03-02T09:00:00Z", "until": "2027-03-03T09:00:00Z", "deadlineMinutes": 5}, {"force": True}),
    WorkerReplace: ({"deadlineMinutes": 5, "message": "a disk", "reason": "x"},),
    WorkerCordon: ({"reason": "a disk", "until": "2027-03-02T09:00:00Z"},),
    Nothing: ({"reason": "no longer needed"},),
    Free: ({"spec": {"max": 6, "region": None}, "labels": {"a": "b"}}, {"spec": {"maxNodes": 12}}),
}  # fmt: skip
"""By what the route says that it takes. `Free` is a merge patch, of a pool or a template."""


def name_of(body: Any) -> str:
    """Of the target: `key-create-body`."""
    if body is Free:
        return "patch-body"
    word: str = body.__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in word).lstrip("-") + "-body"


def reader(body: Any) -> Callable[[bytes], object]:
    """Reads a case as the routes with this body do. Raises `Refused` or `NotJson`."""
    takes: TypeAdapter[Any] = TypeAdapter(body)

    def read(case: bytes) -> object:
        try:
            given = json.loads(case)
        except (ValueError, RecursionError) as error:
            raise NotJson(str(error)) from error
        try:
            found = takes.validate_python(given)
            return _patched(found) if body is Free else _kept(found)
        except ValidationError as error:
            raise invalid_input(error.errors()) from error

    return read


REFUSALS = (Refused, NotJson)


def _kept(found: Model) -> Model:
    """It is stored, and read again."""
    written = found.to_json()
    assert type(found).model_validate_json(written).to_json() == written
    return found


def _patched(patch: dict[str, Any]) -> object:
    """A pool's, or where it is none a template's."""
    try:
        return _kept(PoolApply.model_validate(merge({"spec": _SPEC, "labels": {}}, patch)))
    except ValidationError:
        return _kept(TemplateApply.model_validate(merge({"spec": _SHAPE, "labels": {}}, patch)))
