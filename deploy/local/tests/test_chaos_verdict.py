"""Every kind of harm, planted into a small run that went well, comes out at the end of `lablet chaos`: the check that sees
it, the column it is counted in, and the line that is printed last."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from lablet_local.chaos import command
from lablet_local.chaos.checks import Forgotten, judge
from lablet_local.chaos.command import ChaosOptions, run_chaos
from lablet_local.chaos.jobs import Ran
from lablet_local.chaos.load import Asked, Seen
from lablet_local.chaos.outcomes import event_id
from lablet_local.chaos.owners import Commit
from lablet_local.chaos.verdict import Verdict
from lablet_local.demo.checks.check import Harm
from lablet_local.demo.checks.stream import committed
from lablet_local.demo.evidence import Change, Evidence, Told

SLOT = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T10:00:00Z"}
NEEDS = {"cpuCores": 2, "memoryGb": 4, "storageGb": 0, "nodeCount": 3}
CAPACITY = {"cpuCores": 4, "memoryGb": 8, "storageGb": 9}
RESERVATION, INSTANCE, SERIES = "/reservations/rsv-1", "/instances/ins-1", "/series/ser-1"
REQUEST = "/requests/default/req-0"


def resource(name: str, phase: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    metadata = {"id": name, "uid": f"uid-{name}", "tenant": "default"}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "history": [], **status}}


def placed(name: str, phase: str, worker: str = "w-1", port: int = 2000, **spec: Any) -> dict[str, Any]:
    seat = {"seat": 1, "worker": worker, "instance": name.replace("rsv", "ins"), "ports": {"r1": port}, "attempt": 1}
    wanted = {"definition": "lab@1.0.0", "pools": ["default"], **SLOT, **spec}
    return resource(name, phase, wanted, slot=SLOT, placement=[{**seat, "state": "placed"}], pool="default")


def instance(name: str, phase: str, *history: dict[str, str], definition: str = "lab@1.0.0") -> dict[str, Any]:
    spec = {"reservation": name.replace("ins", "rsv"), "definition": definition, "pool": "default", "worker": "w-1"}
    attempts = [{"worker": "w-1", "beganAt": SLOT["start"]}]
    found = resource(name, phase, spec, attempt=1, attempts=attempts)
    found["status"]["history"] = list(history)
    return found


def machine(name: str = "w-1", machine_id: str = "m-1", begin: float = 1, **facts: Any) -> dict[str, Any]:
    lab = {"lab": "l", "title": facts.pop("title", "ins-1")}
    told = [
        {"fact": "controller.started"},
        {"fact": "licence.registered", "quota": facts.pop("quota", 20)},
        {"fact": "lab.imported", **lab},
        {"fact": "lab.started", **lab},
        {"fact": "node.started", "lab": "l", "node": "r1"},
        {"fact": "node.booted", "lab": "l", "node": "r1", "ports": [2000]},
        {"fact": "node.stopped", "lab": "l", "node": "r1"},
        {"fact": "lab.stopped", **lab},
        *([] if facts.get("left") else [{"fact": "lab.deleted", **lab}]),
        {"fact": "licence.deregistered"},
        {"fact": "controller.stopped"},
    ]
    timed = [{"at": begin + place, **fact} for place, fact in enumerate(told)]
    return {"name": name, "id": machine_id, "state": "stopped", "facts": timed}


@dataclass
class Run:
    """A run of one class, one series and one job; what a run leaves behind is made from it by `verdict`."""

    history: list[tuple[str, Any, str]] = field(default_factory=list)
    """Key, value and who wrote it."""
    asked: list[Asked] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=lambda: [httpx.Response(201), httpx.Response(503)])
    machines: list[dict[str, Any]] = field(default_factory=lambda: [machine()])
    jobs: list[Ran] = field(default_factory=lambda: [Ran("job-1", "local-1", 7, 1, 2)])
    spoil_events: Callable[[list[Told]], list[Told]] = list
    spoil_commits: Callable[[list[Commit]], list[Commit]] = list
    waiting: dict[str, str] = field(default_factory=dict)
    forgotten: Forgotten = field(default_factory=Forgotten)

    def put(self, key: str, value: Any, by: str = "scheduler-1") -> None:
        self.history.append((key, copy.deepcopy(value), by))

    def ask(self, what: str, subject: str, *, status: int = 201, phase: str = "Decided") -> None:
        number = len(self.asked)
        asked = Asked(what, f"k-{number}", status, resource=subject, route=f"POST /{what}")
        self.asked.append(asked)
        spec = {
            "subject": f"reservation/{subject}",
            "eventId": event_id("default", "ada", asked),
            "principal": "ada",
            "service": "scheduler",
        }
        name = f"req-{number}"
        self.put(f"/requests/default/{name}", resource(name, "Accepted", spec), "api-gateway-1")
        if phase != "Accepted":
            self.put(f"/requests/default/{name}", resource(name, phase, spec, resource=f"reservation/{subject}"))

    def evidence(self) -> Evidence:
        history = tuple(Change(at, key, value) for at, (key, value, _) in enumerate(self.history, 2))
        present = {key: value for key, value, _ in self.history if value is not None}
        for change in history:
            if change.value is None:
                present.pop(change.key, None)
        told = [
            Told(at, one.kind, one.subject, f"io.lablet.{one.kind}.changed.v1", one.revision, name_of(one), data)
            for at, one in enumerate(committed(Evidence(history=history)), 1)
            for data in [cast("dict[str, Any]", history[one.revision - 2].value or {})]
        ]
        return Evidence(
            present=present | self.waiting,
            history=history,
            events=tuple(self.spoil_events(told)),
            machines=tuple(self.machines),
        )

    def commits(self) -> list[Commit]:
        services = {"scheduler-1": 2, "worker-controller-1": 3, "artifact-service-1": 4}
        keys = {
            "scheduler-1": "/ownership/scheduler/default",
            "worker-controller-1": "/ownership/worker-controller/default",
            "artifact-service-1": "/ownership/artifact-service/-",
        }
        return [
            Commit(by, at, ((keys[by], services[by]),) if by in keys else ())
            for at, (_, _, by) in enumerate(self.history, 2)
        ]

    def verdict(self) -> Verdict:
        commits = self.spoil_commits(self.commits())
        seen = Seen(self.asked)
        for answer in self.answers:
            seen.note("POST /reservations", answer)
        found = judge(self.evidence(), seen, forgotten=self.forgotten, jobs=self.jobs, commits=commits)
        return Verdict(5, tuple(found), Counter({"kill": 3}), seen, 9.0)


def name_of(one: Any) -> str:
    return f"{one.kind}/{one.uid}/{one.revision}"


def went_well() -> Run:
    run = Run()
    run.put("/ownership/scheduler/default", "scheduler-1")
    run.put("/ownership/worker-controller/default", "worker-controller-1", "worker-controller-1")
    run.put("/ownership/artifact-service/-", "artifact-service-1", "artifact-service-1")
    run.put("/pools/default", resource("default", "Active", {"allowedLicenses": 1}), "worker-controller-1")
    for worker in ("w-1", "w-2"):
        spec = {"pool": "default", "maxNodes": 6, "capacity": CAPACITY}
        run.put(f"/workers/{worker}", resource(worker, "Offline", spec), "worker-controller-1")
    definition = resource("lab@1.0.0", "Ready", {"requirements": NEEDS})
    run.put("/definitions/default/lab/1.0.0", definition, "artifact-service-1")
    run.ask("reserve", "rsv-1")
    run.ask("drain", "w-1", status=200)
    run.ask("series", "ser-1")
    run.ask("run", "rsv-2")
    dates = [{"date": "2027-03-01", "state": "placed", "reservation": "rsv-1"}]
    run.put(SERIES, resource("ser-1", "Placed", {"pools": ["default"]}, occurrences=dates))
    run.put(RESERVATION, placed("rsv-1", "Scheduled", series="ser-1", occurrence="2027-03-01"))
    run.put(INSTANCE, instance("ins-1", "Running"), "worker-controller-1")
    run.put(INSTANCE, instance("ins-1", "Terminated", ended_at(10)), "worker-controller-1")
    run.put(RESERVATION, placed("rsv-1", "Completed", series="ser-1", occurrence="2027-03-01"))
    run.put("/reservations/rsv-2", resource("rsv-2", "Completed", {"pools": ["agents", "default"]}))
    job = instance("ins-2", "Terminated", ended_at(10), definition="job-1@1.0.0")
    run.put("/instances/ins-2", job, "worker-controller-1")
    run.put(SERIES, resource("ser-1", "Completed", {"pools": ["default"]}, occurrences=dates))
    return run


def ended_at(hour: int, came_from: str = "Exported") -> dict[str, str]:
    return {"from": came_from, "to": "Terminated", "at": f"2027-03-01T{hour:02}:00:00Z"}


def never_answered(run: Run) -> None:
    run.asked.append(Asked("cancel", "k-9", tries=7))


def fails_by_itself(status: int) -> Callable[[Run], None]:
    def spoil(run: Run) -> None:
        run.answers.append(httpx.Response(status, text="something went wrong here"))

    return spoil


def never_decided(run: Run) -> None:
    run.ask("extend", "rsv-1", status=202, phase="Accepted")


def decided_twice(run: Run) -> None:
    again = next(copy.deepcopy(value) for key, value, _ in reversed(run.history) if key == REQUEST)
    again["status"]["resource"] = "reservation/rsv-9"
    run.put(REQUEST, again)


def still_waits(run: Run) -> None:
    run.waiting["/inbox/scheduler/default/req-7"] = "t"


def never_stored(what: str) -> Callable[[Run], None]:
    def spoil(run: Run) -> None:
        run.asked.append(Asked(what, "k-9", 200, route=f"POST /{what}"))

    return spoil


def done_behind_their_back(run: Run) -> None:
    """The answer to the first try was lost, and the second one was refused."""
    run.ask("extend", "rsv-1", status=412)


def refused_behind_their_back(run: Run) -> None:
    run.ask("collect", "ins-1", status=200, phase="Refused")


def refused_as_undecidable(run: Run) -> None:
    run.ask("collect", "ins-1", status=202, phase="Refused")
    run.history[-1][1]["status"]["problem"] = {"type": "https://lablet.io/problems/undecidable"}


def never_made(run: Run) -> None:
    run.ask("reserve", "rsv-7")


def refused_and_held(run: Run) -> None:
    run.ask("reserve", "rsv-1", status=202, phase="Refused")
    run.history[-1][1]["spec"]["type"] = "io.lablet.reservation.requested.v1"


def gone(run: Run) -> None:
    run.put("/reservations/rsv-2", None)


def made_twice(run: Run) -> None:
    gone(run)
    run.put("/reservations/rsv-2", resource("rsv-2", "Completed", {"pools": ["default"]}))


def series_lost(run: Run) -> None:
    run.ask("series", "ser-7")


def two_for_a_date(run: Run) -> None:
    run.put("/reservations/rsv-3", placed("rsv-3", "Cancelled", series="ser-1", occurrence="2027-03-01"))


def job_twice(run: Run) -> None:
    run.jobs.append(Ran("job-1", "local-2", 8, 1.5, 3))


def under_way(run: Run) -> None:
    run.put(INSTANCE, instance("ins-1", "Running"), "worker-controller-1")


def given_up(run: Run) -> None:
    run.put("/reservations/rsv-4", placed("rsv-4", "Active", port=2001))
    run.put("/instances/ins-4", instance("ins-4", "Terminated", ended_at(9, "Failed")), "worker-controller-1")
    run.put("/reservations/rsv-4", placed("rsv-4", "Completed", port=2001))


def booked_beyond(run: Run) -> None:
    for number in (4, 5, 6):
        run.put(f"/reservations/rsv-{number}", placed(f"rsv-{number}", "Scheduled", port=2000 + number))
    for number in (4, 5, 6):
        run.put(f"/reservations/rsv-{number}", placed(f"rsv-{number}", "Cancelled", port=2000 + number))


def port_twice(run: Run) -> None:
    for phase in ("Scheduled", "Cancelled"):
        for number in (4, 5):
            run.put(f"/reservations/rsv-{number}", placed(f"rsv-{number}", phase))


def more_workers_than_licences(run: Run) -> None:
    for phase in ("Scheduled", "Cancelled"):
        for number, worker in ((4, "w-1"), (5, "w-2")):
            run.put(f"/reservations/rsv-{number}", placed(f"rsv-{number}", phase, worker, port=2000 + number))


def more_licences_held(run: Run) -> None:
    run.machines.append(machine("w-2", "m-2", title="another"))


def lab_twice(run: Run) -> None:
    run.machines.append(machine("w-9", "m-2"))


def started_again(run: Run) -> None:
    """After it was stopped, on the same machine, in the same attempt."""
    facts = run.machines[0]["facts"]
    lab = {"lab": "l", "title": "ins-1"}
    facts += [{"fact": "lab.started", "at": 8.2, **lab}, {"fact": "lab.stopped", "at": 8.4, **lab}]


def started_elsewhere(run: Run) -> None:
    """After it had ended."""
    run.machines.append(machine("w-9", "m-2", begin=40))


def started_for_nobody(run: Run) -> None:
    run.machines.append(machine("w-9", "m-2", begin=40, title="ins-of-nobody"))


def lab_left(run: Run) -> None:
    run.machines = [machine(left=True)]


def machine_left(run: Run) -> None:
    run.machines[0]["state"] = "running"


def beyond_its_licence(run: Run) -> None:
    run.machines = [machine(quota=0)]


def too_much_together(run: Run) -> None:
    for number in (5, 6):
        run.put(
            f"/instances/ins-{number}", instance(f"ins-{number}", "Terminated", ended_at(10)), "worker-controller-1"
        )
    for at, title in enumerate(("ins-5", "ins-6")):
        begin = {"fact": "lab.started", "lab": title, "title": title, "at": 4.1 + at / 10}
        end = {"fact": "lab.stopped", "lab": title, "title": title, "at": 5}
        run.machines[0]["facts"] += [begin, end]


def two_machines(run: Run) -> None:
    run.machines.append(
        {**machine(machine_id="m-2", title="ins-2"), "facts": machine()["facts"][:1] + machine()["facts"][-1:]}
    )


def untold(run: Run) -> None:
    run.spoil_events = lambda told: [one for one in told if one.subject != "series/ser-1" or one.sequence > 17]


def invented(run: Run) -> None:
    run.spoil_events = lambda told: [*told, replace(told[-1], id="series/uid-ser-1/999", place=999)]


def out_of_order(run: Run) -> None:
    run.spoil_events = lambda told: [replace(one, place=-one.place) if one.kind == "series" else one for one in told]


def wrong_end(run: Run) -> None:
    run.spoil_events = lambda told: [*told[:-1], replace(told[-1], data={"spec": {}, "status": {}})]


def shown(part: str, name: str, value: Any) -> Callable[[Run], None]:
    def spoil(run: Run) -> None:
        run.spoil_events = lambda told: [*told[:-1], replace(told[-1], data={**told[-1].data, part: {name: value}})]

    return spoil


def no_account(run: Run) -> None:
    run.spoil_commits = lambda commits: [one for one in commits if one.replica != "artifact-service-1"]


def unfenced(run: Run) -> None:
    run.spoil_commits = lambda commits: [replace(commits[-1], fences=())]


def stale(run: Run) -> None:
    run.put("/ownership/scheduler/default", None, "etcd")
    run.put("/ownership/scheduler/default", "scheduler-2", "scheduler-2")
    run.put("/reservations/rsv-2", resource("rsv-2", "Completed", {"pools": ["default"]}))


def of_another(run: Run) -> None:
    run.spoil_commits = lambda commits: [replace(commits[-1], replica="scheduler-2")]


HARM: list[tuple[Callable[[Run], None], str, Harm]] = [
    (never_answered, "every request was answered in the end", Harm.UNSETTLED),
    *((fails_by_itself(status), "no answer was a server's error", Harm.UNSETTLED) for status in (500, 501, 502)),
    (never_decided, "every accepted request has exactly one outcome", Harm.LOST),
    (decided_twice, "every accepted request has exactly one outcome", Harm.LOST),
    (still_waits, "every accepted request has exactly one outcome", Harm.LOST),
    *(
        (
            never_stored(what),
            "every answered request of every kind has exactly one final outcome, the one that was told",
            Harm.LOST,
        )
        for what in (
            "extend",
            "cancel",
            "drain",
            "cancel-drain",
            "publish",
            "collect",
            "series",
            "change-series",
            "cancel-series",
            "reserve",
            "run",
        )
    ),
    (
        refused_as_undecidable,
        "every answered request of every kind has exactly one final outcome, the one that was told",
        Harm.LOST,
    ),
    (
        refused_behind_their_back,
        "every answered request of every kind has exactly one final outcome, the one that was told",
        Harm.LOST,
    ),
    (
        done_behind_their_back,
        "every answered request of every kind has exactly one final outcome, the one that was told",
        Harm.LOST,
    ),
    (never_made, "every accepted reservation was made exactly once, and is there or in the archive", Harm.LOST),
    (refused_and_held, "every accepted reservation was made exactly once, and is there or in the archive", Harm.LOST),
    (gone, "every accepted reservation was made exactly once, and is there or in the archive", Harm.LOST),
    (made_twice, "every accepted reservation was made exactly once, and is there or in the archive", Harm.LOST),
    (series_lost, "every date of a series has exactly one reservation", Harm.LOST),
    (two_for_a_date, "every date of a series has exactly one reservation", Harm.LOST),
    (job_twice, "no job ran twice", Harm.DOUBLED),
    (under_way, "after the last fault everything comes to its end", Harm.UNSETTLED),
    (given_up, "no seat that had a place was given up inside its slot", Harm.LOST),
    (unfenced, "no owner wrote after its ownership had ended", Harm.DOUBLED),
    (stale, "no owner wrote after its ownership had ended", Harm.DOUBLED),
    (of_another, "no owner wrote after its ownership had ended", Harm.DOUBLED),
    (booked_beyond, "at no revision was a worker booked beyond its capacity or a port given twice", Harm.OVERCOMMITTED),
    (port_twice, "at no revision was a worker booked beyond its capacity or a port given twice", Harm.OVERCOMMITTED),
    (
        more_workers_than_licences,
        "at no revision were more workers booked at a time than their pool has licences",
        Harm.OVERCOMMITTED,
    ),
    (more_licences_held, "no more machines held a licence at a time than their pool has", Harm.OVERCOMMITTED),
    (lab_twice, "no lab ran in two places at a time", Harm.DOUBLED),
    *(
        (plant, "no lab was started more often than its attempts and losses ask for", Harm.DOUBLED)
        for plant in (started_again, started_elsewhere, started_for_nobody)
    ),
    (lab_left, "nothing was left over: no lab, no running machine", Harm.DOUBLED),
    (machine_left, "nothing was left over: no lab, no running machine", Harm.DOUBLED),
    (beyond_its_licence, "no machine ran more nodes than its licence, or opened a port twice", Harm.OVERCOMMITTED),
    (too_much_together, "labs that ran together never needed more than their worker has", Harm.OVERCOMMITTED),
    (two_machines, "no worker had two machines at a time", Harm.DOUBLED),
    (no_account, "most of what owners wrote stands in their accounts", Harm.UNSETTLED),
    *(
        (shown(*secret), "no event tells what is secret", Harm.DOUBLED)
        for secret in (
            ("spec", "sha256", "0af3"),
            ("status", "credentials", "sealed"),
            ("spec", "claims", [{"seat": 1, "sha256": "0af3"}]),
        )
    ),
    (untold, "every committed change was published, under the same id each time", Harm.LOST),
    (invented, "every event tells of a change that was committed", Harm.DOUBLED),
    (out_of_order, "the events of each resource stand in the order of its commits", Harm.LOST),
    (wrong_end, "the last event of each resource says what etcd holds", Harm.LOST),
]


def test_a_run_that_went_well_holds_and_every_check_has_a_harm_that_it_sees() -> None:
    verdict = went_well().verdict()
    assert not [f"{check.claim}: {check.detail}" for check in verdict.checks if not check.ok]
    assert {check.claim for check in verdict.checks} == {claim for _, claim, _ in HARM}


@pytest.mark.parametrize(("plant", "claim", "harm"), HARM)
def test_harm_is_seen_counted_and_printed(
    plant: Callable[[Run], None],
    claim: str,
    harm: Harm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = went_well()
    plant(run)
    verdict = run.verdict()
    (found,) = (check for check in verdict.checks if check.claim == claim)
    assert found.broken
    assert found.harm is harm

    async def run_seed(*_: object, **__: object) -> Verdict:
        return replace(verdict, checks=(found,))

    monkeypatch.setattr(command, "run_seed", run_seed)
    assert run_chaos(ChaosOptions(first=5, keep=tmp_path)) == 1
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"  BROKEN {found.source}: {claim}: ") for line in told)
    figures = {one: len(found.broken) if harm is one else 0 for one in (Harm.LOST, Harm.DOUBLED, Harm.OVERCOMMITTED)}
    counted = " ".join(f"{name}={count}" for name, count in figures.items())
    requests = len(run.asked)
    assert told[-1] == f"chaos: FAILED seeds=1 faults=3 requests={requests} {counted} longest_unavailable_seconds=0.0"
    assert told[-2] == "chaos: failed seeds: 5"


def test_a_seed_that_held_is_shown_with_its_faults_answers_and_outages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = went_well().verdict()
    seen = replace(verdict.seen, longest_unavailable=2.34, longest_unwritable=4.56)
    faults, missed = Counter({"kill": 3, "cut": 1}), Counter({"machine": 2})
    lived = replace(verdict, seen=seen, faults=faults, outcomes=Counter({"Completed": 2}), missed=missed)

    async def run_seed(*_: object, **__: object) -> Verdict:
        return lived

    monkeypatch.setattr(command, "run_seed", run_seed)
    assert run_chaos(ChaosOptions(first=5, keep=tmp_path / "not" / "there")) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("seed 5: ok in ")
    assert told[1:] == [
        "  faults: 1 cut, 3 kill; missed: 2 machine",
        "  answers: 1 drain 200, 1 reserve 201, 1 run 201, 1 series 201",
        "  every answer by its status: 1 2xx, 1 503",
        "  reservations: 2 Completed",
        "  longest unavailable 2.3 s, unwritable 4.6 s, at rest after 9.0 s",
        "chaos: ok seeds=1 faults=4 requests=4 lost=0 doubled=0 overcommitted=0 longest_unavailable_seconds=2.3",
    ]


def test_where_the_stream_was_emptied_only_what_came_later_must_stand_in_it() -> None:
    run = went_well()
    run.spoil_events = lambda told: [one for one in told if one.sequence > 12]
    assert not run.verdict().ok
    run.forgotten = Forgotten(purged_at=12)
    assert run.verdict().ok
    run.spoil_events = lambda told: [one for one in told if one.sequence > 20]
    assert not run.verdict().ok


def test_after_a_compaction_the_last_state_of_each_resource_must_have_been_told() -> None:
    run = went_well()
    latest = {one.key: one.revision for one in committed(run.evidence())}
    run.spoil_events = lambda told: [one for one in told if one.sequence in latest.values()]
    assert not run.verdict().ok
    run.forgotten = Forgotten(compacted=True)
    assert run.verdict().ok
    run.spoil_events = lambda told: [one for one in told if one.subject != "reservation/rsv-2"]
    assert "reservation/rsv-2 was never told of" in str(run.verdict().checks)
    run.spoil_events = lambda told: [one for one in told if one.sequence != latest[SERIES]]
    assert "series/ser-1 was told as of revision" in str(run.verdict().checks)
