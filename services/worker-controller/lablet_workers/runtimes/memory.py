"""A runtime in memory, for tests: labs that start at once or when the test says so, licences, and faults."""

import asyncio
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import count

from lablet_common.loads import Load, Used
from lablet_workers.runtimes.port import (
    LabMissing,
    LabNode,
    LabProgress,
    LicenseInfo,
    LoginRefused,
    RuntimeFault,
    RuntimeInfo,
    RuntimeUnavailable,
    titled,
)


@dataclass(slots=True)
class MemoryLab:
    """One lab and what happened to it."""

    id: str
    title: str
    topology: bytes
    running: bool = False
    starts: int = 0
    states: dict[str, str] = field(default_factory=dict)
    """Node states to tell instead of those of one node that follows the lab."""
    configurations: dict[str, bytes] = field(default_factory=dict)
    console_logs: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryRuntime:
    """One worker's `Runtime`."""

    file_suffix = ".cfg"

    instant: bool = True
    """Labs converge at once; else when the test sets `converged`."""
    password: str = "admin"  # noqa: S105 - the default of a fresh image
    up: bool = True
    converged: bool = False
    registration: str = "NOT_REGISTERED"
    complies: bool = True
    """A completed registration is followed by its authorization."""
    node_quota: int | None = 20
    """What its licence tells."""
    told: Load | None = None
    """What its machine uses, instead of a core and a gigabyte for each lab."""
    tells: bool = True
    """What its machine uses."""
    loads_asked: int = 0
    lab_by_id: dict[str, MemoryLab] = field(default_factory=dict)
    history: list[tuple[str, str]] = field(default_factory=list)
    """(what, lab title) in order."""
    faults: list[RuntimeFault] = field(default_factory=list)
    """Raised by the next calls."""
    refusals: dict[str, list[RuntimeFault]] = field(default_factory=dict)
    """Call (such as `start`, or `configuration r1`) → raised by the next calls of it."""
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ids: "count[int]" = field(default_factory=count)
    _given: str = ""

    def _enter(self, call: str = "") -> None:
        if not self.up:
            raise RuntimeUnavailable("the runtime is switched off")
        if self.refusals.get(call):
            raise self.refusals[call].pop(0)
        if self.faults:
            raise self.faults.pop(0)

    async def info(self) -> RuntimeInfo:
        self._enter()
        return RuntimeInfo("2.9.0", ready=True)

    async def load(self) -> Load | None:
        self._enter("load")
        self.loads_asked += 1
        nodes = sum(lab.running for lab in self.lab_by_id.values())
        plain = Load(
            cpu_cores=Used(used=nodes, total=32), memory_gb=Used(used=nodes, total=64),
            storage_gb=Used(used=nodes, total=500), nodes=nodes,
        )  # fmt: skip
        return (self.told or plain) if self.tells else None

    async def secure(self, default_password: str, password: str) -> None:
        self._enter()
        if self.password not in (default_password, password):
            raise LoginRefused("wrong password")
        self.password = password

    async def license(self) -> LicenseInfo:
        self._enter("license")
        compliance = "IN_COMPLIANCE" if self.registration == "COMPLETED" and self.complies else "EVAL_MODE"
        return LicenseInfo(self.registration, compliance, self.node_quota)

    async def register(self, product: str, token: str) -> None:
        self._enter("register")
        self.history.append(("registered", product))
        self.registration = "COMPLETED" if token else "FAILED"

    async def deregister(self) -> None:
        self._enter("deregister")
        if any(lab.running for lab in self.lab_by_id.values()):
            raise RuntimeFault("Cannot de-register when nodes are running.")
        if self.registration != "NOT_REGISTERED":
            self.history.append(("deregistered", ""))
        self.registration = "NOT_REGISTERED"

    async def labs(self, besides: Container[str] = ()) -> Mapping[str, str]:
        self._enter()
        return {lab.id: lab.title for lab in self.lab_by_id.values() if lab.id not in besides}

    async def import_lab(self, title: str, topology: bytes) -> str:
        known = titled(await self.labs(), title)
        if known:
            return known[0]
        lab = MemoryLab(f"lab-{next(self._ids)}", title, topology)
        self.lab_by_id[lab.id] = lab
        self.history.append(("imported", title))
        return lab.id

    async def adopt(self, lab: str, title: str, topology: bytes) -> bool:
        found = self._lab(lab, "adopt")
        if found.running or found.starts:
            return False
        self.history.append(("adopted", title))
        found.title, found.topology = title, topology
        return True

    def _lab(self, lab: str, call: str = "") -> MemoryLab:
        self._enter(call)
        try:
            return self.lab_by_id[lab]
        except KeyError:
            raise LabMissing(f"no lab {lab}") from None

    async def start(self, lab: str) -> None:
        found = self._lab(lab, "start")
        if not found.running:
            found.running = True
            found.starts += 1
            self.history.append(("started", found.title))

    async def progress(self, lab: str) -> LabProgress:
        found = self._lab(lab)
        up = found.running and (self.instant or self.converged)
        state = "BOOTED" if up else "QUEUED" if found.running else "STOPPED"
        return LabProgress(up, not found.running, found.states or {"r1": state})

    async def configurations(self, lab: str) -> Mapping[str, bytes]:
        return self._lab(lab).configurations or {"r1": b"hostname r1\n"}

    async def nodes(self, lab: str) -> list[LabNode]:
        return [LabNode(label, label, "BOOTED") for label in await self.configurations(lab)]

    async def configuration(self, lab: str, node: LabNode) -> bytes | None:
        return (await self._of_node(lab, "configuration", node)).get(node.label)

    async def console_log(self, lab: str, node: LabNode) -> bytes | None:
        await self._of_node(lab, "console_log", node)
        return self._lab(lab).console_logs.get(node.label)

    async def _of_node(self, lab: str, call: str, node: LabNode) -> Mapping[str, bytes]:
        self._enter(f"{call} {node.label}")
        return await self.configurations(lab)

    async def export(self, lab: str) -> bytes:
        return self._lab(lab).topology

    async def stop(self, lab: str) -> None:
        found = self._lab(lab, "stop")
        if found.running:
            found.running = False
            self.history.append(("stopped", found.title))

    async def remove(self, lab: str) -> None:
        self._enter("remove")
        found = self.lab_by_id.get(lab)
        if found is None:
            return
        if found.running:
            raise RuntimeFault("Cannot wipe a running lab")
        del self.lab_by_id[lab]
        self.history.append(("removed", found.title))

    async def close(self) -> None:
        return None

    def lose_power(self) -> None:
        """Everything that ran has ended, unasked."""
        for lab in self.lab_by_id.values():
            lab.running = False
        self.lab_by_id.clear()
        self.registration = "NOT_REGISTERED"


class MemoryRuntimes:
    """A runtime per address, made when it is first opened; each with a licence for `node_quota` nodes."""

    def __init__(self, *, instant: bool = True, node_quota: int | None = 20) -> None:
        self.by_url: dict[str, MemoryRuntime] = {}
        self._instant = instant
        self._node_quota = node_quota

    def open(self, url: str, password: str) -> MemoryRuntime:  # noqa: ARG002 - the port's signature
        return self.by_url.setdefault(url, MemoryRuntime(instant=self._instant, node_quota=self._node_quota))
