"""The port to a cloud that lends machines.

Every call is idempotent: launching twice with one client token gives one machine, stopping what is stopped is no error. An
error is never read as absence: only `NotFound` from the provider says that a machine is gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ProviderError(Exception):
    """The provider refused a call or could not do it."""

    lasts = True
    """Asking again changes nothing: somebody has to act."""


class NotFound(ProviderError):
    """The provider says that there is no such machine."""

    lasts = False


class InsufficientCapacity(ProviderError):
    """The provider has no machine of that shape now."""

    lasts = False


class Throttled(ProviderError):
    """Too many calls: later."""

    lasts = False


class NotReady(ProviderError):
    """The machine is in a state in which this cannot be done yet."""

    lasts = False


class Unauthorized(ProviderError):
    """The credentials were refused: an operator has to act."""


class ProviderUnavailable(ProviderError):
    """No answer. Nothing is known about the machine."""

    lasts = False


class MachineState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"

    @property
    def runs_nothing(self) -> bool:
        """Whatever ran on it has ended for certain."""
        return self in (MachineState.STOPPED, MachineState.TERMINATED)


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """One machine for one logical worker."""

    client_token: str
    """The same for every try of the same launch."""
    name: str
    instance_type: str
    image: str = ""
    """Name pattern; the newest image that matches is taken."""
    user_data: str = ""
    """At most 16 KB."""
    storage_gb: int = 0
    """At least so large a disk; 0: as the image says."""
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """A machine as the provider sees it."""

    id: str
    name: str
    state: MachineState
    url: str | None = None
    """Base URL of the runtime's API, once it is known."""
    host: str | None = None
    """Host on which labs' ports answer."""
    reason: str = ""
    tags: Mapping[str, str] | None = None


class Provider(Protocol):
    """Lends machines. Every call may raise `ProviderUnavailable`, `Throttled` and `Unauthorized`."""

    @property
    def permanent(self) -> bool:
        """Its machines outlive their end: a host that was terminated comes back as it was, with its password and whatever
        still ran on it, so it is emptied first."""
        ...

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        """A new machine, or the one that this token made before. Raises `InsufficientCapacity`."""
        ...

    async def describe(self, machine_id: str) -> MachineInfo:
        """Raises `NotFound`."""
        ...

    async def find(self, tags: Mapping[str, str]) -> list[MachineInfo]:
        """All machines that carry the tags, terminated ones left out."""
        ...

    async def start(self, machine_id: str) -> MachineInfo:
        """Raises `NotFound`, `NotReady`, `InsufficientCapacity`."""
        ...

    async def stop(self, machine_id: str) -> MachineInfo:
        """Raises `NotFound`."""
        ...

    async def terminate(self, machine_id: str) -> None:
        """A machine that is gone already is no error."""
        ...

    async def close(self) -> None: ...
