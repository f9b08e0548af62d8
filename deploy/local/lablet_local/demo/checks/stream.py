"""What the event stream says, compared with etcd's history: nothing unsaid, nothing out of order, the same end."""

from typing import Any

from lablet_local.demo.checks.check import Check
from lablet_local.demo.evidence import Change, Evidence, Told

_SOURCE = "events"
KINDS = {"/reservations/": "reservation", "/instances/": "instance", "/workers/": "worker"}
_NOT_COMPARED = ("previousPhase",)


def checks(evidence: Evidence) -> list[Check]:
    return [_all_said(evidence), nothing_invented(evidence), in_order(evidence), _same_end(evidence)]


def _subject(change: Change) -> str | None:
    for prefix, kind in KINDS.items():
        if change.key.startswith(prefix):
            return f"{kind}/{change.key.removeprefix(prefix)}"
    return None


def _all_said(evidence: Evidence) -> Check:
    said = {(told.subject, told.sequence) for told in evidence.events}
    wanted = [(subject, change) for change in evidence.history if (subject := _subject(change)) is not None]
    broken = [
        f"{subject} at revision {change.revision}"
        for subject, change in wanted
        if (subject, change.revision) not in said
    ]
    claim = "every committed change of a reservation, instance or worker was published"
    return Check(_SOURCE, claim, len(wanted), tuple(broken))


def nothing_invented(evidence: Evidence) -> Check:
    committed = {(_subject(change), change.revision) for change in evidence.history}
    ours = [told for told in evidence.events if told.kind in KINDS.values()]
    broken = [f"{told.type} {told.id}" for told in ours if (told.subject, told.sequence) not in committed]
    return Check(_SOURCE, "every event tells of a change that was committed", len(ours), tuple(broken))


def in_order(evidence: Evidence) -> Check:
    last: dict[str, Told] = {}
    broken = []
    for told in sorted(evidence.events, key=lambda one: one.place):
        before = last.get(told.subject)
        if before is not None and told.sequence < before.sequence:
            broken.append(f"{told.subject}: {told.sequence} after {before.sequence}")
        last[told.subject] = told
    return Check(_SOURCE, "the events of each resource stand in the order of its commits", len(last), tuple(broken))


def _same_end(evidence: Evidence) -> Check:
    last: dict[str, Told] = {}
    for told in evidence.events:
        if told.kind in KINDS.values() and ".scaling." not in told.type:
            before = last.get(told.subject)
            if before is None or told.sequence >= before.sequence:
                last[told.subject] = told
    broken = []
    compared = 0
    for prefix, kind in KINDS.items():
        for key, value in evidence.present.items():
            if not key.startswith(prefix) or not isinstance(value, dict):
                continue
            compared += 1
            subject = f"{kind}/{key.removeprefix(prefix)}"
            heard = last.get(subject)
            if heard is None:
                broken.append(f"{subject} was never told of")
            elif different := _difference(value, heard.data):
                broken.append(f"{subject}: {different}")
    return Check(_SOURCE, "the last event of each resource says what etcd holds", compared, tuple(broken))


def _difference(stored: dict[str, Any], told: dict[str, Any]) -> str:
    """The first field that etcd has and the event does not have so; secrets are left out of events on purpose."""
    for part in ("spec", "status"):
        for name, value in stored[part].items():
            if name == "credentials":
                continue
            if (told.get(part) or {}).get(name) != value:
                return f"{part}.{name} is not the same"
    return ""
