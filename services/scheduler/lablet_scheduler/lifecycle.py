"""How a reservation moves through its life by the clock and by what its instances do. Pure: state in, next step out.

The time gate is here and nowhere else, so that no path around it exists: whoever looks at a reservation, and for whatever
reason, gets the same answer for the same instant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatState

_STARTING = "StartingSoon"
_ENDING = "EndingSoon"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the life depends on beside the reservation."""

    by: str
    notice: timedelta = timedelta(minutes=10)
    """Before start and end: when `starting-soon` and `ending-soon` are said."""


def next_step(
    reservation: Reservation, instances: Sequence[Instance], now: datetime, rules: Rules
) -> Reservation | None:
    """The reservation one step further, or None when nothing is due. `instances` are those of its seats that exist."""
    match reservation.status.phase:
        case ReservationPhase.HELD:
            return _held(reservation, now, rules)
        case ReservationPhase.WAITLISTED:
            return _waitlisted(reservation, now, rules)
        case ReservationPhase.SCHEDULED:
            return _scheduled(reservation, instances, now, rules)
        case ReservationPhase.ACTIVE:
            return _active(reservation, instances, now, rules)
        case _:
            return None


def next_look(reservation: Reservation, now: datetime, rules: Rules) -> datetime | None:
    """When the clock alone may change the answer of `next_step`; None: never."""
    moments: list[datetime] = []
    if reservation.is_final:
        return None
    hold, slot = reservation.spec.hold, reservation.slot
    if reservation.status.phase is ReservationPhase.HELD and hold is not None:
        moments.append(hold.expires_at)
    if slot is not None:
        moments += [slot.start - rules.notice, slot.start, slot.end - rules.notice, slot.end]
    return min((moment for moment in moments if moment > now), default=None)


def outcomes(instances: Sequence[Instance]) -> dict[str, str]:
    """What became of each seat: how its instance ended."""
    return {
        str(i.spec.seat): ("Ran" if i.status.ran else str(i.status.phase))
        + (f": {i.status.reason}" if i.status.reason else "")
        for i in instances
    }


def _held(reservation: Reservation, now: datetime, rules: Rules) -> Reservation | None:
    hold = reservation.spec.hold
    if hold is not None and now >= hold.expires_at:
        return reservation.moved(
            ReservationPhase.EXPIRED,
            at=now,
            by=rules.by,
            reason="HoldExpired",
            message=f"the hold was not confirmed before {hold.expires_at.isoformat()}",
            placement=(),
        )
    return None


def _waitlisted(reservation: Reservation, now: datetime, rules: Rules) -> Reservation | None:
    slot = reservation.slot
    if slot is not None and now >= slot.start:
        return reservation.moved(
            ReservationPhase.EXPIRED,
            at=now,
            by=rules.by,
            reason="NeverFitted",
            message="the slot began before a place became free",
        )
    return None


def _scheduled(
    reservation: Reservation, instances: Sequence[Instance], now: datetime, rules: Rules
) -> Reservation | None:
    slot = reservation.slot
    assert slot is not None, "a scheduled reservation has a slot"
    if now >= slot.start and any(i.status.ran for i in instances):
        return reservation.moved(ReservationPhase.ACTIVE, at=now, by=rules.by, reason="SlotBegan")
    if _all_over(reservation, instances) and (instances or now >= slot.end):
        if any(i.status.ran for i in instances):
            # ended before its slot began, by request: it was active for no time at all
            return reservation.moved(ReservationPhase.ACTIVE, at=now, by=rules.by, reason="EndedEarly")
        return reservation.moved(
            ReservationPhase.FAILED,
            at=now,
            by=rules.by,
            reason="NoSeatRan",
            message="no seat's lab came up",
            outcomes=outcomes(instances),
        )
    if now >= slot.end and not instances:
        return reservation.moved(
            ReservationPhase.EXPIRED,
            at=now,
            by=rules.by,
            reason="SlotMissed",
            message="the slot passed and no lab was started",
        )
    if slot.start - rules.notice <= now < slot.start and reservation.status.condition(_STARTING) is None:
        return reservation.observed(
            "starting-soon", conditions=reservation.with_condition(_STARTING, True, at=now, reason="SlotNear")
        )
    return None


def _active(reservation: Reservation, instances: Sequence[Instance], now: datetime, rules: Rules) -> Reservation | None:
    slot = reservation.slot
    assert slot is not None, "an active reservation has a slot"
    if _all_over(reservation, instances):
        ran = any(i.status.ran for i in instances)
        return reservation.moved(
            ReservationPhase.COMPLETED if ran else ReservationPhase.FAILED,
            at=now,
            by=rules.by,
            reason="AllSeatsEnded" if ran else "NoSeatRan",
            outcomes=outcomes(instances),
        )
    if slot.end - rules.notice <= now < slot.end and reservation.status.condition(_ENDING) is None:
        return reservation.observed(
            "ending-soon", conditions=reservation.with_condition(_ENDING, True, at=now, reason="EndNear")
        )
    return None


def _all_over(reservation: Reservation, instances: Sequence[Instance]) -> bool:
    """Every seat has an instance that has ended, or was lost before it got one."""
    by_id = {i.id: i for i in instances}
    for seat in reservation.status.placement:
        instance = by_id.get(seat.instance)
        if instance is None:
            if seat.state is not SeatState.LOST:
                return False
        elif instance.status.phase is not InstancePhase.TERMINATED:
            return False
    return bool(reservation.status.placement)
