"""Every check holds for a morning that went well, and notices the one thing that did not."""

from dataclasses import replace
from typing import Any

import pytest

from lablet_local.demo.checks import judge
from lablet_local.demo.evidence import Evidence, Ran, Typed, Visit


def _only(found: dict[str, str], claim: str, detail: str) -> None:
    assert len(found) == 1, found
    ((said, why),) = found.items()
    assert claim in said
    assert detail in why


def test_a_morning_that_went_well_holds(story: Any, broken: Any) -> None:
    assert broken(story.evidence()) == {}


def test_no_evidence_holds_nothing(plan: Any) -> None:
    held = [check.claim for check in judge(Evidence(), plan) if check.ok]
    assert held == []


def test_an_undecided_request_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/requests/default/req-1"]["status"]["phase"] = "Accepted"
    _only(broken(story.evidence()), "was decided", "req-1 is Accepted")


def test_a_pointer_left_in_an_inbox_is_noticed(story: Any, broken: Any) -> None:
    story.put("/inbox/scheduler/default/req-9", {"tenant": "default"})
    _only(broken(story.evidence()), "was decided", "req-9 still waits")


def test_a_lost_reservation_is_noticed(story: Any, broken: Any) -> None:
    del story.documents["/reservations/c"]
    assert any("is stored" in claim for claim in broken(story.evidence()))


def test_an_instance_that_never_ends_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/instances/ins-a-1"]["status"]["phase"] = "Stopped"
    _only(broken(story.evidence()), "reached its end", "ins-a-1 is Stopped")


def test_a_port_given_twice_is_noticed_though_it_was_put_right_later(story: Any, broken: Any, stored: Any) -> None:
    wrong = stored(story.documents["/reservations/b"])
    wrong["status"] |= {"phase": "Scheduled"}
    wrong["status"]["placement"][0]["ports"] = {"r1_serial": 2000}
    story.earlier.append(("/reservations/b", wrong))
    _only(broken(story.evidence()), "booked beyond its capacity or a port given twice", "w-1 at 08:00: port 2000")


@pytest.mark.parametrize(("dimension", "amount"), [("nodeCount", 101), ("memoryGb", 201), ("cpuCores", 101)])
def test_a_worker_booked_beyond_its_capacity_is_noticed(
    story: Any, broken: Any, stored: Any, dimension: str, amount: int
) -> None:
    wrong = stored(story.documents["/reservations/b"])
    wrong["status"]["phase"] = "Scheduled"
    story.earlier.append(("/reservations/b", wrong))
    story.documents["/definitions/default/lab/1.0.0"]["spec"]["requirements"] = {
        "nodeCount": 1,
        "memoryGb": 1,
        "cpuCores": 1,
        dimension: amount,
    }
    found = broken(story.evidence())
    assert any(dimension in why for claim, why in found.items() if "booked beyond" in claim)
    assert any(dimension in why for claim, why in found.items() if "ran together" in claim)


def test_slots_that_follow_each_other_share_nothing(story: Any, broken: Any, stored: Any) -> None:
    after = stored(story.documents["/reservations/b"])
    after["status"] |= {"phase": "Scheduled", "slot": {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T10:00:00Z"}}
    after["status"]["placement"][0]["ports"] = {"r1_serial": 2000}
    story.earlier.append(("/reservations/b", after))
    assert broken(story.evidence()) == {}


def test_a_change_that_was_not_published_is_noticed(story: Any, broken: Any) -> None:
    evidence = story.evidence()
    first = next(told for told in evidence.events if told.subject == "reservation/a")
    found = broken(replace(evidence, events=tuple(told for told in evidence.events if told is not first)))
    _only(found, "was published", f"reservation/a at revision {first.sequence}")


@pytest.mark.parametrize("kind", ["definition", "request"])
def test_a_change_of_any_kind_that_was_not_published_is_noticed(story: Any, broken: Any, kind: str) -> None:
    evidence = story.evidence()
    (untold,) = (told for told in evidence.events if told.kind == kind)
    found = broken(replace(evidence, events=tuple(told for told in evidence.events if told is not untold)))
    assert set(found) == {
        "every committed change was published, under the same id each time",
        "the last event of each resource says what etcd holds",
    }


def test_a_repeat_under_another_id_is_noticed(story: Any, broken: Any) -> None:
    evidence = story.evidence()
    again = replace(evidence.events[-1], id="request/uid-req-1/another", place=999)
    _only(broken(replace(evidence, events=(*evidence.events, again))), "was committed", again.id)


def test_a_change_that_was_told_under_another_id_alone_is_noticed(story: Any, broken: Any) -> None:
    evidence = story.evidence()
    other = replace(evidence.events[-1], id="request/uid-req-1/1")
    found = broken(replace(evidence, events=(*evidence.events[:-1], other)))
    assert set(found) == {
        "every committed change was published, under the same id each time",
        "every event tells of a change that was committed",
    }


def test_an_event_of_a_change_that_never_was_is_noticed(story: Any, broken: Any) -> None:
    evidence = story.evidence()
    ghost = replace(evidence.events[0], sequence=999, place=999, subject="reservation/zzz")
    _only(broken(replace(evidence, events=(*evidence.events, ghost))), "was committed", ghost.id)


def test_events_out_of_order_are_noticed(story: Any, broken: Any) -> None:
    evidence = story.evidence()
    turned = [replace(told, place=-told.place) if told.subject == "reservation/a" else told for told in evidence.events]
    _only(broken(replace(evidence, events=tuple(turned))), "order of its commits", "reservation/a")


def test_a_last_event_that_says_something_else_is_noticed(story: Any, broken: Any) -> None:
    evidence = story.evidence()
    last = evidence.events[-1]
    other = replace(last, data={**last.data, "status": {**last.data["status"], "phase": "Running"}})
    found = broken(replace(evidence, events=(*evidence.events[:-1], other)))
    _only(found, "says what etcd holds", "status.phase is not the same")


def test_a_lab_that_was_started_twice_is_noticed(story: Any, broken: Any) -> None:
    again = {"fact": "lab.started", "lab": "lab-a", "title": "ins-a-1", "at": 90.0}
    story.machines[0]["facts"] += [again, {**again, "fact": "lab.stopped", "at": 91.0}]
    _only(broken(story.evidence()), "exactly once", "ins-a-1 was started 2 times")


def test_a_lab_in_two_places_at_a_time_is_noticed(story: Any, broken: Any) -> None:
    facts = [fact for fact in story.machines[0]["facts"] if fact.get("lab") != "lab-b"]
    story.machines.append({"name": "w-2", "state": "stopped", "facts": facts})
    assert any("two places" in claim for claim in broken(story.evidence()))


def test_a_lab_on_another_worker_than_placed_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/instances/ins-a-1"]["spec"]["worker"] = "w-9"
    _only(broken(story.evidence()), "exactly once", "ran on w-1, not on w-9")


def test_a_seat_of_a_begun_slot_that_never_ran_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/instances/ins-a-1"]["status"]["history"] = []
    assert (
        "ins-a-1 never ran"
        in broken(story.evidence())[next(c for c in broken(story.evidence()) if "exactly once" in c)]
    )


def test_a_lab_left_behind_is_noticed(story: Any, broken: Any) -> None:
    story.machines[0]["facts"] = [
        f for f in story.machines[0]["facts"] if f["fact"] != "lab.deleted" or f["lab"] != "lab-b"
    ]
    _only(broken(story.evidence()), "left over", "lab ins-b-1 on w-1")


def test_labs_are_gone_with_a_machine_that_is_gone_with_its_disk(story: Any, broken: Any) -> None:
    """Fault run of three members, seed 222: nobody could reach the worker any more, and it was given up."""
    story.machines[0]["facts"] = [f for f in story.machines[0]["facts"] if f["fact"] != "lab.deleted"]
    story.machines[0]["state"] = "terminated"
    assert not [claim for claim in broken(story.evidence()) if "left over" in claim]


def test_a_machine_left_running_is_noticed(story: Any, broken: Any) -> None:
    story.machines[0]["state"] = "running"
    _only(broken(story.evidence()), "left over", "machine w-1 is running")


def test_more_nodes_than_the_licence_allows_are_noticed(story: Any, broken: Any) -> None:
    story.machines[0]["facts"][1]["quota"] = 1
    _only(broken(story.evidence()), "more nodes than its licence", "2 nodes on a licence for 1")


def test_a_port_open_twice_on_a_machine_is_noticed(story: Any, broken: Any) -> None:
    for fact in story.machines[0]["facts"]:
        if fact["fact"] == "node.booted":
            fact["ports"] = [2000]
    _only(broken(story.evidence()), "opened a port twice", "port 2000 open twice")


def test_too_few_seats_are_noticed(story: Any, broken: Any) -> None:
    story.documents["/reservations/a"]["spec"]["seats"] = 2
    _only(broken(story.evidence()), "at least 40 seats", "only 4")


def test_nobody_placed_from_the_wait_list_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/reservations/b"]["status"]["history"] = [{"from": "Pending", "to": "Waitlisted", "at": "…"}]
    _only(broken(story.evidence()), "placed later", "nobody who waited")


def test_a_rejection_without_a_reason_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/reservations/c"]["status"]["explanation"] = None
    _only(broken(story.evidence()), "rejected with its reason", "without a reason")


def test_a_take_over_with_nothing_waiting_does_not_count(story: Any, broken: Any) -> None:
    story.take_over = replace(story.take_over, pending=())
    _only(broken(story.evidence()), "took over", "nothing to compare")


def test_a_request_that_was_decided_before_the_take_over_did_not_wait_for_it(story: Any, broken: Any) -> None:
    story.earlier[2], story.earlier[4] = story.earlier[4], story.earlier[2]
    _only(broken(story.evidence()), "took over", "req-1 was not waiting any more")


def test_the_killed_scheduler_taking_over_from_itself_does_not_count(story: Any, broken: Any) -> None:
    story.earlier[3] = ("/ownership/scheduler/default", "scheduler-1")
    story.take_over = replace(story.take_over, successor="scheduler-1")
    _only(broken(story.evidence()), "took over", "from itself")


def test_a_port_that_does_not_answer_is_noticed(story: Any, broken: Any) -> None:
    story.visits[0] = Visit("ins-a-1", "r1_serial", "127.0.0.1:2000", answered=False, note="refused")
    _only(broken(story.evidence()), "every named port", "ins-a-1 r1_serial")


def test_a_port_that_was_not_tried_is_noticed(story: Any, broken: Any) -> None:
    story.visits.pop()
    _only(broken(story.evidence()), "every named port", "ins-b-1 r1_serial was not tried")


def test_a_typed_line_that_is_not_found_again_is_noticed(story: Any, broken: Any) -> None:
    story.typed = Typed("ins-a-1", "a line")
    _only(broken(story.evidence()), "typed into a console", "not found")


_HOSTS = "ran as processes of its agent's host"


@pytest.mark.parametrize(
    ("ran", "left", "detail"),
    [
        ([], [], "ins-d-1 was found on [], not on host-1"),
        ([Ran("ins-d-1", "host-2", (1,))], [], "ins-d-1 was found on ['host-2'], not on host-1"),
        ([Ran("ins-d-1", "host-1", (1,)), Ran("ins-d-1", "host-2", (2,))], [], "not on host-1"),
        ([Ran("ins-d-1", "host-1", ())], [], "ins-d-1 had no process"),
        ([Ran("ins-d-1", "host-1", (1,))], [Ran("ins-d-1", "host-1", (1,))], "ins-d-1 is still there on host-1"),
    ],
)
def test_a_single_booking_that_did_not_run_as_processes_of_its_host_is_noticed(
    story: Any, broken: Any, ran: list[Ran], left: list[Ran], detail: str
) -> None:
    story.ran, story.left = ran, left
    _only(broken(story.evidence()), _HOSTS, detail)


def test_a_single_booking_that_never_ran_is_noticed(story: Any, broken: Any) -> None:
    story.documents["/instances/ins-d-1"]["status"]["history"] = []
    _only(broken(story.evidence()), _HOSTS, "ins-d-1 never ran")
