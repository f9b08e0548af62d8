"""Machines as records: states, lawful moves, and one JSON file per machine so that they outlive the process.

A record is written whole to a new file and renamed over the old one at every move; it survives a SIGKILL, not a power
cut in the same second.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


MOVES: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.STOPPED, State.STOPPING, State.SHUTTING_DOWN}),
    State.RUNNING: frozenset({State.STOPPING, State.STOPPED, State.SHUTTING_DOWN, State.PENDING}),
    State.STOPPING: frozenset({State.STOPPED, State.SHUTTING_DOWN}),
    State.STOPPED: frozenset({State.PENDING, State.SHUTTING_DOWN}),
    State.SHUTTING_DOWN: frozenset({State.TERMINATED}),
    State.TERMINATED: frozenset(),
}
"""`running → stopped` is a lost machine; `running → pending` one that came back with the cloud."""


class IllegalMove(Exception):
    """A move that no machine makes; names both states."""


@dataclass(frozen=True, slots=True)
class Move:
    state: State
    at: str
    """Real time, RFC 3339 UTC."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine. `host` is its own loopback address; its controller's API listens at `port`."""

    id: str
    client_token: str
    name: str
    instance_type: str
    image: str
    user_data: str
    tags: dict[str, str]
    host: str
    port: int
    launched_at: str
    state: State = State.PENDING
    reason: str = ""
    """Why it is in this state, when nobody asked for it: `lost`, `boot failed`, `restarted with the cloud`."""
    boots: int = 0
    pid: int | None = None
    """Of the simulator process, while there is one."""
    history: tuple[Move, ...] = field(default=())

    def moved(self, to: State, reason: str = "") -> Machine:
        """The record after a move. Raises `IllegalMove`."""
        if to not in MOVES[self.state]:
            raise IllegalMove(f"machine {self.id} is {self.state} and cannot become {to}")
        return replace(self, state=to, reason=reason, history=(*self.history, Move(to, now_text(), reason)))

    def public(self, front: int | None = None) -> Json:
        """As the API shows it. `front`: the port at which its controller's API is to be called, where something stands before
        it, as a load balancer does."""
        return {
            "id": self.id,
            "name": self.name,
            "clientToken": self.client_token,
            "instanceType": self.instance_type,
            "image": self.image,
            "tags": self.tags,
            "state": str(self.state),
            "reason": self.reason,
            "host": self.host,
            "url": f"http://{self.host}:{front or self.port}",
            "launchedAt": self.launched_at,
            "boots": self.boots,
            "pid": self.pid,
            "history": [{"state": str(move.state), "at": move.at, "reason": move.reason} for move in self.history],
        }


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Records:
    """All machines of one folder, `machines/<id>/machine.json` each; terminated ones stay, for the witness."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "machines"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._machines: dict[str, Machine] = {}
        for path in sorted(self._folder.glob("*/machine.json")):
            machine = _parse(json.loads(path.read_text(encoding="utf-8")))
            self._machines[machine.id] = machine

    def all(self) -> list[Machine]:
        """In the order of launch."""
        return sorted(self._machines.values(), key=lambda machine: (machine.launched_at, machine.id))

    def find(self, id_or_name: str) -> Machine | None:
        """By id; by name, the latest that is not terminated."""
        if machine := self._machines.get(id_or_name):
            return machine
        named = [m for m in self.all() if m.name == id_or_name and m.state is not State.TERMINATED]
        return named[-1] if named else None

    def by_token(self, client_token: str) -> Machine | None:
        return next((m for m in self._machines.values() if m.client_token == client_token), None)

    def folder_of(self, machine_id: str) -> Path:
        return self._folder / machine_id

    def save(self, machine: Machine) -> None:
        folder = self.folder_of(machine.id)
        folder.mkdir(exist_ok=True)
        fresh = folder / "machine.json.new"
        fresh.write_text(json.dumps(asdict(machine), indent=1), encoding="utf-8")
        os.replace(fresh, folder / "machine.json")  # noqa: PTH105 - the atomic rename is the point
        self._machines[machine.id] = machine


def _parse(body: Json) -> Machine:
    history = tuple(Move(State(move["state"]), move["at"], move["reason"]) for move in body.pop("history"))
    return Machine(**{**body, "state": State(body["state"]), "history": history, "pid": None})
