"""Series under faults: each has one outcome, and each of its dates one reservation. Pure: etcd's history in, cases out."""

from collections import defaultdict

from lablet_local.chaos.load import Seen
from lablet_local.chaos.outcomes import refused
from lablet_local.demo.books import Json, below, phase
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence

_OUTCOMES = ("Placed", "Refused")
_STANDING = ("held", "placed")


def kept_series(evidence: Evidence, seen: Seen) -> Check:
    """What clients were told was booked was booked or refused, once; a date that was given a reservation has exactly one,
    which says so itself, and no other reservation says that it is this date."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    for change in evidence.history:
        if change.key.startswith("/series/") and isinstance(change.value, dict) and phase(change.value) in _OUTCOMES:
            name, outcome = change.key.removeprefix("/series/"), phase(change.value)
            if not outcomes[name] or outcomes[name][-1] != outcome:
                outcomes[name].append(outcome)
    denied = refused(evidence, "series")
    wanted = [one.resource for one in seen.accepted if one.what == "series" and one.resource]
    broken = [f"{name} was accepted and never booked" for name in wanted if not outcomes[name] and name not in denied]
    broken += [f"{name} came to {' and '.join(found)}" for name, found in outcomes.items() if len(found) > 1]
    broken += _dates(evidence)
    return Check("etcd", "every date of a series has exactly one reservation", len(wanted), tuple(broken), Harm.LOST)


def _dates(evidence: Evidence) -> list[str]:
    of_date: dict[tuple[str, str], set[str]] = defaultdict(set)
    for change in evidence.history:
        if change.key.startswith("/reservations/") and isinstance(change.value, dict):
            spec: Json = change.value["spec"]
            if spec.get("series"):
                of_date[str(spec["series"]), str(spec["occurrence"])].add(change.key.removeprefix("/reservations/"))
    broken = [
        f"{name} has {', '.join(sorted(found))} for {date}" for (name, date), found in of_date.items() if len(found) > 1
    ]
    for name, series in below(evidence, "/series/").items():
        for one in series["status"].get("occurrences") or ():
            made = of_date.get((name, str(one["date"])), set())
            if one["state"] in _STANDING and {str(one.get("reservation"))} != made:
                broken.append(
                    f"{name} says that {one['date']} is {one.get('reservation')}, and {sorted(made)} was made"
                )
    return broken
