"""What the event stream says, compared with etcd's history: nothing unsaid, nothing out of order, the same end.

Every kind that the table of kinds has is compared, by the documented id of a change's event: `<kind>/<uid>/<revision>`, the
same however often it is sent. A worker's scaling decision has an event of its own, `scaling/<uid>/<revision>`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from lablet_common.resources.kinds import KINDS as _TABLE
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence, Told

_SOURCE = "events"
KINDS = {kind.prefix: kind.name for kind in _TABLE.values()}
ALL = frozenset(KINDS.values())
_SECRET = {("spec", "sha256"), ("status", "credentials")}
"""Fields that are left out of events on purpose."""
_CLAIMS = ("spec", "claims")
"""Open seats, of which events show the number alone."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One change of etcd's history, as its event must name it."""

    key: str
    kind: str
    subject: str
    revision: int
    uid: str


def checks(
    evidence: Evidence, *, since: int = 0, every: bool = True, whole: bool = True, kinds: Collection[str] = ALL
) -> list[Check]:
    """`since`: the stream was emptied at that revision, and what is older need not stand in it. `every`: nothing was
    compacted behind the bridges, so each single change must have been told, else the last of each resource. `whole`: no
    change is missing in the history. `kinds`: those that have bridges."""
    changes = [one for one in committed(evidence) if one.kind in kinds]
    found = [in_order(evidence), nothing_secret(evidence), same_end(evidence, changes, since=since, kinds=kinds)]
    if every:
        found.append(all_said(evidence, changes, since=since))
    if whole:
        found.append(nothing_invented(evidence, changes, kinds=kinds))
    return found


def committed(evidence: Evidence) -> Iterator[Committed]:
    """The changes that events tell of. A deletion is named by what stood there before."""
    known: dict[str, tuple[str, str]] = {}
    for change in evidence.history:
        kind = kind_at(change.key)
        if kind is None:
            continue
        if isinstance(change.value, dict):
            metadata = change.value["metadata"]
            known[change.key] = str(metadata["id"]), str(metadata["uid"])
        if change.key in known:
            name, uid = known[change.key]
            yield Committed(change.key, kind, f"{kind}/{name}", change.revision, uid)


def kind_at(key: str) -> str | None:
    """The kind whose resources lie there."""
    prefix = key[: key.index("/", 1) + 1] if key.count("/") > 1 else ""
    return KINDS.get(prefix)


def all_said(evidence: Evidence, changes: Collection[Committed], *, since: int = 0) -> Check:
    """At least once, under its own id."""
    said = {(told.subject, told.sequence, told.id) for told in evidence.events}
    wanted = [one for one in changes if one.revision > since]
    broken = [
        f"{one.subject} at revision {one.revision}"
        for one in wanted
        if (one.subject, one.revision, f"{one.kind}/{one.uid}/{one.revision}") not in said
    ]
    claim = "every committed change was published, under the same id each time"
    return Check(_SOURCE, claim, len(wanted), tuple(broken), Harm.LOST)


def nothing_invented(evidence: Evidence, changes: Collection[Committed], *, kinds: Collection[str] = ALL) -> Check:
    """Nothing under another id, or about another change than there was."""
    ids = {(one.subject, one.revision, f"{one.kind}/{one.uid}/{one.revision}") for one in changes}
    ids |= {(one.subject, one.revision, f"scaling/{one.uid}/{one.revision}") for one in changes if one.kind == "worker"}
    ours = [told for told in evidence.events if told.kind in kinds]
    broken = [f"{told.type} {told.id}" for told in ours if (told.subject, told.sequence, told.id) not in ids]
    claim = "every event tells of a change that was committed"
    return Check(_SOURCE, claim, len(ours), tuple(broken), Harm.DOUBLED)


def in_order(evidence: Evidence) -> Check:
    """Who was at it before, and stood still, may still tell what lies before a replayed state: nobody told it since, so that
    the stream does not know it as a repeat. Readers drop it by its `sequence`, as everything that comes again."""
    last: dict[str, int] = {}
    replayed: dict[str, int] = {}
    broken = []
    for told in sorted(evidence.events, key=lambda one: one.place):
        before = last.get(told.subject, 0)
        if replayed.get(told.subject, 0) < told.sequence < before:
            broken.append(f"{told.subject}: {told.sequence} after {before}")
        last[told.subject] = max(before, told.sequence)
        if told.replayed:
            replayed[told.subject] = told.sequence
    claim = "the events of each resource stand in the order of its commits"
    return Check(_SOURCE, claim, len(last), tuple(broken), Harm.LOST)


def nothing_secret(evidence: Evidence) -> Check:
    """Not the hashes of API keys and of claim codes, not the workers' logins, although these are encrypted."""
    broken = []
    for told in evidence.events:
        shown = [f"{part}.{name}" for part, name in _SECRET if (told.data.get(part) or {}).get(name) is not None]
        claims = (told.data.get(_CLAIMS[0]) or {}).get(_CLAIMS[1]) or ()
        if any(value is not None for claim in claims for name, value in claim.items() if name != "seat"):
            shown.append(".".join(_CLAIMS))
        broken += [f"{told.type} {told.id} shows {what}" for what in shown]
    return Check(_SOURCE, "no event tells what is secret", len(evidence.events), tuple(broken), Harm.DOUBLED)


def same_end(
    evidence: Evidence, changes: Collection[Committed], *, since: int = 0, kinds: Collection[str] = ALL
) -> Check:
    """The final state of everything that has changed since then."""
    heard: dict[str, Told] = {}
    for told in sorted(evidence.events, key=lambda one: (one.sequence, one.place)):
        if told.kind in kinds and ".scaling." not in told.type:
            heard[told.subject] = told
    latest = {one.key: one for one in changes}
    broken = []
    compared = 0
    for key, one in latest.items():
        value = evidence.present.get(key)
        if one.revision <= since or not isinstance(value, dict):
            continue
        compared += 1
        told_last = heard.get(one.subject)
        if told_last is None:
            broken.append(f"{one.subject} was never told of")
        elif told_last.sequence != one.revision:
            broken.append(f"{one.subject} was told as of revision {told_last.sequence}, it is at {one.revision}")
        elif not told_last.apart and (different := _difference(value, told_last.data)):
            broken.append(f"{one.subject}: {different}")
    claim = "the last event of each resource says what etcd holds"
    return Check(_SOURCE, claim, compared, tuple(broken), Harm.LOST)


def _difference(stored: dict[str, Any], told: dict[str, Any]) -> str:
    """The first field that etcd has and the event does not have so."""
    for part in ("spec", "status"):
        for name, value in stored[part].items():
            if (part, name) not in {*_SECRET, _CLAIMS} and (told.get(part) or {}).get(name) != value:
                return f"{part}.{name} is not the same"
    return ""
