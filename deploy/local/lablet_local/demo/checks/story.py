"""Whether the morning was the one that was meant: enough seats, somebody who waited and was placed, somebody refused with
a reason, a take-over with requests waiting, every port answered, and the typed line found again."""

from lablet_local.demo.books import below, booking, moves, phase, was
from lablet_local.demo.checks.check import Check
from lablet_local.demo.evidence import Change, Evidence
from lablet_local.demo.scenario import POOL, Morning

_SOURCE = "story"
ENOUGH_SEATS = 40


def checks(evidence: Evidence, morning: Morning) -> list[Check]:
    return [
        _enough(evidence),
        _waited_and_placed(evidence),
        _refused_with_reason(evidence),
        _all_asked(evidence, morning),
        _taken_over(evidence),
        _answered(evidence),
        _typed(evidence),
    ]


def seats_placed(evidence: Evidence) -> int:
    """Seats of reservations that were placed at some time."""
    return sum(int(one["spec"]["seats"]) for one in below(evidence, "/reservations/").values() if was(one, "Scheduled"))


def _enough(evidence: Evidence) -> Check:
    placed = seats_placed(evidence)
    ran = [one for one in below(evidence, "/reservations/").values() if was(one, "Scheduled")]
    broken = [] if placed >= ENOUGH_SEATS else [f"only {placed}"]
    broken += [f"{booking(one)} failed: {one['status'].get('message')}" for one in ran if phase(one) == "Failed"]
    return Check(_SOURCE, f"at least {ENOUGH_SEATS} seats were placed, and none of them in vain", placed, tuple(broken))


def _waited_and_placed(evidence: Evidence) -> Check:
    waited = [one for one in below(evidence, "/reservations/").values() if was(one, "Waitlisted")]
    later = [one for one in waited if any(m.get("from") == "Waitlisted" and m["to"] == "Scheduled" for m in moves(one))]
    broken = () if later else ("nobody who waited was placed",)
    return Check(_SOURCE, "a wait-listed request was placed later, when somebody cancelled", len(waited), broken)


def _refused_with_reason(evidence: Evidence) -> Check:
    refused = [one for one in below(evidence, "/reservations/").values() if phase(one) == "Rejected"]
    broken = [
        f"{booking(one)} was rejected without a reason"
        for one in refused
        if not (one["status"].get("explanation") or {}).get("summary")
    ]
    return Check(_SOURCE, "an impossible demand was rejected with its reason", len(refused), tuple(broken))


def _all_asked(evidence: Evidence, morning: Morning) -> Check:
    missing = [one.name for one in morning.bookings if one.name not in evidence.submitted]
    return Check(
        _SOURCE, "every booking of the morning was asked for and answered", len(morning.bookings), tuple(missing)
    )


def _taken_over(evidence: Evidence) -> Check:
    seen = evidence.take_over
    key = f"/ownership/scheduler/{POOL}"
    owners: list[Change] = [change for change in evidence.history if change.key == key and change.value is not None]
    before = [change for change in owners if change.revision < seen.owned_revision]
    broken = []
    if not before or before[-1].value != seen.killed:
        broken.append("the killed scheduler was not the owner")
    if not any(change.revision == seen.owned_revision and change.value == seen.successor for change in owners):
        broken.append("etcd knows of no new owner")
    if seen.successor == seen.killed:
        broken.append("the killed scheduler took over from itself")
    if not seen.decided_at:
        broken.append("the new owner decided nothing")
    waiting = pointers_at(evidence, seen.owned_revision)
    broken += [f"{one} was not waiting any more" for one in seen.pending if one not in waiting]
    claim = f"{seen.successor or 'another scheduler'} took over from the killed one while requests were waiting"
    return Check(_SOURCE, claim, len(seen.pending), tuple(broken))


def pointers_at(evidence: Evidence, revision: int) -> set[str]:
    """The requests that stood in the scheduler's inbox at a revision, by etcd's history."""
    prefix = f"/inbox/scheduler/{POOL}/"
    waiting: set[str] = set()
    for change in evidence.history:
        if change.revision > revision or not change.key.startswith(prefix):
            continue
        name = change.key.removeprefix(prefix)
        if change.value is None:
            waiting.discard(name)
        else:
            waiting.add(name)
    return waiting


def _answered(evidence: Evidence) -> Check:
    broken = [
        f"{visit.instance} {visit.port} at {visit.address}: {visit.note}"
        for visit in evidence.visits
        if not visit.answered
    ]
    knocked = {(visit.instance, visit.port) for visit in evidence.visits}
    for name, instance in below(evidence, "/instances/").items():
        if was(instance, "Running"):
            broken += [
                f"{name} {port} was not tried" for port in instance["spec"]["ports"] if (name, port) not in knocked
            ]
    return Check(_SOURCE, "every named port of every running lab answered", len(evidence.visits), tuple(broken))


def _typed(evidence: Evidence) -> Check:
    typed = evidence.typed
    broken = () if typed.found_in else (f"not found among what {typed.instance or 'any lab'} left",)
    return Check(_SOURCE, "the line typed into a console is in the collected configuration", 1, broken)
