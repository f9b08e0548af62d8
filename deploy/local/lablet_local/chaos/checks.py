"""The verdict on a fault run, from what clients saw, etcd's history, the event stream and the simulators' logs. Pure.

The demo's checks that hold whatever happens are used as they are; here stands what faults add. Every check counts what it
compared: one that compared nothing has proven nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lablet_local.chaos import licences
from lablet_local.chaos.jobs import Ran, never_twice
from lablet_local.chaos.load import Seen
from lablet_local.chaos.machines import one_machine_a_worker
from lablet_local.chaos.outcomes import every_kind_decided, refused
from lablet_local.chaos.owners import Commit, accounts_kept, no_stale_owner
from lablet_local.chaos.seats import none_given_up
from lablet_local.chaos.starts import never_started_again
from lablet_local.chaos.terms import kept_series
from lablet_local.demo.books import FINAL, HOLDING, below, is_agent, phase
from lablet_local.demo.checks import ground, stream
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.checks.store import never_double_booked
from lablet_local.demo.evidence import Evidence

_ENDS: Mapping[str, tuple[str, ...]] = {
    "/reservations/": FINAL,
    "/instances/": ("Terminated",),
    "/workers/": ("Offline",),
}
_DECIDED = ("Decided", "Refused")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a run made etcd and the stream of events forget, so that less can be asked of them."""

    compacted: bool = False
    """History was compacted behind the bridges: what came before is told by its last state alone."""
    purged_at: int = 0
    """The stream was emptied last at that revision: what is older need not stand in it."""
    gap: str = ""
    """What is missing in the history that the verdict rests on."""


def judge(
    evidence: Evidence,
    seen: Seen,
    *,
    forgotten: Forgotten = Forgotten(),
    jobs: Iterable[Ran] = (),
    commits: Iterable[Commit] = (),
) -> list[Check]:
    """`jobs`: the lives that they had; `commits`: what the services say that they have written."""
    found, written = ground.read(evidence), tuple(commits)
    drawn = {one.what for one in seen.accepted}
    every = not (forgotten.compacted or forgotten.gap)
    return [
        answered(seen),
        no_server_error(seen),
        one_outcome(evidence),
        every_kind_decided(evidence, seen),
        kept(evidence, seen),
        *([kept_series(evidence, seen)] if "series" in drawn else []),
        *([never_twice(evidence, seen, jobs)] if "run" in drawn else []),
        at_rest(evidence),
        none_given_up(evidence),
        *([] if forgotten.gap else [no_stale_owner(evidence, written), accounts_kept(evidence, written)]),
        never_double_booked(evidence),
        *ground.never_doubled(evidence, found),
        *([] if forgotten.gap else [never_started_again(evidence, found)]),
        one_machine_a_worker(evidence),
        *licences.checks(evidence),
        *stream.checks(evidence, since=forgotten.purged_at, every=every, whole=not forgotten.gap),
    ]


def answered(seen: Seen) -> Check:
    """A patient client got an answer to everything."""
    broken = [f"{one.what} {one.key} after {one.tries} tries" for one in seen.asked if not one.status]
    return Check("clients", "every request was answered in the end", len(seen.asked), tuple(broken), Harm.UNSETTLED)


def no_server_error(seen: Seen) -> Check:
    """Whoever needs somebody that is away says so; no gateway failed by itself, also not in a try that was made again."""
    claim, looked_at = "no answer was a server's error", seen.answers.total()
    return Check("clients", claim, looked_at, tuple(seen.server_errors), Harm.UNSETTLED)


def one_outcome(evidence: Evidence) -> Check:
    """Each request was decided once, and its outcome never changed; no inbox holds anything."""
    outcomes: dict[str, list[tuple[str, object]]] = defaultdict(list)
    for change in evidence.history:
        if change.key.startswith("/requests/") and isinstance(change.value, dict) and phase(change.value) in _DECIDED:
            status = change.value["status"]
            outcome = (phase(change.value), status.get("resource"))
            if not outcomes[change.key] or outcomes[change.key][-1] != outcome:
                outcomes[change.key].append(outcome)
    asked = {change.key for change in evidence.history if change.key.startswith("/requests/")}
    broken = [f"{key} came to {len(found)} outcomes" for key, found in outcomes.items() if len(found) > 1]
    broken += [f"{key} was never decided" for key in sorted(asked - outcomes.keys())]
    broken += [f"{key} still waits" for key in evidence.present if key.startswith("/inbox/")]
    return Check("etcd", "every accepted request has exactly one outcome", len(asked), tuple(broken), Harm.LOST)


def kept(evidence: Evidence, seen: Seen) -> Check:
    """What clients were told was made was made, once, and is still there or in the archive; what was refused held no seat."""
    made: Counter[str] = Counter()
    there: set[str] = set()
    held: set[str] = set()
    denied = refused(evidence, "reservation")
    for change in evidence.history:
        if not change.key.startswith("/reservations/"):
            continue
        name = change.key.removeprefix("/reservations/")
        if isinstance(change.value, dict) and phase(change.value) in HOLDING:
            held.add(name)
        if change.value is None:
            there.discard(name)
        elif name not in there:
            there.add(name)
            made[name] += 1
    wanted = [one.resource for one in seen.accepted if one.what in ("reserve", "run") and one.resource]
    broken = [f"{name} was accepted and never made" for name in wanted if not made[name] and name not in denied]
    broken += [f"{name} was made {count} times" for name, count in made.items() if count > 1]
    broken += [f"{name} was refused and given seats all the same" for name in sorted(denied & held)]
    broken += [f"{name} was made and is gone" for name in sorted(made.keys() - there - set(evidence.archived))]
    claim = "every accepted reservation was made exactly once, and is there or in the archive"
    return Check("clients", claim, len(wanted), tuple(broken), Harm.LOST)


def at_rest(evidence: Evidence) -> Check:
    """When all is over nothing is under way."""
    looked_at = sum(len(below(evidence, prefix)) for prefix in _ENDS)
    claim = "after the last fault everything comes to its end"
    return Check("etcd", claim, looked_at, tuple(under_way(evidence)), Harm.UNSETTLED)


def under_way(evidence: Evidence) -> Iterator[str]:
    """What has not come to its end. An agent's host comes and goes by itself; a series is as far as its reservations are."""
    for prefix, final in _ENDS.items():
        for name, document in below(evidence, prefix).items():
            host = prefix == "/workers/" and is_agent(document)
            if phase(document) not in final and not host:
                yield f"{prefix}{name} is {phase(document)}: {document['status'].get('reason')}"
    for name, series in below(evidence, "/series/").items():
        if phase(series) == "Pending" or series["status"].get("work"):
            yield f"/series/{name} is {phase(series)} and still worked off"
