"""Counted licences: a pool may have only so many workers on. By the bookings, and by the simulators' own logs. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from lablet_local.chaos.machines import up
from lablet_local.demo.books import Json, Seat, below
from lablet_local.demo.checks import ground
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.checks.store import books
from lablet_local.demo.evidence import Evidence

HELD = "no more machines held a licence at a time than their pool has"


def checks(evidence: Evidence) -> list[Check]:
    """Empty where no pool counts its licences."""
    allowed = {
        name: int(pool["spec"]["allowedLicenses"])
        for name, pool in below(evidence, "/pools/").items()
        if pool["spec"].get("allowedLicenses") is not None
    }
    return [booked(evidence, allowed), held(evidence, allowed)] if allowed else []


def booked(evidence: Evidence, allowed: dict[str, int]) -> Check:
    """Replays the history: after no commit do the seats of an instant need more workers than the pool has licences."""
    pool_of = _pools(evidence)
    commits = 0
    broken: dict[str, str] = {}
    for revision, changed, seats in books(evidence):
        pools = {pool_of[seat.worker] for seat in changed if seat.worker in pool_of} & allowed.keys()
        commits += bool(pools)
        for pool in pools:
            ours = [seat for seat in seats if pool_of.get(seat.worker) == pool]
            for at, workers in _together(ours):
                if workers > allowed[pool]:
                    said = f"{pool} at {at}: {workers} workers of {allowed[pool]} (revision {revision})"
                    broken.setdefault(f"{pool} {at}", said)
    claim = "at no revision were more workers booked at a time than their pool has licences"
    return Check("etcd", claim, commits, tuple(broken.values()), Harm.OVERCOMMITTED)


def _together(seats: Iterable[Seat]) -> Iterable[tuple[str, int]]:
    booked = list(seats)
    for at in sorted({seat.start for seat in booked}):
        yield f"{at:%d %H:%M}", len({seat.worker for seat in booked if seat.start <= at < seat.end})


def held(evidence: Evidence, allowed: dict[str, int]) -> Check:
    """No more machines of a pool were up with a registered licence at a time than it has licences."""
    pool_of = _pools(evidence)
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for machine in evidence.machines:
        pool = pool_of.get(str(machine["name"]))
        if pool in allowed:
            spans[pool] += [(*span, str(machine["name"])) for span in licensed(ground.facts_of(machine))]
    broken = []
    for pool, found in spans.items():
        for at, _, _ in sorted(found):
            names = {name for begin, end, name in found if begin <= at < end}
            if len(names) > allowed[pool]:
                broken.append(f"{pool}: {', '.join(sorted(names))} held licences together, of {allowed[pool]}")
    return Check("simulators", HELD, sum(map(len, spans.values())), tuple(broken), Harm.OVERCOMMITTED)


def licensed(facts: Iterable[Json]) -> Iterable[tuple[float, float]]:
    """When a machine was up and its licence registered. A licence outlives the machine's stop, as its disk does."""
    told = list(facts)
    changes = [
        (float(fact["at"]), fact["fact"] == "licence.registered")
        for fact in told
        if fact["fact"] in ("licence.registered", "licence.deregistered")
    ]
    for begin, end in up(told):
        since = begin if [state for at, state in changes if at <= begin][-1:] == [True] else None
        for at, state in changes:
            if not begin < at < end:
                continue
            if state and since is None:
                since = at
            elif not state and since is not None:
                yield since, at
                since = None
        if since is not None:
            yield since, end


def _pools(evidence: Evidence) -> dict[str, str]:
    return {name: str(worker["spec"]["pool"]) for name, worker in below(evidence, "/workers/").items()}
