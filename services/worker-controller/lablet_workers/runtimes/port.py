"""The port to the software that runs labs on a worker.

Steps are asynchronous on the other side: `start` accepts, `progress` tells how far it is. Every call is idempotent, so that
a step may be done again after a crash at any point. A lab is found again by its title, which is the instance's id.
"""

import asyncio
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from lablet_common.loads import Load


class RuntimeFault(Exception):
    """The runtime refused a call; the message is its own."""


class RuntimeUnavailable(RuntimeFault):
    """No answer, or not ready yet: later."""


class LabMissing(RuntimeFault):
    """There is no such lab on this worker."""


class LoginRefused(RuntimeFault):
    """User name or password are wrong."""


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    version: str
    ready: bool
    """It can start nodes."""


@dataclass(frozen=True, slots=True)
class LicenseInfo:
    registration: str
    authorization: str
    node_quota: int | None = None

    @property
    def in_compliance(self) -> bool:
        return self.registration == "COMPLETED" and self.authorization == "IN_COMPLIANCE"

    @property
    def registered(self) -> bool:
        return self.registration not in ("", "NOT_REGISTERED")


@dataclass(frozen=True, slots=True)
class LabProgress:
    """How far a lab has come."""

    converged: bool
    """Every node is up."""
    stopped: bool
    """No node runs."""
    nodes: Mapping[str, str]
    """Node label → state."""
    completed: bool = False
    """It was to end by itself, and has: it is not started again."""
    exit_code: int | None = None
    """Of a completed lab."""
    failed: str = ""
    """Why it will never be up, where that is certain."""


class Runtime(Protocol):
    """One worker's runtime. Every call may raise `RuntimeUnavailable`."""

    @property
    def file_suffix(self) -> str:
        """Of the files that `configurations` gives, where their labels have none."""
        ...

    async def info(self) -> RuntimeInfo:
        """Without login."""
        ...

    async def load(self) -> Load | None:
        """What its machine uses now; None: it does not tell."""
        ...

    async def secure(self, default_password: str, password: str) -> None:
        """Makes sure that `password` is the administrator's, changing it from the image's default if need be. Raises
        `LoginRefused` when neither opens."""
        ...

    async def license(self) -> LicenseInfo: ...

    async def register(self, product: str, token: str) -> None:
        """Product, transport, registration; poll `license` afterwards. One under way or completed is no error."""
        ...

    async def deregister(self) -> None:
        """Gives the licence back; it being given back already is no error. Raises `RuntimeFault` while nodes run."""
        ...

    async def labs(self, besides: Container[str] = ()) -> Mapping[str, str]:
        """Id → title of every lab on the worker but those whose ids are named. A title may occur twice: imports look and then
        make, so two that cross make two labs; and people name theirs as they like."""
        ...

    async def import_lab(self, title: str, topology: bytes) -> str:
        """The lab's id; one with that title that is there already is taken. Not guaranteed: that it is the only one. A
        request that was given up, or whose sender stood still and lost its shard, may be carried out after the look."""
        ...

    async def start(self, lab: str) -> None:
        """Raises `LabMissing`; `RuntimeFault` when a licence or capacity forbids it."""
        ...

    async def progress(self, lab: str) -> LabProgress:
        """Raises `LabMissing`."""
        ...

    async def configurations(self, lab: str) -> Mapping[str, bytes]:
        """Node label → its present configuration, of the nodes that have one."""
        ...

    async def export(self, lab: str) -> bytes:
        """The lab as a topology file, with configurations."""
        ...

    async def stop(self, lab: str) -> None: ...

    async def remove(self, lab: str) -> None:
        """Wipes and deletes a stopped lab; one that is gone is no error."""
        ...

    async def close(self) -> None:
        """Ends the connection. Whatever is asked by it from then on raises `RuntimeUnavailable`."""
        ...


def titled(labs: Mapping[str, str], title: str) -> list[str]:
    """The ids of those labs (id → title) that bear the title, in an order that everybody finds."""
    return sorted(lab for lab, name in labs.items() if name == title)


@dataclass(frozen=True, slots=True)
class LabNode:
    """One node of a lab on a worker."""

    id: str
    label: str
    state: str


@runtime_checkable
class NodeByNode(Protocol):
    """A runtime that gives what its nodes have one by one, so that a refusal costs one node. Every call may raise
    `RuntimeUnavailable` and `LabMissing`."""

    async def nodes(self, lab: str) -> Sequence[LabNode]: ...

    async def configuration(self, lab: str, node: LabNode) -> bytes | None:
        """What it is configured as at this moment; None for a node that has no configuration. Raises `RuntimeFault` when it
        has one and does not give it."""
        ...

    async def console_log(self, lab: str, node: LabNode) -> bytes | None:
        """What its console has shown; None for a node without one. Raises `RuntimeFault`."""
        ...


@runtime_checkable
class WarmRuntime(Runtime, Protocol):
    """A runtime in which a lab that was imported for nobody can become somebody's."""

    taking: asyncio.Lock
    """Held while one is taken or removed: two seats must not make it theirs."""

    async def adopt(self, lab: str, title: str, topology: bytes) -> bool:
        """Gives a lab that has never been started the tags and smart annotations of `topology`, and then the title. False:
        it cannot be made the same, and still has its old title."""
        ...


class Runtimes(Protocol):
    """Opens the runtime of a worker by its address."""

    def open(self, url: str, password: str) -> Runtime: ...
