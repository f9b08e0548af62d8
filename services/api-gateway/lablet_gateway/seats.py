"""What belongs to a seat and its user: what of a class they see, the codes of claim links, and how much more time a seat
may ask for. Pure.

A code reads `<reservation>-<secret>`: it finds its reservation by itself. The secret is 160 random bits; the
reservation keeps its hash only.
"""

import hashlib
import re
import secrets
from base64 import b32encode
from datetime import timedelta

from lablet_common.intents import ReservationChange
from lablet_common.resources.model import format_time
from lablet_common.resources.reservation import Reservation, ReservationPhase
from lablet_gateway import problems

_CODE = re.compile(r"([a-z0-9-]{1,120})-([a-z2-7]{32})")
_SECRET_BYTES = 20
_RUNNING = (ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE)


def only_of(user: str, reservation: Reservation) -> Reservation:
    """The reservation as whoever only sits in it sees it: their own seats, and nothing about who has the others, where
    those run, how they ended, or which are still to be claimed."""
    spec, status = reservation.spec, reservation.status
    own = tuple(entry for entry in spec.roster if entry.user == user)
    numbers = {entry.seat for entry in own}
    outcomes = {seat: outcome for seat, outcome in status.outcomes.items() if int(seat) in numbers}
    placement = tuple(seat for seat in status.placement if seat.seat in numbers)
    return reservation.model_copy(
        update={
            "spec": spec.model_copy(update={"roster": own, "claims": ()}),
            "status": status.model_copy(update={"placement": placement, "outcomes": outcomes}),
        }
    )


def new_code(reservation_id: str) -> str:
    """A fresh code for a seat of the reservation."""
    secret = b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().lower()
    return f"{reservation_id.removeprefix('rsv-')}-{secret}"


def hash_of(code: str) -> str:
    """What is kept of a code."""
    return hashlib.sha256(code.encode()).hexdigest()


def reservation_of(code: str) -> str | None:
    """The id of the reservation that a code is for; None for what is no code."""
    form = _CODE.fullmatch(code)
    return None if form is None else f"rsv-{form[1]}"


def check_more_time(reservation: Reservation, asked: ReservationChange) -> None:
    """A seat's user may make the slot longer by what whoever booked it has left them. The end is a moment and not a
    length, so asking twice gives no more than asking once. Raises 403 with what is allowed."""
    owner = reservation.metadata.owner
    if set(asked.to_dict()) != {"end"} or asked.end is None:
        raise problems.FORBIDDEN(f"whoever has a seat may ask for more time; all else is {owner}'s to change")
    limit, used = reservation.spec.extendable_minutes, reservation.status.extended_minutes
    if not limit:
        raise problems.FORBIDDEN(f"the seats may not ask for more time themselves: {owner} can extend the reservation")
    slot = reservation.slot
    if slot is None or reservation.status.phase not in _RUNNING:
        raise problems.FORBIDDEN(f"reservation {reservation.id} is {reservation.phase}: there is no time to add to")
    if asked.end <= slot.end:
        raise problems.FORBIDDEN(f"the slot goes to {format_time(slot.end)}: only {owner} can make it shorter")
    left = max(0, limit - used)
    if asked.end - slot.end > timedelta(minutes=left):
        latest = slot.end + timedelta(minutes=left)
        raise problems.FORBIDDEN(
            f"{limit} more minutes are allowed and {used} are used: {left} are left, to {format_time(latest)} at the most",
            longestEnd=format_time(latest),
        )
