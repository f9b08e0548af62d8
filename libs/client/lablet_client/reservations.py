"""Reservations: book, change, confirm, cancel, and ask why."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from lablet_client.collection import Collection
from lablet_client.errors import TimedOut, refusal
from lablet_client.requests import WAIT, Requests, request_id_of, settle
from lablet_common.intents import ReservationChange, ReservationCreate, Simulation, SimulationCreate
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Explanation, Reservation, ReservationPhase, RosterEntry


class Reservations(Collection[Reservation]):
    """`/reservations`."""

    path = "/reservations"
    model = Reservation

    async def create(self, body: ReservationCreate, *, wait: float = WAIT, key: str | None = None) -> Reservation:
        """Books seats and waits up to `wait` seconds for the decision: the reservation comes back `Scheduled`, `Held` or
        `Waitlisted`, or still `Pending` when it took longer. Raises `Conflict` with its `explanation` when it was
        rejected, `Invalid` naming the fields when it could never be decided. The same `key` gives the same answer."""
        answer = await self._transport.call("POST", self.path, body=body.to_dict(), wait=wait, key=key)
        document = answer.json()
        if isinstance(document, dict) and document.get("kind") == "Reservation":
            return _not_rejected(self.parse(document))
        subject = Request.model_validate(document, extra="ignore").spec.subject
        waited = answer.headers.get("preference-applied") is not None
        with suppress(TimedOut):  # then it is still Pending, as promised
            await settle(self._transport, answer, 0 if waited else wait)
        return _not_rejected(await self.get(subject.partition("/")[2]))

    async def simulate(self, body: SimulationCreate, *, wait: float = WAIT) -> Simulation:
        """What would become of these, decided in their order; nothing is booked. Raises `Invalid` naming the fields,
        `TimedOut`."""
        answer = await self._transport.call("POST", f"{self.path}:simulate", body=body.to_dict(), wait=wait)
        request = await settle(self._transport, answer, wait)
        found = answer.json() if request is None else request.status.answer
        return Simulation.model_validate(found, extra="ignore")

    async def submit(self, body: ReservationCreate, *, key: str | None = None) -> Request:
        """Books seats without waiting: the accepted request, for those who follow events."""
        answer = await self._transport.call("POST", self.path, body=body.to_dict(), key=key)
        request_id = request_id_of(answer)
        if request_id is None:
            raise ValueError(f"the answer names no request: {answer.content[:200]!r}")
        return await Requests(self._transport).get(request_id)

    async def change(
        self,
        reservation: Reservation | str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        roster: Sequence[RosterEntry] | None = None,
        seats: int | None = None,
        definition: str | None = None,
        extendable_minutes: int | None = None,
        wait: float = WAIT,
    ) -> Reservation:
        """A new end (extend, shorten), start (move), roster, or time that seats may ask for; before it is set up also
        another number of seats or definition. A reservation that was read before is changed only if it is still the same
        (`Stale` otherwise); an id means the present one. Raises `Conflict` when it does not fit."""
        current = await self.get(reservation) if isinstance(reservation, str) else reservation
        people = None if roster is None else tuple(roster)
        body = ReservationChange(
            start=start,
            end=end,
            roster=people,
            seats=seats,
            definition=definition,
            extendable_minutes=extendable_minutes,
        ).to_dict()
        return await self._changed("PATCH", current.id, wait, body=body, headers=_match(current))

    async def cancel(self, reservation_id: str, *, reason: str = "", wait: float = WAIT) -> Reservation:
        """Gives the seats back; labs that run are collected and stopped. Raises `Conflict` when it has ended."""
        params = {"reason": reason or None}
        return await self._changed("DELETE", reservation_id, wait, params=params)

    async def open_claims(
        self, reservation_id: str, *, seats: Sequence[int] = (), wait: float = WAIT, key: str | None = None
    ) -> Mapping[str, Any]:
        """One-time links for the seats (without any: all that are free), with their codes, shown this once. Raises
        `Conflict` when every seat is taken."""
        body = {"seats": list(seats)}
        answer = await self._transport.call("POST", f"{self.one(reservation_id)}/claims", body=body, key=key, wait=wait)
        found: Mapping[str, Any] = answer.json()
        return found

    async def withdraw_claims(self, reservation_id: str, *, wait: float = WAIT) -> Reservation:
        """No link that is out counts any more."""
        answer = await self._transport.call("DELETE", f"{self.one(reservation_id)}/claims", wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(reservation_id)

    async def claim(self, code: str, *, wait: float = WAIT) -> Reservation:
        """Takes the seat that a link is for. Raises `NotFound` for one that has been used or withdrawn."""
        answer = await self._transport.call("POST", f"/claims/{code}", wait=wait)
        request = await settle(self._transport, answer, wait)
        if request is None:
            return self.parse(answer.json())
        return await self.get((request.status.resource or request.spec.subject).partition("/")[2])

    async def confirm(self, reservation_id: str, *, wait: float = WAIT) -> Reservation:
        """Turns a hold into a booking. Raises `Conflict` when it is none, or has expired."""
        return await self._changed("POST", f"{reservation_id}:confirm", wait)

    async def explanation(self, reservation_id: str) -> Explanation | None:
        """Why it was decided so; None while it is undecided."""
        body = (await self._transport.call("GET", f"{self.one(reservation_id)}/explanation")).json()
        found = body.get("explanation")
        return Explanation.model_validate(found, extra="ignore") if found else None

    async def trace(self, reservation_id: str) -> list[dict[str, Any]]:
        """What each service did for it, as spans by their begin (real time, unix nanoseconds); empty where none are kept.
        Raises `NotFound` for a mesh without a span store."""
        body = (await self._transport.call("GET", f"{self.one(reservation_id)}/trace")).json()
        return list(body["spans"])

    async def _changed(self, method: str, target: str, wait: float, **call: Any) -> Reservation:
        answer = await self._transport.call(method, self.one(target), wait=wait, **call)
        await settle(self._transport, answer, wait)
        return await self.get(target.partition(":")[0])


def _not_rejected(reservation: Reservation) -> Reservation:
    """The same. Raises `Conflict` with the explanation for a rejected one, as the gateway does in its own words."""
    if reservation.status.phase is not ReservationPhase.REJECTED:
        return reservation
    why = reservation.status.explanation
    detail = why.summary if why is not None else reservation.status.message or reservation.status.reason or ""
    problem = {
        "title": "Rejected",
        "detail": detail,
        "explanation": why.to_dict() if why is not None else None,
        "reservation": reservation.id,
    }
    raise refusal(409, problem)


def _match(reservation: Reservation) -> dict[str, str]:
    return {"If-Match": f'"{reservation.metadata.resource_version}"'}
