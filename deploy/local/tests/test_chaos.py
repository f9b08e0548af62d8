"""The fault runs' own rules: plans repeat for a seed, and the checker sees each kind of harm."""

import asyncio
import copy
import itertools
import os
import subprocess
from typing import Any

import pytest

from lablet_artifacts.manifests import is_manifest, read_manifest
from lablet_common.bus.streams import used_by
from lablet_common.resources.kinds import Service
from lablet_local.chaos import checks
from lablet_local.chaos.jobs import Ledger, lives, never_twice
from lablet_local.chaos.load import Asked, Seen
from lablet_local.chaos.machines import one_machine_a_worker, up
from lablet_local.chaos.network import Network
from lablet_local.chaos.run import kept_by_all
from lablet_local.chaos.schedule import (
    A_MACHINE,
    FORGETFUL,
    LEADER_OF,
    OF_MANY,
    SERVERS,
    STREAMS,
    Fault,
    Kind,
    plan,
)
from lablet_local.chaos.seats import none_given_up
from lablet_local.chaos.terms import kept_series
from lablet_local.demo.checks.store import never_double_booked
from lablet_local.demo.checks.stream import in_order
from lablet_local.demo.evidence import Change, Evidence, Told
from lablet_local.ports import PortBlock

REPLICAS = [f"{service}-{number}" for service in Service for number in (1, 2)]


def test_a_seed_gives_the_same_faults_each_time_and_another_seed_others() -> None:
    once, again, other = (plan(seed, 60, REPLICAS, 2.0, sound_etcd=True) for seed in (3, 3, 4))
    assert once == again
    assert once != other
    assert [fault.at for fault in once] == sorted(fault.at for fault in once)


def test_over_many_seeds_every_kind_comes_and_every_process_and_pair_is_hit() -> None:
    faults = [fault for seed in range(60) for fault in plan(seed, 60, REPLICAS, 2.0, sound_etcd=True)]
    targets = {kind: {fault.target for fault in faults if fault.kind is kind} for kind in Kind}
    assert {kind for kind in Kind if targets[kind]} == set(Kind) - set(OF_MANY)
    assert targets[Kind.KILL] == targets[Kind.RESTART] == {*REPLICAS, *SERVERS}
    assert targets[Kind.PAUSE] == {*REPLICAS, *SERVERS, A_MACHINE}
    without = {f"{caller}→s3" for caller in ("scheduler", "scheduler-1", "scheduler-2")}
    pairs = {f"{caller}→{server}" for caller in (*Service, *REPLICAS) for server in SERVERS} - without
    assert targets[Kind.CUT] | targets[Kind.SWALLOW] | targets[Kind.DELAY] == pairs


def test_a_paused_process_sleeps_past_its_lease() -> None:
    paused = [
        fault
        for seed in range(20)
        for fault in plan(seed, 60, REPLICAS, 2.0, sound_etcd=True)
        if fault.kind is Kind.PAUSE
    ]
    assert paused
    assert all(fault.seconds > 2.0 for fault in paused)


def test_an_etcd_that_may_lose_writes_is_not_killed() -> None:
    faults = [fault for seed in range(60) for fault in plan(seed, 60, REPLICAS, 2.0, sound_etcd=False)]
    assert not [fault for fault in faults if fault.kind in (Kind.KILL, Kind.RESTART) and fault.target == "etcd"]


def test_odd_seeds_forget_nothing_so_that_every_event_can_be_asked_for() -> None:
    faults = [fault for seed in range(1, 60, 2) for fault in plan(seed, 60, REPLICAS, 2.0, sound_etcd=True)]
    assert not [fault for fault in faults if fault.kind in FORGETFUL]


def of_three() -> list[list[Fault]]:
    return [plan(seed, 60, REPLICAS, 2.0, sound_etcd=True, members=3) for seed in range(60)]


def test_of_three_members_leaders_are_killed_each_is_cut_off_and_all_are_restarted_in_turn() -> None:
    faults = [fault for found in of_three() for fault in found]
    members = {f"{server}{number}" for server in ("etcd", "nats") for number in ("", "-2", "-3")}
    targets = {kind: {fault.target for fault in faults if fault.kind is kind} for kind in Kind}
    assert targets[Kind.KILL] == {*REPLICAS, *members, "s3"}
    assert targets[Kind.LEADER] == {LEADER_OF + led for led in ("etcd", *STREAMS)}
    assert targets[Kind.MINORITY] == {*members, f"{LEADER_OF}etcd", f"{LEADER_OF}EVENTS"}
    assert targets[Kind.ROLLING] == {"etcd", "nats"}


def test_no_two_members_of_one_server_are_hit_at_a_time() -> None:
    for faults in of_three():
        for server in ("etcd", "nats"):
            shaking = [fault for fault in faults if fault.shakes == server]
            for one, following in itertools.pairwise(shaking):
                assert following.at >= one.at + one.seconds + 4


def test_nothing_is_compacted_while_the_one_who_writes_history_down_may_be_away() -> None:
    compacted = 0
    for faults in of_three():
        shaken = [fault for fault in faults if fault.shakes == "etcd"]
        for fault in (one for one in faults if one.kind in (Kind.COMPACT, Kind.FULL)):
            compacted += 1
            assert not [one for one in shaken if one.at <= fault.at < one.at + one.seconds + 4]
    assert compacted


async def test_with_three_members_each_replica_has_a_proxy_to_each_and_all_are_cut_together() -> None:
    async with Network(PortBlock(20_000), 3, REPLICAS) as network:
        led = network.environments["scheduler-1"]
        assert len(network.between("scheduler→nats")) == 6
        assert led["NATS_URL"] == ",".join(f"nats://{proxy.endpoint}" for proxy in network.between("scheduler-1→nats"))
        assert led["ETCD_ENDPOINTS"] == ",".join(proxy.endpoint for proxy in network.between("scheduler-1→etcd"))


async def test_replicas_are_led_through_their_own_proxies_and_healing_lets_everything_through() -> None:
    async with Network(PortBlock(20_000), replicas=REPLICAS) as network:
        led = network.environments
        assert len({endpoint for settings in led.values() for endpoint in settings.values()}) == 24
        (proxy,) = network.between("scheduler-1→etcd")
        assert led["scheduler-1"]["ETCD_ENDPOINTS"] == proxy.endpoint
        assert network.between("scheduler→etcd") == (proxy, *network.between("scheduler-2→etcd"))
        proxy.refuse, proxy.delay_seconds = True, 1.0
        network.heal()
        assert (proxy.refuse, proxy.delay_seconds) == (False, 0.0)


async def test_a_slow_connection_brings_everything_late() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(4))
        await writer.drain()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Network(PortBlock(port - 4), replicas=REPLICAS) as network:
        (proxy,) = network.between("scheduler-2→nats")
        proxy.delay_seconds = 0.05
        host, _, number = proxy.endpoint.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        began = asyncio.get_running_loop().time()
        writer.write(b"here")
        assert await reader.read(4) == b"here"
        assert asyncio.get_running_loop().time() - began >= 0.1
        writer.close()
    server.close()


def request(phase: str, resource: str | None = None, subject: str = "reservation/rsv-1") -> dict[str, Any]:
    return {"spec": {"subject": subject}, "status": {"phase": phase, "resource": resource}}


def history(*values: tuple[str, Any]) -> tuple[Change, ...]:
    return tuple(Change(at, key, value) for at, (key, value) in enumerate(values, 2))


def test_two_outcomes_of_one_request_and_none_are_seen() -> None:
    good = history(("/requests/t/a", request("Accepted")), ("/requests/t/a", request("Decided", "reservation/rsv-1")))
    assert checks.one_outcome(Evidence(history=good)).ok
    changed = (*good, Change(9, "/requests/t/a", request("Decided", "reservation/rsv-2")))
    assert "2 outcomes" in checks.one_outcome(Evidence(history=changed)).detail
    assert "never decided" in checks.one_outcome(Evidence(history=good[:1])).detail
    waiting = Evidence(history=good, present={"/inbox/scheduler/default/x": "t"})
    assert "still waits" in checks.one_outcome(waiting).detail


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([(3, False), (7, False), (7, False), (9, False)], ""),
        ([(3, False), (9, False), (7, False)], "7 after 9"),
        ([(9, True), (3, False), (5, False), (11, False)], ""),  # an earlier owner's, who stood still meanwhile
        ([(9, True), (11, False), (3, False)], ""),
        ([(9, True), (12, False), (3, False), (11, False)], "11 after 12"),
        ([(3, True), (9, False), (7, False)], "7 after 9"),
    ],
)
def test_events_out_of_order_are_seen_but_for_what_a_replayed_state_stands_for(
    told: list[tuple[int, bool]], said: str
) -> None:
    events = tuple(
        Told(place, "worker", "worker/a", "changed", revision, f"worker/u/{revision}", {}, replayed=replayed)
        for place, (revision, replayed) in enumerate(told, 1)
    )
    check = in_order(Evidence(events=events))
    assert (check.ok, said in check.detail) == (not said, True)


def test_a_lost_and_a_doubled_reservation_are_seen() -> None:
    seen = Seen([Asked("reserve", "k", 201, resource="rsv-1")])
    made = ("/reservations/rsv-1", {"status": {"phase": "Scheduled"}})
    assert checks.kept(Evidence(history=history(made, made)), seen).ok
    gone = history(made, ("/reservations/rsv-1", None))
    assert "is gone" in checks.kept(Evidence(history=gone), seen).detail
    assert checks.kept(Evidence(history=gone, archived=("rsv-1",)), seen).ok
    assert "never made" in checks.kept(Evidence(history=()), seen).detail
    twice = history(made, ("/reservations/rsv-1", None), made)
    assert "made 2 times" in checks.kept(Evidence(history=twice), seen).detail
    asked = Seen([Asked("reserve", "k", 202, resource="rsv-1")])
    refused = request("Refused")
    refused["spec"]["type"] = "io.lablet.reservation.requested.v1"
    assert checks.kept(Evidence(present={"/requests/t/a": refused}), asked).ok
    change = Evidence(present={"/requests/t/a": request("Refused")})
    assert "never made" in checks.kept(change, asked).detail, "that a change was refused excuses nothing"
    rejected = history(("/requests/t/a", refused), ("/reservations/rsv-1", {"status": {"phase": "Rejected"}}))
    assert checks.kept(Evidence(history=rejected), asked).ok, "it stands there as refused"
    held = history(("/requests/t/a", refused), made)
    assert "was refused and given seats" in checks.kept(Evidence(history=held), asked).detail


def test_what_was_never_answered_and_what_is_still_under_way_are_seen() -> None:
    assert "after 7 tries" in checks.answered(Seen([Asked("reserve", "k", tries=7)])).detail
    under_way = {"/instances/ins-1": {"status": {"phase": "Running", "reason": "EveryPortAnswers"}}}
    assert "Running" in checks.at_rest(Evidence(present=dict(under_way))).detail


@pytest.mark.parametrize(
    ("status", "ok"),
    [
        ({"phase": "Pending"}, False),
        ({"phase": "Placed", "work": {"stage": "cancelling"}}, False),
        ({"phase": "Placed"}, True),
    ],
)
def test_a_series_that_is_still_worked_off_is_seen(status: dict[str, Any], ok: bool) -> None:
    ended = {"/reservations/rsv-1": {"status": {"phase": "Completed"}}}
    host = {"/workers/local-1": {"spec": {"runtime": "process"}, "status": {"phase": "Ready"}}}
    assert checks.at_rest(Evidence(present={**ended, **host, "/series/ser-1": {"status": status}})).ok is ok


@pytest.mark.parametrize(("begin", "ok"), [(4.0, True), (2.0, False)])
def test_two_machines_of_one_worker_at_a_time_are_seen(begin: float, ok: bool) -> None:
    def machine(name: str, start: float, end: float) -> dict[str, Any]:
        facts = [{"fact": "controller.started", "at": start}, {"fact": "controller.stopped", "at": end}]
        return {"name": "default-001", "id": name, "facts": facts}

    evidence = Evidence(machines=(machine("m-1", 1, 3), machine("m-2", begin, 9)))
    assert one_machine_a_worker(evidence).ok is ok


def test_a_killed_machine_ends_with_what_the_cloud_saw() -> None:
    lost = {"state": "stopped", "reason": "lost", "at": "2027-03-01T09:00:00Z"}
    killed = {
        "name": "default-001",
        "id": "m-1",
        "state": "stopped",
        "history": [lost],
        "facts": [
            {"fact": "controller.started", "at": 1.0},
            {"fact": "lab.imported", "at": 2.0, "lab": "l", "title": "ins-1"},
            {"fact": "lab.started", "at": 3.0, "lab": "l", "title": "ins-1"},
        ],
    }
    from lablet_local.demo.checks import ground

    found = ground.read(Evidence(machines=(killed,)))
    assert not found.left
    assert found.runs[0].end is not None


@pytest.mark.parametrize("state", ["stopped", "terminated"])
def test_a_machine_that_was_killed_while_it_went_off_has_gone_off(state: str) -> None:
    """A cloud that is killed then finds it so; its simulator could not write its end, and nobody calls that a loss."""
    from lablet_local.demo.checks import ground

    off = {"state": state, "reason": "", "at": "1970-01-01T00:00:09Z"}
    facts: list[dict[str, Any]] = [
        {"fact": "controller.started", "at": 1.0},
        {"fact": "licence.registered", "at": 1.5, "quota": 20},
        {"fact": "lab.imported", "at": 2.0, "lab": "l", "title": "ins-1"},
        {"fact": "lab.started", "at": 3.0, "lab": "l", "title": "ins-1"},
    ]
    going = {"name": "default-001", "id": "m-1", "state": state, "history": [off], "facts": facts}
    elsewhere = {**going, "name": "default-002", "id": "m-2"}
    elsewhere |= {"history": [], "facts": [{**fact, "at": fact["at"] + 10} for fact in facts]}
    evidence = Evidence(machines=(going, elsewhere))
    assert ground.read(evidence).runs[0].end == 9.0
    assert list(up(ground.facts_of(going))) == [(1.0, 9.0)]
    twice = next(one for one in ground.by_machines_alone(evidence, ground.read(evidence)) if "two places" in one.claim)
    assert twice.ok
    left = ground.read(Evidence(machines=(going,))).left
    assert left == (["lab ins-1 on default-001"] if state == "stopped" else []), (
        "that labs stay on a disk is seen as before"
    )


def series_in(state: str, reservation: str | None, *, phase: str = "Cancelled") -> dict[str, Any]:
    dates = [{"date": "2027-03-02", "state": state, "reservation": reservation}]
    return {"status": {"phase": phase, "occurrences": dates}}


def date_of_series(date: str = "2027-03-02") -> dict[str, Any]:
    return {"spec": {"series": "ser-1", "occurrence": date}, "status": {"phase": "Cancelled"}}


def test_a_series_that_is_lost_or_decided_twice_and_a_date_with_two_reservations_are_seen() -> None:
    seen = Seen([Asked("series", "k", 202, resource="ser-1")])
    placed, refused = (("/series/ser-1", series_in("placed", "rsv-1", phase=one)) for one in ("Placed", "Refused"))
    made = ("/reservations/rsv-1", date_of_series())
    present = {"/series/ser-1": series_in("placed", "rsv-1", phase="Completed")}
    good = Evidence(present=dict(present), history=history(made, placed, made))
    assert kept_series(good, seen).ok
    assert "never booked" in kept_series(Evidence(), seen).detail
    denied = request("Refused", subject="series/ser-1")
    assert "never booked" in kept_series(Evidence(present={"/requests/t/a": denied}), seen).detail, "only a change was"
    denied["spec"]["type"] = "io.lablet.series.requested.v1"
    assert kept_series(Evidence(present={"/requests/t/a": denied}), seen).ok
    both = Evidence(present=dict(present), history=history(made, placed, refused))
    assert "Placed and Refused" in kept_series(both, seen).detail
    twice = history(made, placed, ("/reservations/rsv-2", date_of_series()))
    assert "rsv-1, rsv-2" in kept_series(Evidence(present=dict(present), history=twice), seen).detail
    never = Evidence(present=dict(present), history=history(placed))
    assert "[] was made" in kept_series(never, seen).detail
    given_back = {"/series/ser-1": series_in("cancelled", None)}
    assert kept_series(Evidence(present=dict(given_back), history=history(placed)), seen).ok


def test_series_are_asked_about_only_where_some_were_booked() -> None:
    def claims(*seen: Asked) -> list[str]:
        return [check.claim for check in checks.judge(Evidence(), Seen(list(seen)))]

    assert not [claim for claim in claims(Asked("series", "k", 0)) if "series" in claim]
    assert [claim for claim in claims(Asked("series", "k", 202, resource="ser-1")) if "series" in claim]


def job_on(worker: str, begin: float, end: float, process: int = 7) -> list[str]:
    return [f"job-1 {worker} {process} {at}" for at in (begin, end)]


@pytest.mark.parametrize(
    ("lines", "attempts", "said"),
    [
        (job_on("local-1", 1, 3), 1, ""),
        ([*job_on("local-1", 1, 3), "job-1 loc"], 1, ""),  # killed while it wrote
        (job_on("local-1", 1, 3) + job_on("local-2", 4, 6), 2, ""),  # its host was lost
        (job_on("local-1", 1, 3) + job_on("local-2", 2, 6), 2, "at a time"),
        (job_on("local-1", 1, 3) + job_on("local-1", 4, 6, process=8), 1, "2 times in 1 attempts"),
        ([], 1, "nothing to compare"),
    ],
)
def test_a_job_that_runs_twice_is_seen(lines: list[str], attempts: int, said: str) -> None:
    instance = {"spec": {"definition": "job-1@1.0.0"}, "status": {"phase": "Terminated", "attempt": attempts}}
    seen = Seen([Asked("run", "k", 201, resource="rsv-1")])
    check = never_twice(Evidence(present={"/instances/ins-1": instance}), seen, lives(lines))
    assert check.ok is not bool(said)
    assert said in check.detail


def test_jobs_write_down_that_they_run() -> None:
    ledger = Ledger()
    try:
        manifest = ledger.manifest("job-3")
        assert is_manifest(manifest)
        (node,) = read_manifest(manifest).nodes
        subprocess.run(node.command, env={"PATH": os.environ["PATH"], "LABLET_WORKER": "local-1"}, check=True)
        (ran,) = ledger.read()
    finally:
        ledger.remove()
    assert (ran.job, ran.worker) == ("job-3", "local-1")
    assert ran.end - ran.begin >= 1
    assert not ledger.path.exists()


def test_agents_are_killed_and_stand_still_for_longer_than_their_permission() -> None:
    agents = ["agent-1", "agent-2"]
    faults = [
        fault
        for seed in range(60)
        for fault in plan(seed, 60, REPLICAS, 2.0, sound_etcd=True, agents=agents, agent_ttl=6)
        if fault.target in agents
    ]
    assert {(fault.kind, fault.target) for fault in faults} == {
        (kind, agent) for kind in (Kind.KILL, Kind.PAUSE) for agent in agents
    }
    assert all(fault.seconds > 6 for fault in faults if fault.kind is Kind.PAUSE)


def seat_of(name: str, attempt: int = 1) -> dict[str, Any]:
    seat = {
        "seat": 1,
        "worker": "w-1",
        "ports": {"r1": 2000},
        "instance": f"ins-{name}-1",
        "state": "placed",
        "attempt": attempt,
    }
    slot = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T10:00:00Z"}
    spec = {"definition": "d@1.0.0"}
    return {"metadata": {"id": name}, "spec": spec, "status": {"phase": "Scheduled", "slot": slot, "placement": [seat]}}


@pytest.mark.parametrize(
    ("instance", "attempt", "ok"),
    [
        (None, 1, False),
        ({"phase": "Failed"}, 1, False),
        ({"phase": "Failed", "released": True}, 1, True),
        ({"phase": "Terminated", "attempt": 1}, 1, True),
        ({"phase": "Terminated", "attempt": 1}, 2, True),
        ({"phase": "Failed", "released": True, "attempt": 1}, 2, False),
    ],
)
def test_a_seat_takes_its_ports_until_its_lab_is_proven_gone(instance: Any, attempt: int, ok: bool) -> None:
    needs = {"nodeCount": 1, "memoryGb": 1, "cpuCores": 1, "storageGb": 1}
    capacity = {"memoryGb": 9, "cpuCores": 9, "storageGb": 9}
    present = {
        "/definitions/default/d/1.0.0": {"metadata": {"id": "d@1.0.0"}, "spec": {"requirements": needs}},
        "/workers/w-1": {"spec": {"maxNodes": 9, "capacity": capacity}},
    }
    ended = [("/instances/ins-a-1", {"status": instance})] if instance else []
    told = history(("/reservations/a", seat_of("a", attempt)), *ended, ("/reservations/b", seat_of("b")))
    check = never_double_booked(Evidence(present=present, history=told))
    assert check.ok is ok, check.detail


@pytest.mark.parametrize(("healed", "ok"), [("09:40", True), ("09:20", False)])
def test_a_healed_seat_takes_nothing_before_it_came(healed: str, ok: bool) -> None:
    """Its slot began at nine; the seat that had the same port until half past nine was there first."""
    first, second = seat_of("a"), seat_of("b", attempt=2)
    first["status"]["slot"]["end"] = "2027-03-01T09:30:00Z"
    elsewhere = copy.deepcopy(second)
    elsewhere["status"]["placement"][0] |= {"worker": "w-2", "attempt": 1}
    second["status"]["history"] = [{"from": "Active", "to": "Active", "at": f"2027-03-01T{healed}:00Z"}]
    extended = copy.deepcopy(second)  # a later move is no arrival
    extended["status"]["history"].append({"from": "Active", "to": "Active", "at": "2027-03-01T09:50:00Z"})
    needs = {"nodeCount": 1, "memoryGb": 1, "cpuCores": 1, "storageGb": 1}
    worker = {"spec": {"maxNodes": 9, "capacity": {"memoryGb": 9, "cpuCores": 9, "storageGb": 9}}}
    present = {
        "/definitions/default/d/1.0.0": {"metadata": {"id": "d@1.0.0"}, "spec": {"requirements": needs}},
        "/workers/w-1": worker, "/workers/w-2": worker,
    }  # fmt: skip
    told = history(
        ("/reservations/a", first),
        ("/reservations/b", elsewhere),
        ("/reservations/b", second),
        ("/reservations/b", extended),
    )
    assert never_double_booked(Evidence(present=present, history=told)).ok is ok


def reservation_until(hour: int, *, attempt: int = 1, phase: str = "Active", state: str = "placed") -> dict[str, Any]:
    slot = {"start": "2027-03-01T09:00:00Z", "end": f"2027-03-01T{hour:02}:00:00Z"}
    seat = {"seat": 1, "worker": "w2", "instance": "ins-a-1", "attempt": attempt, "state": state}
    return {
        "metadata": {"id": "rsv-a"},
        "spec": {"definition": "d", **slot},
        "status": {"phase": phase, "slot": slot, "placement": [seat]},
    }


@pytest.mark.parametrize(
    ("reservation", "came_from", "ok"),
    [
        (reservation_until(11, attempt=2), "Failed", False),
        (reservation_until(11, attempt=2), "Exported", False),
        (reservation_until(11), "Failed", False),
        (reservation_until(11), "Exported", True),  # asked to stop
        (reservation_until(10, attempt=2), "Failed", True),  # its slot is over
        (reservation_until(11, state="lost"), "Failed", True),
        (reservation_until(11, attempt=2, phase="Cancelled"), "Failed", True),
    ],
)
def test_a_seat_that_has_a_place_is_not_given_up_inside_its_slot(
    reservation: dict[str, Any], came_from: str, ok: bool
) -> None:
    ended = {
        "metadata": {"id": "ins-a-1"},
        "spec": {"reservation": "rsv-a"},
        "status": {"phase": "Terminated", "history": [{"from": came_from, "at": "2027-03-01T10:00:00Z"}]},
    }
    history = (Change(2, "/reservations/rsv-a", reservation), Change(3, "/instances/ins-a-1", ended))
    assert none_given_up(Evidence(history=history)).ok == ok


@pytest.mark.parametrize(("begun_anew", "ok"), [(False, True), (True, False)])
def test_who_asks_for_the_end_of_a_seat_that_is_moving_has_it(begun_anew: bool, ok: bool) -> None:
    """Simulated seed 20254: moved to another worker, and stopped by its learner before its instance followed."""
    stop = {"from": "Running", "to": "Stopping", "at": "2027-03-01T09:40:00Z", "reason": "StopRequested"}
    anew = [{"from": "Failed", "to": "Pending", "at": "2027-03-01T09:50:00Z", "reason": "Retried"}] * begun_anew
    end = {"from": "Exported", "to": "Terminated", "at": "2027-03-01T10:00:00Z", "reason": "Released"}
    ended = {
        "metadata": {"id": "ins-a-1"},
        "spec": {"reservation": "rsv-a"},
        "status": {"phase": "Terminated", "history": [stop, *anew, end]},
    }
    moved = Change(2, "/reservations/rsv-a", reservation_until(11, attempt=2))
    assert none_given_up(Evidence(history=(moved, Change(3, "/instances/ins-a-1", ended)))).ok == ok


def test_a_stream_that_too_few_servers_keep_is_seen() -> None:
    kept = {stream.name: 3 for stream in used_by(Service.GATEWAY)}
    assert {"INGRESS", "DLQ", *STREAMS} < kept.keys()
    assert kept_by_all({**kept, "SOMEBODYS": 3}, 3).ok
    for name in (*kept, "SOMEBODYS"):
        assert f"{name} by 1" in kept_by_all({**kept, name: 1}, 3).detail
    for name in kept:
        assert f"{name} by 0" in kept_by_all({other: 3 for other in kept if other != name}, 3).detail
