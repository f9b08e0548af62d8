"""What agents' hosts use, as their heartbeats tell it: shown as a metric and nowhere else.

A heartbeat comes every few seconds, so nothing of it is written. Heartbeats are shared among the replicas: each one shows
what it heard last. A worker whose session is over has no load.
"""

from lablet_common.agents import Usage
from lablet_common.telemetry.metrics import WORKER_LOAD


def show(worker: str, usage: Usage) -> None:
    """Shows each of its figures under the field's name."""
    for what, value in usage.model_dump().items():
        WORKER_LOAD.labels(worker, what).set(value)


def forget(worker: str) -> None:
    """Shows nothing of it any more."""
    for what in Usage.model_fields:
        WORKER_LOAD.remove(worker, what)
