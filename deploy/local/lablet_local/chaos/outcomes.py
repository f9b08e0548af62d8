"""Every request that a client was told is accepted, or refused, whatever it asked, held to what etcd kept of it. Pure.

A request is found again by the rule of idempotency, which is written out here once more: its event's id is the UUIDv5 of
tenant, principal, route and the client's key (`lablet_common.requests.request_key`).
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from lablet_local.chaos.load import Asked, Seen
from lablet_local.demo.books import Json, phase
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence

_NAMESPACE = UUID("6f4bb5a5-8a0c-5a1f-9d7f-3b0a6c1d2e40")
_FINAL = ("Decided", "Refused")
_DONE, _REFUSED = (200, 201), 400


@dataclass(slots=True)
class _Stored:
    """One request as etcd had it over time."""

    keys: set[str] = field(default_factory=set)
    outcomes: list[tuple[str, object]] = field(default_factory=list)


def every_kind_decided(evidence: Evidence, seen: Seen) -> Check:
    """Each that was accepted was stored, and came to one final outcome; what was answered as done is not kept as refused, nor
    what was answered as refused as done: a client that asks again, as it got no answer, must not be told otherwise."""
    stored: dict[str, _Stored] = defaultdict(_Stored)
    askers: set[tuple[str, str]] = set()
    undecidable: set[str] = set()
    for key, request in _requests(evidence):
        spec = request["spec"]
        askers.add((str(request["metadata"]["tenant"]), str(spec["principal"])))
        one = stored[str(spec["eventId"])]
        one.keys.add(key)
        if str((request["status"].get("problem") or {}).get("type", "")).endswith("/undecidable"):
            undecidable.add(f"{key} could not be decided by its owner, who failed at it")
        outcome = (phase(request), request["status"].get("resource"))
        if phase(request) in _FINAL and (not one.outcomes or one.outcomes[-1] != outcome):
            one.outcomes.append(outcome)
    wanted = [one for one in seen.asked if (one.route or one.event) and one.status]
    broken = sorted(undecidable)
    for asked in wanted:
        ids = {asked.event} if asked.event else {event_id(tenant, principal, asked) for tenant, principal in askers}
        found = [stored[one] for one in ids & stored.keys()]
        if said := _against(asked, found):
            broken.append(f"{asked.what} {asked.key}, answered with {asked.status}, {said}")
    claim = "every answered request of every kind has exactly one final outcome, the one that was told"
    return Check("clients", claim, len(wanted), tuple(broken), Harm.LOST)


def refused(evidence: Evidence, kind: str) -> set[str]:
    """Ids of what somebody asked to be made of that kind, and was refused; that a change of one was refused says nothing of
    it."""
    wanted = f"io.lablet.{kind}.requested.v1"
    return {
        str(one["spec"]["subject"]).partition("/")[2]
        for one in dict(_requests(evidence)).values()
        if phase(one) == "Refused" and one["spec"].get("type") == wanted
    }


def event_id(tenant: str, principal: str, asked: Asked) -> str:
    """What the request that was asked for is known by."""
    return str(uuid5(_NAMESPACE, json.dumps([tenant, principal, asked.route, asked.key])))


def _requests(evidence: Evidence) -> list[tuple[str, Json]]:
    """Their states in the order of their commits; the present ones last, so that none is missed that history lacks."""
    told = [(change.key, change.value) for change in evidence.history]
    return [
        (key, value)
        for key, value in [*told, *evidence.present.items()]
        if key.startswith("/requests/") and isinstance(value, dict)
    ]


def _against(asked: Asked, found: list[_Stored]) -> str:
    if not found:
        return "" if asked.status >= _REFUSED else "never reached etcd"
    if len(found) > 1 or len(found[0].keys) > 1:
        return "stands there more than once"
    outcomes = found[0].outcomes
    if not outcomes:
        return "was never decided"
    if len(outcomes) > 1:
        return f"came to {len(outcomes)} outcomes"
    if asked.status in _DONE and outcomes[0][0] == "Refused":
        return "was refused"
    if asked.status >= _REFUSED and outcomes[0][0] == "Decided":
        return "was done"
    return ""
