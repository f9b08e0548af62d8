"""How nodes run: DEFINED_ON_CORE → QUEUED → STARTED → BOOTED, STOPPED, wiped; asynchronous, on lab time.

`Launcher` is the only writer of a node's state. A start is refused as a whole before anything moves (that check is
`capacity`'s); after that, a node that cannot get its ports or that a fault holds back stays QUEUED and is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .clock import Clock
from .console import wanted_ports
from .errors import invalid
from .faults import Faults, hits
from .ios import Device, RunningConfig
from .model import BOOTED, DEFINED, DISCONNECTED, QUEUED, STARTED, STOPPED, Lab, Node
from .witness import Witness

QUEUE_SECONDS = 1.0
STOP_SECONDS = 2.0
RETRY_SECONDS = 5.0


class ConsolePorts(Protocol):
    """What the launcher needs of `console.Consoles`."""

    def reserve(self, node: Node) -> str | None: ...
    def open(self, node: Node, device: Device, *, deaf: bool = False) -> str | None: ...
    def close(self, node: Node) -> list[int]: ...
    def log(self, node: Node) -> str: ...
    def ports(self) -> dict[int, str]: ...


def startup_text(configuration: Any) -> str:
    """The text that a node boots with: the configuration itself, or its first file's content."""
    if isinstance(configuration, list):
        configuration = configuration[0] if configuration else None
    if isinstance(configuration, dict):
        configuration = configuration.get("content")
    return configuration or ""


def with_text(configuration: Any, text: str, default_name: str) -> Any:
    """The configuration in the form that it had (text, file or list of files), with `text` in its first place."""
    if isinstance(configuration, list):
        first = configuration[0] if configuration else {"name": default_name}
        return [{**first, "content": text}, *configuration[1:]]
    if isinstance(configuration, dict):
        return {**configuration, "content": text}
    return text


class Launcher:
    """Moves nodes through their states. `boot_seconds`, if given, stands for every definition's boot time."""

    def __init__(
        self,
        clock: Clock,
        consoles: ConsolePorts,
        witness: Witness,
        faults: Faults,
        totals: Callable[[], dict[str, Any]],
        boot_seconds: float | None = None,
    ) -> None:
        self._clock, self._consoles, self._witness, self._faults = clock, consoles, witness, faults
        self._totals = totals
        self._boot_seconds = boot_seconds

    def start(self, lab: Lab, nodes: Iterable[Node]) -> None:
        """Queues every node that is not active yet."""
        lab.empty_state = STARTED
        for node in nodes:
            if not node.active:
                node.since = {}
                node.complaint = None
                self._enter(lab, node, QUEUED)
                self._plan(node, QUEUE_SECONDS, self._launch, lab)
        self._announce(lab)

    def stop(self, lab: Lab, nodes: Iterable[Node]) -> None:
        """Stops every active node; they are STOPPED a little later."""
        if not lab.nodes and lab.empty_state == STARTED:
            lab.empty_state = STOPPED
        for node in nodes:
            if node.active and not node.stopping:
                node.stopping = True
                self._plan(node, STOP_SECONDS, self._stopped, lab)
        self._announce(lab)

    def wipe(self, lab: Lab, nodes: Iterable[Node]) -> None:
        """Forgets the nodes' disks. Raises 400 when one of them is active."""
        chosen = list(nodes)
        if running := [node.label for node in chosen if node.active]:
            raise invalid(f"Cannot wipe while nodes are running: {', '.join(running[:5])}.")
        if not lab.nodes:
            lab.empty_state = DEFINED
        for node in chosen:
            node.startup = None
            node.running = None
            if node.state != DEFINED:
                self._enter(lab, node, DEFINED)

    def extract(self, lab: Lab, node: Node) -> None:
        """Saves the running configuration into the node's `configuration`. Raises 400 unless the node has booted."""
        if not node.definition.has_console:
            raise invalid(f"Configuration extraction is not supported by node definition {node.definition.id}.")
        if node.state != BOOTED or node.running is None:
            raise invalid(f"Node {node.label} must be booted to extract its configuration; it is {node.state}.")
        node.configuration = with_text(node.configuration, str(node.running), node.definition.config_file)
        lab.modified = self._clock.wall()

    def forget(self, node: Node) -> None:
        """Ends whatever is planned for a node that is about to be deleted."""
        if node.timer is not None:
            node.timer.cancel()
        self._consoles.close(node)

    def apply_faults(self, labs: Iterable[Lab]) -> None:
        """Makes active nodes follow the switches: DISCONNECTED as long as a pattern matches, back when it does not."""
        for lab in labs:
            for node in lab.nodes.values():
                lost = hits(self._faults.disconnected, node.label)
                if lost and node.state in (STARTED, BOOTED) and not node.stopping:
                    self._disconnect(lab, node)
                elif not lost and node.state == DISCONNECTED and not node.stopping:
                    self._enter(lab, node, QUEUED)
                    self._plan(node, 0, self._launch, lab)

    def converged(self, nodes: Iterable[Node]) -> bool:
        """True when no node is on its way anywhere."""
        return not self._faults.neverConverge and not any(
            node.stopping or node.state in (QUEUED, STARTED) for node in nodes
        )

    def _plan(self, node: Node, delay: float, action: Callable[[Lab, Node], None], lab: Lab) -> None:
        if node.timer is not None:
            node.timer.cancel()
        node.timer = self._clock.later(delay, lambda: action(lab, node))

    def _enter(self, lab: Lab, node: Node, state: str) -> None:
        previous, node.state = node.state, state
        node.since[state] = self._clock.now()
        at = self._clock.wall()
        lab.record(at, "STATE_CHANGED", "NODE", node.id, {"state": state}, {"state": previous})

    def _launch(self, lab: Lab, node: Node) -> None:
        complaint = None
        if hits(self._faults.stuckQueued, node.label):
            complaint = f"Node {node.label} waits in the launch queue."
        elif hits(self._faults.disconnected, node.label):
            return self._disconnect(lab, node)
        else:
            complaint = self._consoles.reserve(node)
        if complaint is not None:
            self._complain(lab, node, complaint)
            return self._plan(node, RETRY_SECONDS, self._launch, lab)
        node.complaint = None
        text = node.startup if node.startup is not None else startup_text(node.configuration)
        if node.running is None:
            node.running = RunningConfig(text, node.label)
        self._enter(lab, node, STARTED)
        self._witness.saw("node.started", lab=lab.id, title=lab.title, node=node.label, **self._totals())
        boot = node.definition.boot if self._boot_seconds is None else self._boot_seconds
        return self._plan(node, boot * self._faults.slowBoot, self._booted, lab)

    def _booted(self, lab: Lab, node: Node) -> None:
        complaint = self._consoles.open(node, self.device(node), deaf=hits(self._faults.deafConsoles, node.label))
        if complaint is not None:
            self._enter(lab, node, QUEUED)
            self._complain(lab, node, complaint)
            return self._plan(node, RETRY_SECONDS, self._launch, lab)
        node.timer = None
        self._enter(lab, node, BOOTED)
        ports = [port for _, port in wanted_ports(node)]
        self._witness.saw("node.booted", lab=lab.id, title=lab.title, node=node.label, ports=ports)
        if all(each.state == BOOTED for each in lab.nodes.values() if each.active):
            self._witness.saw("lab.converged", lab=lab.id, title=lab.title)
        return None

    def device(self, node: Node) -> Device:
        """The node as its consoles see it."""
        booted = self._clock.now()

        def save(text: str) -> None:
            node.startup = text

        return Device(node.running, node.definition.label, lambda: self._clock.now() - booted, save)

    def _stopped(self, lab: Lab, node: Node) -> None:
        node.timer = None
        node.stopping = False
        node.running = None
        ports = self._consoles.close(node)
        self._enter(lab, node, STOPPED)
        self._witness.saw("node.stopped", lab=lab.id, title=lab.title, node=node.label, ports=ports, **self._totals())
        self._announce(lab)

    def _disconnect(self, lab: Lab, node: Node) -> None:
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        self._consoles.close(node)
        self._enter(lab, node, DISCONNECTED)

    def _complain(self, lab: Lab, node: Node, complaint: str) -> None:
        if node.complaint != complaint:
            node.complaint = complaint
            data = {"state": node.state, "error": complaint}
            lab.record(self._clock.wall(), "CHANGE", "NODE", node.id, data, {})
            self._witness.saw("node.refused", lab=lab.id, title=lab.title, node=node.label, reason=complaint)

    def _announce(self, lab: Lab) -> None:
        runs = lab.state == STARTED
        if runs != lab.announced:
            lab.announced = runs
            at = self._clock.wall()
            lab.record(at, "STATE_CHANGED", "LAB", lab.id, {"state": lab.state}, {})
            ports = sorted(port for node in lab.nodes.values() for _, port in wanted_ports(node))
            fact = "lab.started" if runs else "lab.stopped"
            self._witness.saw(fact, lab=lab.id, title=lab.title, ports=ports, **self._totals())
