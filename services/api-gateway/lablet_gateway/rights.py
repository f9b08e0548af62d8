"""Who may do what: one row per route, one column per role. What has no row is refused.

`ALL` means every resource of the caller's tenant (and what all may read: the tenant `public`'s definitions), `OWN` only
what is the caller's own: reservations that they own or whose roster names them, and the seats that are theirs. Nobody,
whatever their role, sees another tenant's resources. The fleet (templates, pools, workers, dead letters) belongs to the
tenant `default`: a row with `fleet=True` also needs that tenant.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from lablet_gateway.identity import Principal, Role

PREFIX = "/api/v1"
FLEET_TENANT = "default"
PUBLIC_TENANT = "public"


class Scope(IntEnum):
    NONE = 0
    OWN = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class Right:
    """One row."""

    admin: Scope
    operator: Scope
    instructor: Scope
    learner: Scope
    fleet: bool = False
    machine: Scope = Scope.NONE
    host: Scope = Scope.NONE

    def scope(self, principal: Principal) -> Scope:
        """What the principal may reach through this route."""
        if self.fleet and principal.tenant != FLEET_TENANT:
            return Scope.NONE
        by_role = {
            Role.ADMIN: self.admin,
            Role.OPERATOR: self.operator,
            Role.INSTRUCTOR: self.instructor,
            Role.LEARNER: self.learner,
            Role.MACHINE: self.machine,
            Role.HOST: self.host,
        }
        return by_role[principal.role]


_NO, _OWN, _ALL = Scope.NONE, Scope.OWN, Scope.ALL
_EVERYBODY = Right(_ALL, _ALL, _ALL, _ALL, machine=_ALL)
_OWN_SEATS = Right(_ALL, _ALL, _ALL, _OWN, machine=_ALL)
_STAFF = Right(_ALL, _ALL, _ALL, _NO)
_ASSESSORS = Right(_ALL, _ALL, _ALL, _NO, machine=_ALL)
_OPERATIONS = Right(_ALL, _ALL, _NO, _NO, fleet=True)
_JOINING = Right(_ALL, _ALL, _NO, _NO, fleet=True, host=_OWN)
_ADMIN = Right(_ALL, _NO, _NO, _NO)
_ADMIN_FLEET = Right(_ALL, _NO, _NO, _NO, fleet=True)
_AUTHORS = Right(_ALL, _NO, _ALL, _NO, machine=_ALL)
_TEACHERS = Right(_ALL, _NO, _ALL, _NO)
_BOOKING = Right(_ALL, _ALL, _ALL, _OWN, machine=_ALL)
_SUBSCRIBERS = Right(_ALL, _ALL, _OWN, _NO, machine=_OWN)
_PEOPLE = Right(_OWN, _OWN, _OWN, _OWN)
_SEAT_HOLDER = Right(_ALL, _OWN, _OWN, _OWN)

RIGHTS: Mapping[tuple[str, str], Right] = {
    (method, PREFIX + path): right
    for method, path, right in (
        ("GET", "/whoami", _EVERYBODY),
        ("GET", "/version", _EVERYBODY),
        ("GET", "/clock", _EVERYBODY),
        ("GET", "/requests/{request_id}", _OWN_SEATS),
        ("POST", "/definitions", _AUTHORS),
        ("GET", "/definitions", _EVERYBODY),
        ("GET", "/definitions/{name}", _EVERYBODY),
        ("GET", "/definitions/{name}/versions/{version}", _EVERYBODY),
        ("GET", "/definitions/{name}/versions/{version}/topology", _ASSESSORS),
        ("GET", "/definitions/{name}/versions/{version}/graph", _EVERYBODY),
        ("POST", "/definitions/{name}/versions/{version}/deprecate", _AUTHORS),
        ("POST", "/definitions/{name}/versions/{version}/approve", _OPERATIONS),
        ("POST", "/definitions/{name}/versions/{version}/archive", _AUTHORS),
        ("POST", "/reservations", _BOOKING),
        ("POST", "/reservations:simulate", _BOOKING),
        ("GET", "/reservations", _OWN_SEATS),
        ("GET", "/reservations/{reservation_id}", _OWN_SEATS),
        ("PATCH", "/reservations/{reservation_id}", _BOOKING),
        ("DELETE", "/reservations/{reservation_id}", _BOOKING),
        ("POST", "/reservations/{reservation_id}:confirm", _BOOKING),
        ("GET", "/reservations/{reservation_id}/explanation", _OWN_SEATS),
        ("GET", "/reservations/{reservation_id}/trace", _STAFF),
        ("POST", "/reservations/{reservation_id}/claims", _BOOKING),
        ("DELETE", "/reservations/{reservation_id}/claims", _BOOKING),
        ("POST", "/claims/{code}", _PEOPLE),
        ("POST", "/series", _ASSESSORS),
        ("GET", "/series", _ASSESSORS),
        ("GET", "/series/{series_id}", _ASSESSORS),
        ("PATCH", "/series/{series_id}", _ASSESSORS),
        ("DELETE", "/series/{series_id}", _ASSESSORS),
        ("GET", "/instances", _OWN_SEATS),
        ("GET", "/instances/{instance_id}", _OWN_SEATS),
        ("POST", "/instances/{instance_id}/start", _OWN_SEATS),
        ("POST", "/instances/{instance_id}/stop", _OWN_SEATS),
        ("POST", "/instances/{instance_id}/collect", _OWN_SEATS),
        ("POST", "/instances/{instance_id}/retry", _OWN_SEATS),
        ("GET", "/instances/{instance_id}/access", _SEAT_HOLDER),
        ("GET", "/instances/{instance_id}/pod", _ASSESSORS),
        ("GET", "/instances/{instance_id}/artifacts", _OWN_SEATS),
        ("GET", "/instances/{instance_id}/output", _OWN_SEATS),
        ("DELETE", "/instances/{instance_id}/artifacts", _TEACHERS),
        ("GET", "/artifacts", _ASSESSORS),
        ("GET", "/artifacts/{digest}", _OWN_SEATS),
        ("GET", "/artifacts/{digest}/link", _OWN_SEATS),
        ("DELETE", "/artifacts/{digest}", _TEACHERS),
        ("GET", "/workers", _STAFF),
        ("GET", "/workers/{worker}", _STAFF),
        ("GET", "/workers/{worker}/calendar", _STAFF),
        ("GET", "/workers/{worker}/load", _STAFF),
        ("POST", "/workers/{worker}/register", _JOINING),
        ("POST", "/workers/{worker}/drain", _OPERATIONS),
        ("POST", "/workers/{worker}/cancel-drain", _OPERATIONS),
        ("POST", "/workers/{worker}/cordon", _OPERATIONS),
        ("POST", "/workers/{worker}/uncordon", _OPERATIONS),
        ("POST", "/workers/{worker}/replace", _OPERATIONS),
        ("GET", "/pools", _STAFF),
        ("GET", "/pools/{name}", _STAFF),
        ("GET", "/pools/{name}/calendar", _STAFF),
        ("POST", "/pools/{name}/replace", _OPERATIONS),
        ("POST", "/pools/{name}/cancel-replace", _OPERATIONS),
        ("POST", "/pools/{name}:optimise", _OPERATIONS),
        ("PUT", "/pools/{name}", _ADMIN_FLEET),
        ("PATCH", "/pools/{name}", _ADMIN_FLEET),
        ("DELETE", "/pools/{name}", _ADMIN_FLEET),
        ("GET", "/templates", _STAFF),
        ("GET", "/templates/{name}", _STAFF),
        ("PUT", "/templates/{name}", _ADMIN_FLEET),
        ("PATCH", "/templates/{name}", _ADMIN_FLEET),
        ("DELETE", "/templates/{name}", _ADMIN_FLEET),
        ("POST", "/events", _OWN_SEATS),
        ("GET", "/events", _OWN_SEATS),
        ("GET", "/events/stream", _OWN_SEATS),
        ("GET", "/mesh", _OPERATIONS),
        ("GET", "/dead-letters", _OPERATIONS),
        ("GET", "/dead-letters/{sequence}", _OPERATIONS),
        ("POST", "/dead-letters/{sequence}/replay", _OPERATIONS),
        ("DELETE", "/dead-letters/{sequence}", _OPERATIONS),
        ("DELETE", "/dead-letters", _OPERATIONS),
        ("POST", "/subscriptions", _SUBSCRIBERS),
        ("GET", "/subscriptions", _SUBSCRIBERS),
        ("GET", "/subscriptions/{name}", _SUBSCRIBERS),
        ("PATCH", "/subscriptions/{name}", _SUBSCRIBERS),
        ("DELETE", "/subscriptions/{name}", _SUBSCRIBERS),
        ("POST", "/subscriptions/{name}/rotate-secret", _SUBSCRIBERS),
        ("POST", "/subscriptions/{name}/redeliver", _SUBSCRIBERS),
        ("GET", "/quotas/{tenant}", _ADMIN_FLEET),
        ("PUT", "/quotas/{tenant}", _ADMIN_FLEET),
        ("GET", "/usage", Right(_ALL, _ALL, _ALL, _NO)),
        ("GET", "/audit", _ADMIN),
        ("GET", "/audit/{request_id}", _ADMIN),
        ("POST", "/keys", _ADMIN),
        ("GET", "/keys", _ADMIN),
        ("GET", "/keys/{key_id}", _ADMIN),
        ("DELETE", "/keys/{key_id}", _ADMIN),
    )
}

SCHEMAS = f"{PREFIX}/schemas"
SIGN_IN = f"{PREFIX}/sign-in"
OPEN = frozenset({
    ("GET", "/livez"), ("GET", "/readyz"), ("GET", SIGN_IN), ("GET", SCHEMAS), ("GET", f"{SCHEMAS}/{{name}}"),
})  # fmt: skip
"""Routes that need no token."""

ROUTE_OF_INTENT: Mapping[str, tuple[str, str]] = {
    f"io.lablet.{intent}.v1": (method, PREFIX + path)
    for intent, method, path in (
        ("definition.publish.requested", "POST", "/definitions"),
        ("definition.deprecate.requested", "POST", "/definitions/{name}/versions/{version}/deprecate"),
        ("definition.approve.requested", "POST", "/definitions/{name}/versions/{version}/approve"),
        ("definition.archive.requested", "POST", "/definitions/{name}/versions/{version}/archive"),
        ("artifact.delete.requested", "DELETE", "/artifacts/{digest}"),
        ("reservation.requested", "POST", "/reservations"),
        ("reservation.simulate.requested", "POST", "/reservations:simulate"),
        ("reservation.confirm.requested", "POST", "/reservations/{reservation_id}:confirm"),
        ("reservation.change.requested", "PATCH", "/reservations/{reservation_id}"),
        ("reservation.cancel.requested", "DELETE", "/reservations/{reservation_id}"),
        ("reservation.open-claims.requested", "POST", "/reservations/{reservation_id}/claims"),
        ("reservation.claim.requested", "PATCH", "/reservations/{reservation_id}"),
        ("series.requested", "POST", "/series"),
        ("series.change.requested", "PATCH", "/series/{series_id}"),
        ("series.cancel.requested", "DELETE", "/series/{series_id}"),
        ("instance.start.requested", "POST", "/instances/{instance_id}/start"),
        ("instance.stop.requested", "POST", "/instances/{instance_id}/stop"),
        ("instance.collect.requested", "POST", "/instances/{instance_id}/collect"),
        ("instance.retry.requested", "POST", "/instances/{instance_id}/retry"),
        ("assessment.collection.completed", "GET", "/instances/{instance_id}/pod"),
        ("assessment.grading.completed", "GET", "/instances/{instance_id}/pod"),
        ("worker.register.requested", "POST", "/workers/{worker}/register"),
        ("worker.drain.requested", "POST", "/workers/{worker}/drain"),
        ("worker.drain-cancel.requested", "POST", "/workers/{worker}/cancel-drain"),
        ("worker.cordon.requested", "POST", "/workers/{worker}/cordon"),
        ("worker.uncordon.requested", "POST", "/workers/{worker}/uncordon"),
        ("worker.replace.requested", "POST", "/workers/{worker}/replace"),
        ("pool.optimise.requested", "POST", "/pools/{name}:optimise"),
        ("pool.apply.requested", "PUT", "/pools/{name}"),
        ("pool.delete.requested", "DELETE", "/pools/{name}"),
        ("pool.replace.requested", "POST", "/pools/{name}/replace"),
        ("pool.replace-cancel.requested", "POST", "/pools/{name}/cancel-replace"),
        ("template.apply.requested", "PUT", "/templates/{name}"),
        ("template.delete.requested", "DELETE", "/templates/{name}"),
    )
}
"""An intent that comes as an event needs the same right as the route that asks for the same."""


def approves(principal: Principal) -> bool:
    """What it publishes may run on agents at once: it may approve."""
    route = ROUTE_OF_INTENT["io.lablet.definition.approve.requested.v1"]
    return scope_of(*route, principal) is Scope.ALL


_ALWAYS = frozenset({"whoami", "version", "clock", "requests"})
"""What a key reads whatever its scopes: who it is, and the outcomes of its own asking."""


def key_scope(method: str, route: str) -> str | None:
    """The word in an API key's scopes that stands for a route: `reservations:read`; None: none is needed."""
    area = re.split(r"[/:]", route.removeprefix(f"{PREFIX}/"), maxsplit=1)[0]
    if method == "GET":
        return None if area in _ALWAYS else f"{area}:read"
    return f"{area}:write"


KEY_SCOPES = frozenset(scope for route in RIGHTS if (scope := key_scope(*route)) is not None)
"""What keys can be narrowed to. Who may write may also read."""


def scopes_beyond(scopes: Iterable[str], principal: Principal) -> list[str]:
    """Those of the scopes that would give such a principal no right at all."""
    useful = set()
    for (method, path), right in RIGHTS.items():
        if right.scope(principal) is not Scope.NONE:
            useful.add(key_scope(method, path))
    return sorted(set(scopes) - useful)


def scope_of(method: str, route: str, principal: Principal) -> Scope:
    """The principal's reach through a route; NONE for one without a row, or beyond the scopes of its key."""
    right = RIGHTS.get((method, route))
    if right is None or missing_scope(method, route, principal) is not None:
        return Scope.NONE
    return right.scope(principal)


def missing_scope(method: str, route: str, principal: Principal) -> str | None:
    """The scope that the principal's key lacks for this route."""
    needed = key_scope(method, route)
    if principal.scopes is None or needed is None or needed in principal.scopes:
        return None
    return None if needed.replace(":read", ":write") in principal.scopes else needed
