"""The small story that the examples tell: learner-17's class in OSPF, on one worker of the pool `default`."""

from collections.abc import Mapping
from typing import Any

_CODE = "h3kq5v7c2m4n6p8r2t4w6y3z5a"
RESERVATION, INSTANCE, REQUEST = f"rsv-{_CODE}", f"ins-{_CODE}-1", f"req-{_CODE}"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_START, _END = "2027-03-01T09:00:00Z", "2027-03-01T11:00:00Z"
_ASKED = {"definition": "ospf-basics@1.0.0", "seats": 2, "pools": ["default"], "durationMinutes": 120}
_SIZE = {"cpuCores": 16, "memoryGb": 64, "storageGb": 200}


def _metadata(name: str, owner: str | None = None) -> dict[str, Any]:
    told = {
        "id": name,
        "uid": "0c9d3f2e-6b1a-4f57-9a55-3c1f6f0f2a11",
        "tenant": "default",
        "labels": {"course": "ccna-1"},
        "createdAt": "2027-03-01T07:00:00Z",
        "resourceVersion": "1234",
        "generation": 1,
    }
    return told if owner is None else told | {"owner": owner}


_TEMPLATE = {"instanceType": "m5.4xlarge", "capacity": _SIZE, "license": "ENTERPRISE", "maxNodes": 40}
_POOL = {"template": "m5", "max": 4, "warm": 1}

SHOWN: Mapping[str, Any] = {
    "ReservationCreate": {
        "definition": "ospf-basics", "seats": 2, "start": _START, "end": _END, "labels": {"course": "ccna-1"},
    },
    "SimulationCreate": {
        "reservations": [{"definition": "ospf-basics", "seats": 2, "start": _START, "end": _END}], "workers": 2,
    },
    "SeriesCreate": {
        "definition": "ospf-basics", "seats": 2, "start": "2027-03-02T08:00:00Z", "durationMinutes": 120,
        "rule": "FREQ=WEEKLY;BYDAY=TU;COUNT=14", "timezone": "Europe/Berlin", "exceptDates": ["2027-04-06"],
    },
    "SeriesChange": {"scope": "following", "date": "2027-03-09", "durationMinutes": 90},
    "ReservationChange": {"end": "2027-03-01T12:00:00Z"},
    "PoolApply": {"spec": _POOL, "labels": {"site": "fra"}},
    "TemplateApply": {"spec": _TEMPLATE},
    "WorkerDrain": {"until": "2027-03-01T18:00:00Z", "deadlineMinutes": 90, "message": "a new disk"},
    "WorkerCordon": {"reason": "a new disk"},
    "SubscriptionCreate": {
        "name": "lms", "sink": "https://lms.example.org/lablet", "types": ["io.lablet.reservation."],
        "labelSelector": "course=ccna-1",
    },
    "SubscriptionChange": {"paused": True},
    "Quota": {"retentionDays": 30},
    "Reservation": {
        "kind": "Reservation",
        "metadata": _metadata(RESERVATION, "learner-17"),
        "spec": _ASKED | {"start": _START, "end": _END},
        "status": {
            "phase": "Scheduled",
            "reason": "Placed",
            "pool": "default",
            "slot": {"start": _START, "end": _END},
            "placement": [{"seat": 1, "worker": "default-003", "ports": {"r1_serial": 2000}, "instance": INSTANCE}],
            "history": [
                {"from": "Pending", "to": "Scheduled", "at": "2027-03-01T07:00:00Z", "by": "/lablet/scheduler",
                 "reason": "Placed"}
            ],
        },
    },
    "Instance": {
        "kind": "Instance",
        "metadata": _metadata(INSTANCE, "learner-17"),
        "spec": {
            "reservation": RESERVATION, "seat": 1, "definition": "ospf-basics@1.0.0", "pool": "default",
            "worker": "default-003", "ports": {"r1_serial": 2000}, "start": _START, "end": _END,
        },
        "status": {"phase": "Running", "host": "10.20.0.13"},
    },
    "Worker": {
        "kind": "Worker",
        "metadata": _metadata("default-003"),
        "spec": {"pool": "default", "template": "m5", "capacity": _SIZE, "maxNodes": 40, "license": "ENTERPRISE",
                 "portRange": {"start": 2000, "end": 9999}},
        "status": {"phase": "Ready", "address": "10.20.0.13"},
    },
    "WorkerPool": {
        "kind": "WorkerPool", "metadata": _metadata("default"), "spec": _POOL, "status": {"phase": "Active"},
    },
    "WorkerTemplate": {
        "kind": "WorkerTemplate", "metadata": _metadata("m5"), "spec": _TEMPLATE, "status": {"phase": "Active"},
    },
    "Request": {
        "kind": "Request",
        "metadata": _metadata(REQUEST, "learner-17"),
        "spec": {
            "type": "io.lablet.reservation.requested.v1", "subject": f"reservation/{RESERVATION}",
            "data": _ASKED | {"start": _START, "end": _END}, "eventId": "0c9d3f2e-6b1a-4f57-9a55-3c1f6f0f2a11",
            "service": "scheduler", "shard": "default", "digest": DIGEST, "principal": "learner-17", "role": "learner",
            "receivedAt": "2027-03-01T07:00:00Z",
        },
        "status": {"phase": "Decided", "reason": "Placed", "resource": f"reservation/{RESERVATION}"},
    },
}  # fmt: skip
"""Whole examples by the name of the model."""

WORDS: Mapping[str, Any] = {
    "consumer": "webhook-lms", "correlationId": REQUEST, "createdAt": "2027-03-01T07:00:00Z",
    "definition": "ospf-basics@1.0.0", "digest": DIGEST, "durationMinutes": 120, "end": _END, "epoch": "1772348400000000",
    "expiresAt": "2027-05-30T08:00:00Z", "from": _START, "host": "10.20.0.13", "id": RESERVATION, "instance": INSTANCE,
    "instanceType": "m5.4xlarge", "labelSelector": "course=ccna-1", "labels": {"course": "ccna-1"}, "name": "ospf-basics",
    "now": "2027-03-01T08:00:00Z", "owner": "learner-17", "phase": "Running", "pool": "default", "pools": ["default"],
    "port": 2000, "ports": {"r1_serial": 2000}, "principal": "learner-17", "protocol": "serial", "region": "eu-central-1",
    "request": REQUEST, "reservation": RESERVATION, "resourceVersion": "1234", "seat": 1, "seats": 2,
    "secret": "whsec_…", "sink": "https://lms.example.org/lablet", "source": "/lms", "speed": 1.0, "start": _START,
    "subject": f"reservation/{RESERVATION}", "summary": "2 seats fit into pool default.", "template": "m5",
    "tenant": "default", "to": _END, "token": "lk_…", "type": "io.lablet.reservation.scheduled.v1",
    "uid": "0c9d3f2e-6b1a-4f57-9a55-3c1f6f0f2a11", "url": "https://lablet.example.org/api/v1/…", "user": "learner-17",
    "version": "1.0.0", "worker": "default-003",
}  # fmt: skip
"""Values by the name of the field, where they fit its schema."""
