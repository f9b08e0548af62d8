"""How often labs were started, by the simulators' own logs, held to what etcd's history had them started for. Pure.

Two labs of one title that run one after the other are as wrong as two at a time: whoever sits at the first loses it. An
instance starts its lab once in each attempt, and once for each time that it is asked to start again after a stop; a lab whose
machine has ended under it may be imported and started anew within an attempt. What this does not see: a start too many of a
lab that lost its machine in an attempt which ended with that loss, as it is excused once for the loss and once by the next.
"""

from collections import Counter, defaultdict

from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.checks.ground import Ground, Run
from lablet_local.demo.evidence import Evidence

_PREFIX = "/instances/"


def never_started_again(evidence: Evidence, seen: Ground) -> Check:
    """No lab was started more often than its attempts, and requests to start it again, and losses of its machine ask for."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in seen.runs:
        runs[run.title].append(run)
    wanted = _wanted(evidence)
    broken = []
    for title, found in runs.items():
        in_order = sorted(found, key=lambda run: run.begin)
        lost = sum(run.cut_off for run in in_order[:-1])
        if len(found) > wanted[title] + lost:
            places = ", ".join(run.worker for run in in_order)
            broken.append(f"{title} was started {len(found)} times ({places}), for {wanted[title]} and {lost} losses")
    claim = "no lab was started more often than its attempts and losses ask for"
    return Check("simulators", claim, len(seen.runs), tuple(broken), Harm.DOUBLED)


def _wanted(evidence: Evidence) -> Counter[str]:
    """Instance → its attempts, and how often it was asked to start its lab again, over all of its history."""
    attempts: Counter[str] = Counter()
    again: Counter[str] = Counter()
    asked: set[str] = set()
    for change in evidence.history:
        if not change.key.startswith(_PREFIX) or not isinstance(change.value, dict):
            continue
        name, status = change.key.removeprefix(_PREFIX), change.value["status"]
        attempts[name] = max(attempts[name], len(status.get("attempts") or ()))
        if not status.get("restart"):
            asked.discard(name)
        elif name not in asked:
            asked.add(name)
            again[name] += 1
    return attempts + again
