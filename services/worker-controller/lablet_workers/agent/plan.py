"""What a lab's supervisor is told (`plan.json`) and what it tells (`state.json`), as plain values and files.

Written in one step (a new file takes the old one's place), so that whoever reads sees all of it or none. The standard
library alone: a supervisor starts in a few hundredths of a second and stays small.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

SIGNALLED = 128
TIMED_OUT = 124
"""Exit code of a node whose time ran out, as timeout(1) has it."""
RECORD_LOST = "RecordLost"
NOT_RUNNABLE = 127
"""Exit code of a node whose program could not be started."""
_LONGEST_BACKOFF = 30.0
_DOUBLINGS = 16
"""Of a pause between restarts: more leave the range of a number after a thousand."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Per process; bytes, counts and seconds. None: the host's own."""

    memory: int | None = None
    file_size: int | None = None
    files: int | None = None
    processes: int | None = None
    cpu_seconds: int | None = None
    wall_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A health check: `kind` is tcp, http or command."""

    kind: str
    port: int = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    interval: float = 2.0
    timeout: float = 2.0
    retries: int = 3
    start_period: float = 60.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One process to run."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    limits: Limits = Limits()
    check: Check | None = None
    restart: str = "never"
    restarts: int | None = None
    backoff: float = 0.5
    after: tuple[tuple[str, str], ...] = ()
    """(node, started | healthy | completed)."""

    @property
    def ends(self) -> bool:
        return self.restart != "always"

    def wants_restart(self, exit_code: int, done: int) -> bool:
        """As `process_lab.Restart.wants`, which a test compares."""
        if self.restarts is not None and done >= self.restarts:
            return False
        return self.restart == "always" or (self.restart == "on-failure" and exit_code != 0)

    def pause_after(self, restarts: int) -> float:
        """Seconds before the given restart (1 is the first), however many there have been: labs run for days."""
        return min(self.backoff * 2.0 ** min(restarts - 1, _DOUBLINGS), _LONGEST_BACKOFF)


@dataclass(frozen=True, slots=True)
class LabPlan:
    """One lab to supervise."""

    id: str
    title: str
    until_completed: bool
    nodes: tuple[NodePlan, ...]
    user: int | None = None
    """User and group id to run as; None: the agent's own."""
    group: int | None = None
    grace_seconds: float = 2.0
    """Between TERM and KILL."""
    output_bytes: int = 1024 * 1024
    """Of a node's output that are kept at least; twice as many at most."""


class Phase(StrEnum):
    """Of a node."""

    WAITING = "WAITING"
    STARTING = "STARTING"
    """Runs, and its health check has not succeeded yet."""
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    RESTARTING = "RESTARTING"
    EXITED = "EXITED"
    """Ended by itself, for good."""
    SKIPPED = "SKIPPED"
    """What it waited for will never be."""
    STOPPED = "STOPPED"
    """Ended from outside."""


FINAL = (Phase.EXITED, Phase.SKIPPED, Phase.STOPPED)


@dataclass(slots=True)
class NodeRecord:
    """What is known of one node."""

    name: str
    phase: str = Phase.WAITING
    pid: int | None = None
    exit_code: int | None = None
    restarts: int = 0
    message: str = ""
    dropped: int = 0
    """Bytes at the beginning of its output that are no longer kept."""
    written: int = 0
    """Bytes of output in all."""


@dataclass(slots=True)
class LabRecord:
    """What is known of one lab; `phase` is new (not started), starting, running, completed or stopped."""

    id: str
    title: str
    phase: str = "starting"
    reason: str = ""
    exit_code: int | None = None
    nodes: list[NodeRecord] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        """Something of it may run."""
        return self.phase in ("starting", "running")

    @property
    def over(self) -> bool:
        """It has come to an end."""
        return self.phase in ("completed", "stopped")


@dataclass(frozen=True, slots=True)
class LabFolder:
    """Where everything of one lab lies."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def manifest(self) -> Path:
        """The seat's lab as it was imported."""
        return self.root / "manifest.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def supervisor(self) -> Path:
        """Pid and start time of the supervisor."""
        return self.root / "supervisor.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        """What the supervisor itself has to say."""
        return self.root / "supervisor.log"

    def output(self, node: str) -> Path:
        return self.root / "output" / f"{node}.log"

    def work(self, node: str) -> Path:
        return self.root / "work" / node


def write_json(path: Path, value: Any) -> None:
    """Replaces the file in one step; only its owner may read it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)
    part.replace(path)


def write_plan(folder: LabFolder, plan: LabPlan) -> None:
    write_json(folder.plan, asdict(plan))


def read_plan(folder: LabFolder) -> LabPlan:
    """Raises OSError and ValueError for one that is not there or broken."""
    found = json.loads(folder.plan.read_text(encoding="utf-8"))
    nodes = tuple(
        NodePlan(
            **{
                **node,
                "argv": tuple(node["argv"]),
                "after": tuple((name, condition) for name, condition in node["after"]),
                "limits": Limits(**node["limits"]),
                "check": _check(node["check"]),
            }
        )
        for node in found.pop("nodes")
    )
    return LabPlan(**found, nodes=nodes)


def _check(found: dict[str, Any] | None) -> Check | None:
    return Check(**{**found, "command": tuple(found["command"])}) if found is not None else None


def write_record(folder: LabFolder, record: LabRecord) -> None:
    write_json(folder.state, asdict(record))


def read_record(folder: LabFolder) -> LabRecord | None:
    """None where its supervisor has not written any yet. One that cannot be read (a host that lost its power may have kept an
    empty file) is of a lab that ran and runs no more: not of one that may be started as if it never had been."""
    try:
        found = json.loads(folder.state.read_text(encoding="utf-8"))
        return LabRecord(**{**found, "nodes": [NodeRecord(**node) for node in found["nodes"]]})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return LabRecord(folder.root.name, folder.root.name, phase="stopped", reason=RECORD_LOST)
