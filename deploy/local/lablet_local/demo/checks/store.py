"""What etcd itself says: nothing undecided, nothing unfinished, and at no revision a worker booked beyond what it has."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from lablet_local.demo.books import (
    FINAL,
    HOLDING,
    Json,
    Seat,
    below,
    booking,
    capacities,
    demands,
    instant,
    moves,
    overbooked,
    phase,
    seats_of,
)
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Change, Evidence

_SOURCE = "etcd"
_EVERY = 1_000_000


def checks(evidence: Evidence) -> list[Check]:
    return [_decided(evidence), _kept(evidence), _finished(evidence), never_double_booked(evidence)]


def _decided(evidence: Evidence) -> Check:
    requests = below(evidence, "/requests/")
    broken = [f"{name} is {phase(one)}" for name, one in requests.items() if phase(one) not in ("Decided", "Refused")]
    broken += [f"{key} still waits" for key in evidence.present if key.startswith("/inbox/")]
    return Check(
        _SOURCE, "every accepted request was decided, and no inbox holds anything", len(requests), tuple(broken)
    )


def _kept(evidence: Evidence) -> Check:
    there = {booking(one): one["metadata"]["id"] for one in below(evidence, "/reservations/").values()}
    broken = [
        f"{name} was answered as {reservation or 'nothing'} and is stored as {there.get(name)}"
        for name, reservation in evidence.submitted.items()
        if there.get(name) is None or (reservation and there[name] != reservation)
    ]
    return Check(_SOURCE, "every booking that was answered is stored", len(evidence.submitted), tuple(broken))


def _finished(evidence: Evidence) -> Check:
    reservations, instances = below(evidence, "/reservations/"), below(evidence, "/instances/")
    broken = [f"{booking(one)} is {phase(one)}" for one in reservations.values() if phase(one) not in FINAL]
    broken += [f"{name} is {phase(one)}" for name, one in instances.items() if phase(one) != "Terminated"]
    return Check(
        _SOURCE,
        "every reservation and every instance reached its end",
        len(reservations) + len(instances),
        tuple(broken),
    )


def never_double_booked(evidence: Evidence) -> Check:
    """Replays the history: after each commit of a reservation no worker it uses may be booked beyond its capacity."""
    needs, offered = demands(evidence), capacities(evidence)
    broken: dict[tuple[str, datetime, str], str] = {}
    commits = 0
    for revision, changed, held in books(evidence):
        commits += 1
        for worker in {seat.worker for seat in changed}:
            there = [seat for seat in held if seat.worker == worker]
            if not there:
                continue
            if worker not in offered:
                broken[worker, there[0].start, "unknown"] = f"{worker} is no worker of the pool"
                continue
            for at, what in overbooked(there, needs, offered[worker]):
                broken.setdefault((worker, at, what), f"{worker} at {at:%H:%M}: {what} (revision {revision})")
    claim = "at no revision was a worker booked beyond its capacity or a port given twice"
    return Check(_SOURCE, claim, commits, tuple(broken.values()), Harm.OVERCOMMITTED)


def books(evidence: Evidence) -> Iterator[tuple[int, list[Seat], list[Seat]]]:
    """After each commit of reservations its revision, the seats of those that it changed, and all that are held. A seat takes
    nothing before it came to its worker (a healed one comes inside its slot), and nothing any more once its lab is proven
    gone: its instance is Terminated, or has failed and was released."""
    held: dict[str, list[Seat]] = {}
    by_revision: dict[int, list[tuple[str, list[Seat]]]] = {}
    gone, arrivals = _Gone(), _Arrivals()
    ended: dict[int, list[Change]] = {}
    for change in evidence.history:
        if change.key.startswith("/instances/"):
            ended.setdefault(change.revision, []).append(change)
        if change.key.startswith("/reservations/"):
            value = change.value
            holds = isinstance(value, dict) and phase(value) in HOLDING
            seats = arrivals.of(value) if isinstance(value, dict) and holds else []
            by_revision.setdefault(change.revision, []).append((change.key, seats))
    for revision in sorted(by_revision.keys() | ended.keys()):
        for change in ended.get(revision, ()):
            gone.note(change)
        if revision not in by_revision:
            continue
        changed = by_revision[revision]
        held |= dict(changed)
        present = [seat for seats in held.values() for seat in seats if not gone.has(seat)]
        yield revision, [seat for _, seats in changed for seat in seats], present


class _Arrivals:
    """When each seat came to the worker where it is, by the moves that its reservation tells. Commits come in their order."""

    def __init__(self) -> None:
        self._since: dict[str, dict[tuple[int, str, int], datetime]] = {}

    def of(self, reservation: Json) -> list[Seat]:
        """Its seats, from the instant on from which they can take anything."""
        told = [instant(move["at"]) for move in moves(reservation) if move.get("at")]
        before = self._since.get(str(reservation["metadata"]["id"]), {})
        now: dict[tuple[int, str, int], datetime] = {}
        seats = []
        for seat in seats_of(reservation):
            place = (seat.seat, seat.worker, seat.attempt)
            now[place] = max(seat.start, before.get(place) or max(told, default=seat.start))
            if now[place] < seat.end:
                seats.append(replace(seat, start=now[place]))
        self._since[str(reservation["metadata"]["id"])] = now
        return seats


class _Gone:
    """Which labs are proven gone, by the attempt that they were."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}

    def note(self, change: Change) -> None:
        name = change.key.removeprefix("/instances/")
        if not isinstance(change.value, dict):
            return
        status = change.value["status"]
        if status["phase"] == "Terminated":  # no further attempt can come
            self._attempts[name] = _EVERY
        elif status["phase"] == "Failed" and status.get("released"):
            self._attempts[name] = int(status.get("attempt", 1))
        else:
            self._attempts.pop(name, None)

    def has(self, seat: Seat) -> bool:
        return self._attempts.get(seat.instance, 0) >= seat.attempt
