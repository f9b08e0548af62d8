"""The caller of one request and what is theirs: the rights table applied to a route, then to each resource.

What the caller may not see is answered like what is not there (404); what they may see but not change is 403.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import Request

from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.model import Resource
from lablet_common.resources.request import Request as Asked
from lablet_common.resources.reservation import Reservation
from lablet_gateway import problems, seats
from lablet_gateway.identity import Principal
from lablet_gateway.rights import PUBLIC_TENANT, ROUTE_OF_INTENT, Scope, missing_scope, scope_of

R = TypeVar("R", bound=Resource[Any, Any])
_BEARER = HTTPBearer(auto_error=False, description="A token of the mesh, or of the identity provider")


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal with the reach that the present route gives."""

    principal: Principal
    scope: Scope

    @property
    def name(self) -> str:
        return self.principal.name

    @property
    def tenant(self) -> str:
        return self.principal.tenant

    def sees(self, resource: Resource[Any, Any]) -> bool:
        """For kinds that need no second look: tenant, then owner. Instances need their reservation: `sees_instance`."""
        if isinstance(resource, Reservation):
            return self.sees_reservation(resource)
        if isinstance(resource, Definition):
            return resource.tenant in (self.tenant, PUBLIC_TENANT)
        if resource.tenant != self.tenant:
            return False
        return self.scope is Scope.ALL or resource.metadata.owner == self.name

    def sees_reservation(self, reservation: Reservation) -> bool:
        if reservation.tenant != self.tenant:
            return False
        return self.scope is Scope.ALL or self.owns(reservation) or self.is_on_roster(reservation)

    def sees_instance(self, instance: Instance, reservation: Reservation | None) -> bool:
        """A seat is its user's and the reservation owner's; a seat without a roster entry is the owner's."""
        if instance.tenant != self.tenant:
            return False
        if self.scope is Scope.ALL:
            return True
        if reservation is None:
            return instance.metadata.owner == self.name
        return self.owns(reservation) or self.is_on_roster(reservation, instance.spec.seat)

    def owns(self, resource: Resource[Any, Any]) -> bool:
        return resource.tenant == self.tenant and resource.metadata.owner == self.name

    def is_on_roster(self, reservation: Reservation, seat: int | None = None) -> bool:
        """For any seat, or for this one."""
        return any(entry.user == self.name for entry in reservation.spec.roster if seat is None or entry.seat == seat)

    def only_sits_in(self, reservation: Reservation) -> bool:
        """A seat of it is the caller's, and nothing else of it."""
        return self.scope is not Scope.ALL and not self.owns(reservation) and self.is_on_roster(reservation)

    def shown(self, resource: R) -> R:
        """The resource as the caller sees it: of a class that they only sit in, their own seats."""
        if not isinstance(resource, Reservation) or self.scope is Scope.ALL or self.owns(resource):
            return resource
        return cast("R", seats.only_of(self.name, resource))

    def told(self, resource: R) -> R | None:
        """What of it the caller hears as an outcome; None for what is not theirs to see (any more)."""
        return self.shown(resource) if self.sees(resource) else None

    def may_change(self, resource: Resource[Any, Any]) -> None:
        """Raises 403 unless the whole tenant is in reach or the resource is the caller's own."""
        if self.scope is not Scope.ALL and not self.owns(resource):
            raise problems.FORBIDDEN(f"{resource.kind.lower()} {resource.id} can be changed by its owner only")

    def asking(self, intent_type: str) -> "Caller":
        """The same caller with the reach that asking for this intent gives. Raises 403."""
        method, route = ROUTE_OF_INTENT[intent_type]
        scope = scope_of(method, route, self.principal)
        if scope is Scope.NONE:
            lacks = missing_scope(method, route, self.principal)
            words = (
                f"the key lacks the scope {lacks}" if lacks else f"the role {self.principal.role} may not ask for it"
            )
            raise problems.FORBIDDEN(f"{intent_type}: {words}")
        return replace(self, scope=scope)

    def sees_request(self, request: Asked) -> bool:
        return request.tenant == self.tenant and (self.scope is Scope.ALL or request.spec.principal == self.name)


async def authorise(request: Request, _: Annotated[object, Security(_BEARER)]) -> Caller:
    """The caller, whom the authentication middleware has proven, with the right of the matched route's row."""
    principal: Principal = request.scope["lablet.principal"]
    route = request.scope["route"].path
    scope = scope_of(request.method, route, principal)
    if scope is Scope.NONE:
        if lacks := missing_scope(request.method, route, principal):
            raise problems.FORBIDDEN(f"the key lacks the scope {lacks}", scope=lacks)
        raise problems.FORBIDDEN(f"the role {principal.role} of tenant {principal.tenant} has no right to this")
    return Caller(principal, scope)


WithCaller = Annotated[Caller, Depends(authorise)]
