"""The controller: all parts of one simulated CML put together, and the actions that touch several of them.

It boots like the real one: for the first part of `boot_seconds` (lab time) a proxy answers 502, then the API answers
with `ready` false, then it is ready. Everything happens on one event loop; nothing here blocks or awaits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import topology_io
from .accounts import Account, Accounts
from .capacity import Host
from .clock import Clock
from .console import wanted_ports
from .errors import invalid
from .faults import Faults
from .labs import Labs
from .licensing import Licence
from .model import Lab, Node
from .nodes import ConsolePorts, Launcher
from .pools import Pools
from .witness import Witness

Json = dict[str, Any]
VERSION = "2.9.0+build.3"
_PROXY_PART = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """How one controller differs from another. Times in lab seconds."""

    username: str = "admin"
    password: str = ""
    boot_seconds: float = 0.0
    node_boot_seconds: float | None = None
    session_seconds: float = 86_400
    evaluation_nodes: int = 0
    base_nodes: int | None = None
    state_file: Path | None = None
    host: Host = field(default_factory=Host)


class Controller:
    """One simulated controller."""

    def __init__(self, clock: Clock, consoles: ConsolePorts, options: Options, faults: Faults | None = None) -> None:
        self.clock = clock
        self.host = options.host
        self.faults = faults or Faults()
        self.witness = Witness(clock, options.state_file)
        self.accounts = Accounts(clock, options.username, options.password, options.session_seconds)
        self.labs = Labs(clock)
        self.pools = Pools(self.accounts)
        self.licence = Licence(
            clock, self.faults, self.witness, evaluation_nodes=options.evaluation_nodes, base_nodes=options.base_nodes
        )
        self.consoles = consoles
        self.launcher = Launcher(clock, consoles, self.witness, self.faults, self.totals, options.node_boot_seconds)
        self.maintenance = False
        self.notice: str | None = None
        self.telemetry: bool | None = None
        self.connector_ids: dict[str, str] = {}
        self._boot_seconds = options.boot_seconds
        self._most = 0
        self.witness.saw("controller.started", host=self.host.address, version=VERSION)

    @property
    def behind_proxy(self) -> bool:
        """True as long as the API does not answer at all (502)."""
        return self.clock.now() < self._boot_seconds * _PROXY_PART

    @property
    def ready(self) -> bool:
        """True when a compute host can start nodes."""
        booted = self.clock.now() >= self._boot_seconds
        return booted and not self.faults.notReady and self.host.admission == "READY"

    def nodes(self) -> list[Node]:
        return [node for lab in self.labs.all() for node in lab.nodes.values()]

    def active(self) -> list[Node]:
        return [node for node in self.nodes() if node.active]

    def counted(self) -> int:
        """Active nodes that count against the licence."""
        return self.host.counted(self.active())

    def totals(self) -> Json:
        """What every fact about a start or stop carries: counted nodes running now, and the quota."""
        running = self.counted()
        self._most = max(self._most, running)
        return {"runningNodes": running, "quota": self.licence.quota}

    def import_lab(self, document: Any, account: Account, title: str | None) -> tuple[Lab, list[str]]:
        """Makes a lab of a topology document; raises 400."""
        lab, warnings = topology_io.build(document, account.id, self.clock, title)
        self.add(lab)
        return lab, warnings

    def add(self, lab: Lab) -> None:
        self.labs.add(lab)
        self.witness.saw("lab.imported", lab=lab.id, title=lab.title, nodes=len(lab.nodes))

    def start(self, lab: Lab, nodes: list[Node]) -> None:
        """Starts the nodes, all or none: 400 when licence, host or pool have no room."""
        wanted = [node for node in nodes if not node.active]
        if not self.ready:
            raise invalid("The system is not ready: no compute host can start nodes.")
        self.host.admit(self.active(), wanted, self.licence.quota)
        self.pools.admit(lab, wanted, self.labs.all())
        self.launcher.start(lab, nodes)

    def wipe(self, lab: Lab, nodes: list[Node]) -> None:
        self.launcher.wipe(lab, nodes)
        self.witness.saw("lab.wiped", lab=lab.id, title=lab.title)

    def delete(self, lab: Lab) -> None:
        """Deletes a stopped and wiped lab; raises 400."""
        self.labs.remove(lab)
        for node in lab.nodes.values():
            self.launcher.forget(node)
        self.witness.saw("lab.deleted", lab=lab.id, title=lab.title)

    def console_log(self, node: Node) -> str:
        """What was written on the node's consoles in this run."""
        return self.consoles.log(node)

    def open_ports(self) -> dict[int, str]:
        """Console port → label of the node that has it."""
        return self.consoles.ports()

    def snapshot(self) -> Json:
        """The answer of /sim/state: what runs now, which ports are open, and everything that the witness saw."""
        labs = [
            {
                "id": lab.id,
                "title": lab.title,
                "state": lab.state,
                "nodes": {node.label: node.state for node in lab.nodes.values()},
                "ports": sorted(
                    port for node in lab.nodes.values() if node.state == "BOOTED" for _, port in wanted_ports(node)
                ),
            }
            for lab in self.labs.all()
        ]
        return {
            "version": VERSION,
            "ready": self.ready,
            "labSeconds": round(self.clock.now(), 3),
            "labs": labs,
            "running": [lab["title"] for lab in labs if lab["state"] == "STARTED"],
            "runningNodes": self.counted(),
            "mostNodes": self._most,
            "quota": self.licence.quota,
            "licensed": self.licence.licensed,
            "starts": self.witness.starts,
            "history": self.witness.history,
        }

    def close(self) -> None:
        """Ends every console and the witness log."""
        for node in self.nodes():
            self.launcher.forget(node)
        self.witness.saw("controller.stopped")
        self.witness.close()
