"""Seats that were given a place and given up all the same. Pure: etcd's history in, cases out."""

from lablet_local.demo.books import HOLDING, Json, instant, phase, seats_of
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence

_STOP = "StopRequested"


def none_given_up(evidence: Evidence) -> Check:
    """No instance has ended, inside the slot as its reservation had it then, while another place waited for its seat; nor
    a failed one whose seat still had a place. Whoever asked for the end has it."""
    reservations: dict[str, Json] = {}
    ended: set[str] = set()
    looked_at = 0
    broken: list[str] = []
    for change in evidence.history:
        if change.key.startswith("/reservations/"):
            if isinstance(change.value, dict):
                reservations[change.key.removeprefix("/reservations/")] = change.value
            continue
        if not change.key.startswith("/instances/") or not isinstance(change.value, dict):
            continue
        instance = change.value
        name = str(instance["metadata"]["id"])
        if phase(instance) != "Terminated" or name in ended:
            continue
        ended.add(name)
        looked_at += 1
        reservation = reservations.get(str(instance["spec"]["reservation"]))
        if reservation is None or phase(reservation) not in HOLDING or _asked_for(instance):
            continue
        attempt, last = int(instance["status"].get("attempt", 1)), instance["status"]["history"][-1]
        failed, at = last["from"] == "Failed", instant(last["at"])
        broken += [
            f"{name} ended at {at:%H:%M} although its seat goes on at {seat.worker} until {seat.end:%H:%M}"
            for seat in seats_of(reservation)
            if seat.instance == name and (failed or seat.attempt > attempt) and at < seat.end
        ]
    return Check("etcd", "no seat that had a place was given up inside its slot", looked_at, tuple(broken), Harm.LOST)


def _asked_for(instance: Json) -> bool:
    """Whether somebody asked for the end of what has ended, since it last began anew."""
    for move in reversed(instance["status"]["history"]):
        if move.get("reason") == _STOP:
            return True
        if move.get("to") == "Pending":
            return False
    return False
