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
    """What the life depends on beside the reservation. Durations in lab time."""

    by: str
    notice: timedelta = timedelta(minutes=10)
    """Before start and end: when `starting-soon` and `ending-soon` are said."""
    lead: timedelta = timedelta(minutes=35)
    """Before the start: when its instances are made, and from when on a seat on a lost worker is moved."""


def next_step(
    reservation: Reservation, instances: Sequence[Instance], now: datetime, rules: Rules
) -> Reservation | None:
    """The reservation one step further, or None when nothing is due. `instances` are those of its seats that exist; a
    final step rests on the absence of the others."""
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
    """When the clock alone may change the answer of `next_step`, or what healing does; None: never. A final reservation
    whose labs are still there is looked at once more at the end of its slot."""
    moments: list[datetime] = []
    hold, slot = reservation.spec.hold, reservation.slot
    if reservation.status.phase in (ReservationPhase.HELD, ReservationPhase.WAITLISTED) and hold is not None:
        moments.append(hold.expires_at)
    if slot is not None:
        moments.append(slot.end)
        if not reservation.is_final:
            moments += [slot.start - rules.lead, slot.start - rules.notice, slot.start, slot.end - rules.notice]
    return min((moment for moment in moments if moment > now), default=None)


def outcomes(reservation: Reservation, instances: Sequence[Instance]) -> dict[str, str]:
    """What became of each seat: how its instance ended, or that it never had one."""
    said = {
        str(seat.seat): "Lost" if seat.state is SeatState.LOST else "NeverStarted"
        for seat in reservation.status.placement
    }
    said |= {
        str(i.spec.seat): ("Ran" if i.status.ran else str(i.status.phase))
        + (f": {i.status.reason}" if i.status.reason else "")
        for i in instances
    }
    return said


def _hold_over(reservation: Reservation, now: datetime, rules: Rules) -> Reservation | None:
    hold, slot = reservation.spec.hold, reservation.slot
    if hold is None or (now < hold.expires_at and (slot is None or now < slot.end)):
        return None
    return reservation.moved(
        ReservationPhase.EXPIRED,
        at=now,
        by=rules.by,
        reason="HoldExpired",
        message=f"the hold was not confirmed before {hold.expires_at.isoformat()}",
        placement=(),
    )


def _held(reservation: Reservation, now: datetime, rules: Rules) -> Reservation | None:
    return _hold_over(reservation, now, rules)


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
    return _hold_over(reservation, now, rules)


def _scheduled(
    reservation: Reservation, instances: Sequence[Instance], now: datetime, rules: Rules
) -> Reservation | None:
    slot = reservation.slot
    assert slot is not None, "a scheduled reservation has a slot"
    if now >= slot.start and any(i.status.ran for i in instances):
        return reservation.moved(ReservationPhase.ACTIVE, at=now, by=rules.by, reason="SlotBegan")
    lost = all(seat.state is SeatState.LOST for seat in reservation.status.placement)
    if now >= slot.end and not instances and not lost:
        return reservation.moved(
            ReservationPhase.EXPIRED,
            at=now,
            by=rules.by,
            reason="SlotMissed",
            message="the slot passed and no lab was started",
            outcomes=outcomes(reservation, instances),
        )
    if _all_over(reservation, instances, now) and (instances or now >= slot.end):
        if any(i.status.ran for i in instances):
            # ended before its slot began, by request: it was active for no time at all
            return reservation.moved(ReservationPhase.ACTIVE, at=now, by=rules.by, reason="EndedEarly")
        return reservation.moved(
            ReservationPhase.FAILED,
            at=now,
            by=rules.by,
            reason="NoSeatRan",
            message="no seat's lab came up",
            outcomes=outcomes(reservation, instances),
        )
    if slot.start - rules.notice <= now < slot.start and reservation.status.condition(_STARTING) is None:
        return reservation.observed(
            "starting-soon", conditions=reservation.with_condition(_STARTING, True, at=now, reason="SlotNear")
        )
    return None


def _active(reservation: Reservation, instances: Sequence[Instance], now: datetime, rules: Rules) -> Reservation | None:
    slot = reservation.slot
    assert slot is not None, "an active reservation has a slot"
    if _all_over(reservation, instances, now):
        ran = any(i.status.ran for i in instances)
        return reservation.moved(
            ReservationPhase.COMPLETED if ran else ReservationPhase.FAILED,
            at=now,
            by=rules.by,
            reason="AllSeatsEnded" if ran else "NoSeatRan",
            outcomes=outcomes(reservation, instances),
        )
    if slot.end - rules.notice <= now < slot.end and reservation.status.condition(_ENDING) is None:
        return reservation.observed(
            "ending-soon", conditions=reservation.with_condition(_ENDING, True, at=now, reason="EndNear")
        )
    return None


def _all_over(reservation: Reservation, instances: Sequence[Instance], now: datetime) -> bool:
    """Every seat has an instance that has ended, or can get none any more: it was lost, or the slot is over."""
    by_id = {i.id: i for i in instances}
    slot_over = reservation.slot is not None and now >= reservation.slot.end
    for seat in reservation.status.placement:
        instance = by_id.get(seat.instance)
        if instance is None:
            if seat.state is not SeatState.LOST and not slot_over:
                return False
        elif instance.status.phase is not InstancePhase.TERMINATED:
            return False
    return bool(reservation.status.placement)
