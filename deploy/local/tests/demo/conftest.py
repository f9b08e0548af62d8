"""A small morning that went well, as evidence; tests spoil one thing of it."""

import copy
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lablet_local.demo.checks import Check, judge
from lablet_local.demo.checks.stream import committed
from lablet_local.demo.evidence import Change, Evidence, Ran, TakeOver, Told, Typed, Visit
from lablet_local.demo.scenario import Morning, morning

LAB = {"cpuCores": 2, "memoryGb": 4, "storageGb": 0, "nodeCount": 3}


def _move(frm: str, to: str, at: str) -> dict[str, str]:
    return {"from": frm, "to": to, "at": f"2027-03-01T{at}:00Z", "by": "/lablet/test", "reason": "Test"}


def _resource(name: str, spec: dict[str, Any], phase: str, *moves: dict[str, str], **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"id": name, "uid": f"uid-{name}", "labels": status.pop("labels", {})},
        "spec": spec,
        "status": {"phase": phase, "history": list(moves), **status},
    }


@dataclass
class Story:
    """Documents by key, and the history that leads to them; `evidence()` makes of it what the demo would have read."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: list[tuple[str, Any]] = field(default_factory=list)
    """Commits before the present ones."""
    machines: list[dict[str, Any]] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    left: list[Ran] = field(default_factory=list)
    take_over: TakeOver = field(default_factory=TakeOver)
    typed: Typed = Typed("ins-a-1", "a line", "R1.cfg")  # noqa: RUF009 - frozen
    submitted: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, document: dict[str, Any]) -> dict[str, Any]:
        self.documents[key] = document
        return document

    def evidence(self) -> Evidence:
        history = [Change(n, key, copy.deepcopy(value)) for n, (key, value) in enumerate(self.earlier, start=1)]
        for key, value in self.documents.items():
            history.append(Change(len(history) + 1, key, copy.deepcopy(value)))
        told = [
            Told(
                place,
                one.kind,
                one.subject,
                f"io.lablet.{one.kind}.changed.v1",
                one.revision,
                f"{one.kind}/{one.uid}/{one.revision}",
                history[one.revision - 1].value,
            )
            for place, one in enumerate(committed(Evidence(history=tuple(history))), start=1)
        ]
        return Evidence(
            present=copy.deepcopy(self.documents),
            history=tuple(history),
            events=tuple(told),
            machines=tuple(copy.deepcopy(self.machines)),
            visits=tuple(self.visits),
            ran=tuple(self.ran),
            left=tuple(self.left),
            take_over=self.take_over,
            typed=self.typed,
            submitted=dict(self.submitted),
        )


def _reservation(
    name: str, booking: str, seats: int, phase: str, *moves: dict[str, str], **status: Any
) -> dict[str, Any]:
    slot = {"start": "2027-03-01T08:00:00Z", "end": "2027-03-01T09:00:00Z"}
    spec = {"definition": "lab@1.0.0", "seats": seats, **slot}
    return _resource(
        name, spec, phase, *moves, labels={"booking": booking, "title": booking.title()}, slot=slot, **status
    )


@pytest.fixture(name="plan")
def plan_fixture() -> Morning:
    full = morning()
    wanted = {"class", "study-group", "hackathon", "ada"}
    return replace(full, bookings=tuple(one for one in full.bookings if one.name in wanted), cancelled="workshop")


@pytest.fixture(name="story")
def story_fixture() -> Story:
    """Forty-one seats on one large worker, two of which have simulators' facts; one waited, one was rejected."""
    story = Story()
    story.put(
        "/definitions/default/lab/1.0.0",
        {"metadata": {"id": "lab@1.0.0", "uid": "uid-lab"}, "spec": {"requirements": LAB}, "status": {}},
    )
    capacity = {"cpuCores": 200, "memoryGb": 400, "storageGb": 100}
    on = (
        _move("Offline", "Provisioning", "07:30"),
        _move("Licensing", "Ready", "07:40"),
        _move("Stopping", "Offline", "09:30"),
    )
    story.put("/workers/w-1", _resource("w-1", {"maxNodes": 200, "capacity": capacity}, "Offline", *on))
    seats = [{"seat": 1, "worker": "w-1", "instance": "ins-a-1", "ports": {"r1_serial": 2000}}]
    moves = (_move("Pending", "Scheduled", "07:01"), _move("Scheduled", "Active", "08:00"))
    story.put("/reservations/a", _reservation("a", "class", 40, "Completed", *moves, placement=seats))
    waited = [{"seat": 1, "worker": "w-1", "instance": "ins-b-1", "ports": {"r1_serial": 2001}}]
    moves = (_move("Pending", "Waitlisted", "07:02"), _move("Waitlisted", "Scheduled", "07:46"))
    story.put("/reservations/b", _reservation("b", "study-group", 1, "Completed", *moves, placement=waited))
    why = {"summary": "can never fit"}
    story.put("/reservations/c", _reservation("c", "hackathon", 100, "Rejected", explanation=why))
    for name, port in (("a", 2000), ("b", 2001)):
        spec = {
            "reservation": name,
            "seat": 1,
            "worker": "w-1",
            "definition": "lab@1.0.0",
            "ports": {"r1_serial": port},
        }
        ran = (_move("Instantiating", "Running", "07:55"),)
        story.put(f"/instances/ins-{name}-1", _resource(f"ins-{name}-1", spec, "Terminated", *ran, attempt=1))
        story.visits.append(Visit(f"ins-{name}-1", "r1_serial", f"127.0.0.1:{port}", answered=True))
    story.put(
        "/workers/host-1", _resource("host-1", {"maxNodes": 20, "capacity": capacity, "runtime": "process"}, "Ready")
    )
    alone = [{"seat": 1, "worker": "host-1", "instance": "ins-d-1", "ports": {}}]
    moves = (_move("Pending", "Scheduled", "07:02"), _move("Scheduled", "Active", "08:00"))
    story.put("/reservations/d", _reservation("d", "ada", 1, "Completed", *moves, placement=alone))
    spec = {"reservation": "d", "seat": 1, "worker": "host-1", "definition": "lab@1.0.0", "ports": {}}
    story.put("/instances/ins-d-1", _resource("ins-d-1", spec, "Terminated", *ran, attempt=1))
    story.ran = [Ran("ins-d-1", "host-1", (4711,))]
    story.put("/requests/default/req-1", _resource("req-1", {}, "Decided"))
    held = _reservation("a", "class", 40, "Scheduled", placement=seats)
    story.earlier = [
        ("/ownership/scheduler/default", "scheduler-1"),
        ("/inbox/scheduler/default/req-1", {"tenant": "default"}),
        ("/ownership/scheduler/default", None),
        ("/ownership/scheduler/default", "scheduler-2"),
        ("/inbox/scheduler/default/req-1", None),
        ("/reservations/a", held),
    ]
    story.take_over = TakeOver(
        killed="scheduler-1",
        killed_at=100.0,
        pending=("req-1",),
        successor="scheduler-2",
        owned_at=102.0,
        owned_revision=4,
        decided_at=102.5,
        decided_revision=6,
    )
    story.machines = [{"name": "w-1", "state": "stopped", "facts": _facts()}]
    story.submitted = {"class": "a", "study-group": "b", "hackathon": "c", "ada": "d"}
    return story


def _facts() -> list[dict[str, Any]]:
    facts: list[dict[str, Any]] = [{"fact": "controller.started"}, {"fact": "licence.registered", "quota": 200}]
    for name, port in (("a", 2000), ("b", 2001)):
        lab = {"lab": f"lab-{name}", "title": f"ins-{name}-1"}
        facts += [{"fact": "lab.imported", **lab}, {"fact": "lab.started", **lab}]
        facts += [
            {"fact": "node.started", "node": "r1", **lab},
            {"fact": "node.booted", "node": "r1", "ports": [port], **lab},
        ]
    for name in ("a", "b"):
        lab = {"lab": f"lab-{name}", "title": f"ins-{name}-1"}
        facts += [
            {"fact": "node.stopped", "node": "r1", **lab},
            {"fact": "lab.stopped", **lab},
            {"fact": "lab.deleted", **lab},
        ]
    facts.append({"fact": "controller.stopped"})
    return [{"at": float(n), **fact} for n, fact in enumerate(facts)]


@pytest.fixture(name="broken")
def broken_fixture(plan: Morning) -> Any:
    """The claims that do not hold, by their details."""

    def broken(evidence: Evidence) -> dict[str, str]:
        found: list[Check] = judge(evidence, plan)
        return {check.claim: check.detail for check in found if not check.ok}

    return broken


@pytest.fixture(name="stored")
def stored_fixture() -> Any:
    return lambda document: json.loads(json.dumps(document))
