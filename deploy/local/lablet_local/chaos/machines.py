"""Machines by the simulators' own logs. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from lablet_local.demo.books import Json
from lablet_local.demo.checks import ground
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence

_ENDS = ("controller.started", "controller.stopped", "machine.lost", "machine.off")


def one_machine_a_worker(evidence: Evidence) -> Check:
    """No two machines of one worker were up at a time."""
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for machine in evidence.machines:
        for begin, end in up(ground.facts_of(machine)):
            spans[str(machine["name"])].append((begin, end, str(machine["id"])))
    broken = []
    for worker, found in spans.items():
        found.sort()
        for at, (_, end, one) in enumerate(found):
            broken += [
                f"{worker}: {one} and {other}" for begin, _, other in found[at + 1 :] if begin < end and other != one
            ]
    claim = "no worker had two machines at a time"
    return Check("simulators", claim, sum(map(len, spans.values())), tuple(broken), Harm.DOUBLED)


def up(facts: Iterable[Json]) -> Iterable[tuple[float, float]]:
    """From each start to its end, unix seconds."""
    begun: float | None = None
    for fact in facts:
        at = float(fact["at"])
        if begun is not None and fact["fact"] in _ENDS:
            yield begun, at
            begun = None
        if fact["fact"] == "controller.started":
            begun = at
    if begun is not None:
        yield begun, float("inf")
