"""Resources in the states that the event tests need."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.resources import Request, Reservation, Worker

AT = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)


@pytest.fixture
def reservation() -> Reservation:
    return Reservation.model_validate(
        {
            "kind": "Reservation",
            "metadata": {
                "id": "rsv-1",
                "uid": "u-1",
                "tenant": "acme",
                "createdAt": AT,
                "correlationId": "req-1",
                "traceParent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            },
            "spec": {"definition": "ospf@1.0.0", "pools": ["east", "west"], "durationMinutes": 60},
            "status": {"phase": "Pending"},
        }
    )


@pytest.fixture
def worker() -> Worker:
    return Worker.model_validate(
        {
            "kind": "Worker",
            "metadata": {"id": "east-001", "uid": "u-w", "createdAt": AT},
            "spec": {
                "pool": "east",
                "template": "simulated",
                "capacity": {"cpuCores": 8, "memoryGb": 32, "storageGb": 100},
                "maxNodes": 20,
                "license": "PERSONAL",
            },
            "status": {"phase": "Offline"},
        }
    )


@pytest.fixture
def make_request() -> Callable[..., Request]:
    def make(**spec: Any) -> Request:
        return Request.model_validate(
            {
                "kind": "Request",
                "metadata": {"id": "req-1", "uid": "u-r", "tenant": "acme", "createdAt": AT},
                "spec": {
                    "type": "io.lablet.reservation.cancel.requested.v1",
                    "subject": "reservation/rsv-1",
                    "data": {"reason": "rain"},
                    "eventId": "7f0c0a52-0000-5000-8000-000000000001",
                    "service": "scheduler",
                    "shard": "east",
                    "digest": "0" * 64,
                    "principal": "learner-17",
                    "receivedAt": AT,
                    "traceParent": "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01",
                }
                | spec,
                "status": {"phase": "Accepted"},
            }
        )

    return make
