"""What a worker's machine uses now, as it tells its pool's owner: shown to operators, decided by nothing.

Sizes are GiB, as in `Capacity`. What is told stands in a leased key beside the worker's liveness and never in the Worker
record, so that looking at a thousand workers changes none of them; with the lease it is gone.
"""

from typing import Annotated

from pydantic import Field

from lablet_common.resources.model import Instant, Model

_Amount = Annotated[float, Field(ge=0)]


class Used(Model):
    """So much of so much."""

    used: _Amount
    total: _Amount

    @property
    def ratio(self) -> float:
        """Between 0 and 1; 0 of nothing."""
        return min(1.0, self.used / self.total) if self.total else 0.0


class Load(Model):
    """Of all its processes, labs or not."""

    cpu_cores: Used
    memory_gb: Used
    storage_gb: Used
    nodes: Annotated[int, Field(ge=0)]
    """Nodes of labs that run."""


class WorkerLoad(Load):
    """As a worker told it, and when."""

    worker: str
    at: Instant
    """Lab time."""


class LoadOf(Model):
    """The answer to a question for a worker's load."""

    worker: str
    load: WorkerLoad | None = None
    """None: it is off, or has not told anything lately."""
