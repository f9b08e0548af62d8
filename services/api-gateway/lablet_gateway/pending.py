"""Reservations that exist already, although nobody has decided on them yet, and seats seen through their reservation.

An accepted reservation is found from the moment of its acceptance, on every replica: first the resource is read, then
the request that would make it, then (when that has been decided in between) the resource again. It is never 404.
"""

from typing import Any, cast

from lablet_common.intents import ReservationRequested
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, REQUEST, RESERVATION
from lablet_common.resources.model import Metadata, Move
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.reservation import Reservation, ReservationPhase, ReservationStatus
from lablet_gateway import problems, reads
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts
from lablet_gateway.reads import Consistency

_REQUESTED = "io.lablet.reservation.requested.v1"


def request_id_of(reservation_id: str) -> str:
    """The request that makes a reservation has the same 26 characters."""
    return f"req-{reservation_id.removeprefix('rsv-')}"


async def reservation(
    parts: Parts, tenant: str, reservation_id: str, consistency: Consistency = "linearizable"
) -> Reservation | None:
    """The reservation as stored, else as its request promises it. The caller checks tenant and rights."""
    found = await reads.get(parts, RESERVATION, reservation_id, consistency=consistency)
    if found is not None:
        return cast("Reservation", found)
    request = cast("Request | None", await reads.get(parts, REQUEST, request_id_of(reservation_id), tenant))
    if request is None or request.spec.type != _REQUESTED:
        return None
    if request.status.phase is not RequestPhase.ACCEPTED:
        found = await reads.get(parts, RESERVATION, reservation_id)
        if found is not None:
            return cast("Reservation", found)
        if request.status.phase is RequestPhase.DECIDED:
            return None  # it was made, has ended and is archived
    return promised(request)


async def instance(
    parts: Parts, caller: Caller, instance_id: str, consistency: Consistency = "linearizable"
) -> Instance:
    """The instance, if the caller may see it. Raises 404."""
    found = cast("Instance | None", await reads.get(parts, INSTANCE, instance_id, consistency=consistency))
    if found is None:
        raise problems.unknown(INSTANCE.name, instance_id)
    owner = await reads.get(parts, RESERVATION, found.spec.reservation, consistency=consistency)
    if not caller.sees_instance(found, cast("Reservation | None", owner)):
        raise problems.unknown(INSTANCE.name, instance_id)
    return found


def promised(request: Request) -> Reservation:
    """The reservation that an undecided (or refused) request stands for: Pending, or Rejected with the reason."""
    asked = ReservationRequested.model_validate(request.spec.data)
    metadata = Metadata(
        id=asked.id,
        uid=request.metadata.uid,
        tenant=request.tenant,
        owner=asked.owner,
        labels=asked.labels,
        created_at=request.spec.received_at,
        resource_version=request.metadata.resource_version,
        correlation_id=request.metadata.correlation_id,
    )
    return Reservation(metadata=metadata, spec=asked.spec(), status=_status(request))


def _status(request: Request) -> ReservationStatus:
    if request.status.phase is RequestPhase.ACCEPTED:
        return ReservationStatus(
            phase=ReservationPhase.PENDING, reason="Accepted", message="accepted, waits for the scheduler's decision"
        )
    last = request.status.history[-1]
    move = Move.model_validate(
        {"from": ReservationPhase.PENDING, "to": ReservationPhase.REJECTED, "at": last.at, "by": last.by,
         "reason": last.reason, "message": last.message}
    )  # fmt: skip
    details: dict[str, Any] = {"reason": request.status.reason, "message": request.status.message}
    return ReservationStatus(phase=ReservationPhase.REJECTED, history=(move,), **details)
