"""Which published events a caller sees, and what of them: the rights of `caller` applied to the event log.

The tenant's events, those of the fleet (staff), public definitions; a learner those of own reservations, seats and
requests, and of a class that they only sit in their own seats. What cannot be judged from the event, the cache or what
was made known is not shown.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from lablet_common.resources import schema
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import KEY, RESERVATION
from lablet_common.resources.model import Resource
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Reservation
from lablet_gateway.caller import Caller
from lablet_gateway.identity import Role
from lablet_gateway.parts import Parts
from lablet_gateway.rights import PUBLIC_TENANT, Scope
from lablet_gateway.streams import Entry, data_in

_log = logging.getLogger(__name__)
FLEET = frozenset({"pool", "template", "worker", "scaling"})
"""Kinds that belong to no tenant's people."""
_STAFF = frozenset({Role.ADMIN, Role.OPERATOR, Role.INSTRUCTOR})
_BEFORE = "previousPhase"
_OWN: Mapping[str, type[Resource[Any, Any]]] = {"reservation": Reservation, "instance": Instance, "request": Request}
"""Kinds of which people see what is theirs."""


def hears(role: str, kind: str) -> bool:
    """Whether anybody of the role hears of the kind at all: machines and learners nothing of the fleet, and of keys only
    admins."""
    if kind == KEY.name:
        return role == Role.ADMIN
    return kind not in FLEET or role in _STAFF


class CallersSight:
    """Gives of each event what the caller sees; None: nothing."""

    def __init__(self, parts: Parts, caller: Caller) -> None:
        self._parts = parts
        self._caller = caller
        self._known: dict[str, Reservation] = {}

    def know(self, reservation: Reservation | None) -> None:
        """One that may have left the cache: its seats can be judged by it."""
        if reservation is not None:
            self._known[reservation.id] = reservation

    def __call__(self, entry: Entry) -> Entry | None:
        caller = self._caller
        if not hears(caller.principal.role, entry.kind):
            return None
        if entry.kind in FLEET:
            return entry
        if entry.kind == "definition":
            return entry if entry.tenant in (caller.tenant, PUBLIC_TENANT) else None
        if entry.tenant != caller.tenant:
            return None
        return entry if caller.scope is Scope.ALL else self._own(entry)

    def _own(self, entry: Entry) -> Entry | None:
        try:
            return self._own_kind(entry)
        except ValueError as error:  # of a later release, say
            _log.warning("an event cannot be judged", extra={"event": entry.origin[1], "cause": str(error)})
            return None

    def _own_kind(self, entry: Entry) -> Entry | None:
        match entry.kind:
            case "reservation":
                return self._own_reservation(entry, _resource_in(entry.frame, entry.kind))
            case "instance":
                instance = _resource_in(entry.frame, entry.kind)
                if instance is None:
                    return None
                name = instance.spec.reservation
                owner = self._known.get(name) or self._parts.caches[RESERVATION].get(name)
                reservation = owner if isinstance(owner, Reservation) else None
                return entry if self._caller.sees_instance(instance, reservation) else None
            case "request":
                request = _resource_in(entry.frame, entry.kind)
                return entry if request is not None and self._caller.sees_request(request) else None
            case _:
                return None

    def _own_reservation(self, entry: Entry, told: Reservation | None) -> Entry | None:
        reservation = told or self._parts.caches[RESERVATION].get(entry.id)
        if not isinstance(reservation, Reservation) or not self._caller.sees_reservation(reservation):
            return None
        shown = self._caller.shown(reservation)
        if told is None or shown is reservation:
            return entry
        before = {_BEFORE: entry.data[_BEFORE]} if _BEFORE in entry.data else {}
        return entry.telling(shown.to_dict() | before)


@lru_cache(maxsize=256)
def _resource_in(frame: bytes, kind: str) -> Any:
    """Read once for all who look at it in turn: a class of three hundred would read each event three hundred times. None
    where the event carries no resource."""
    data = {name: value for name, value in data_in(frame).items() if name != _BEFORE}
    return schema.of_document(_OWN[kind], data) if data else None
