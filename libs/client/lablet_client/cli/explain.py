"""Why a reservation is as it is, told in sentences. Pure: values in, lines out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from lablet_client.cli.tables import NOTICES
from lablet_client.cli.times import show_age, show_slot, show_span, show_time
from lablet_common.resources.model import Condition
from lablet_common.resources.reservation import Explanation, Reservation, ReservationPhase

_P = ReservationPhase
FILTERS: Mapping[str, str] = {
    "pool": "in another pool",
    "excluded": "excluded by the request",
    "selector": "without the wanted labels",
    "license": "with a licence kind that may not host it",
    "runtimeVersion": "with a runtime version out of range",
    "nodeDefinitions": "without a needed node definition",
    "nodeLimit": "with too small a node limit",
    "size": "too small even when empty",
    "failed": "failed",
    "unschedulable": "cordoned",
    "boot": "not up in time",
    "maintenance": "in maintenance",
    "capacity": "full at that time",
    "ports": "without free ports",
    "licenseCount": "without a free licence",
    "waitList": "kept for somebody ahead on the wait list",
}
DIMENSIONS: Mapping[str, str] = {
    "cpuCores": "CPU cores",
    "memoryGb": "GB of memory",
    "storageGb": "GB of storage",
    "nodeCount": "licensed nodes",
    "ports": "ports",
    "maintenance": "minutes without maintenance",
    "licenseCount": "licences",
    "boot": "minutes to boot and prepare",
    "duration": "minutes",
}
BINDING: Mapping[str, str] = {
    "cpuCores": "CPU cores",
    "memoryGb": "memory",
    "storageGb": "storage",
    "nodeCount": "the nodes that the licences allow",
    "ports": "ports",
    "licenseCount": "the number of licences",
    "duration": "the longest duration that the definition allows",
    "waitList": "the turn of those ahead on the wait list",
}


def verdict(booking: Reservation, now: datetime) -> str:
    """One clause that says how it stands."""
    slot = booking.slot
    match booking.status.phase:
        case _P.PENDING:
            return "accepted; the scheduler has not decided yet"
        case _P.HELD:
            expiry = booking.spec.hold.expires_at if booking.spec.hold else None
            return f"held for you until {show_time(expiry, now)}: confirm it" if expiry else "held for you: confirm it"
        case _P.SCHEDULED:
            return f"placed; begins {show_age(slot.start, now)}" if slot else "placed"
        case _P.WAITLISTED:
            return "waits: it is placed as soon as there is room"
        case _P.ACTIVE:
            return f"runs; {show_span(slot.end - now)} left" if slot and slot.end > now else "runs; its time is over"
        case _P.REJECTED | _P.FAILED:
            return booking.status.message or booking.status.reason or ""
        case _P.EXPIRED:
            return "its time passed before it could run"
        case _P.COMPLETED:
            return "over; what was collected is kept"
        case _:
            return booking.status.message or ""


def answer(booking: Reservation, explanation: Explanation | None, now: datetime) -> Sequence[str]:
    """Paragraphs that answer "why?"."""
    asked = f"{booking.spec.seats} {'seat' if booking.spec.seats == 1 else 'seats'} of {booking.spec.definition}"
    slot = booking.slot
    when = f"for {show_slot(slot.start, slot.end, now)}" if slot else "as soon as possible"
    lines = [f"{booking.id} asks for {asked} {when}. It is {booking.phase}: {verdict(booking, now).rstrip('.')}."]
    why = explanation or booking.status.explanation
    if why is not None:
        lines += reasons(why, now)
    lines += [f"It is marked {c.type}: {c.message or c.reason or 'no reason given'}." for c in _conditions(booking)]
    return lines


def reasons(why: Explanation, now: datetime) -> Sequence[str]:
    """The scheduler's explanation in sentences."""
    lines = [why.summary] if why.summary else []
    nearest = str((why.nearest_miss or {}).get("worker") or "")
    told = bool(nearest) and nearest in why.summary  # then the scheduler's own words say all of it
    if why.removed and not told:
        counted = _listed(f"{count} {FILTERS.get(name, name)}" for name, count in _largest(why.removed))
        workers = "worker was" if why.considered == 1 else "workers were"
        lines.append(f"{why.considered} {workers} looked at: {counted}.")
    if why.binding and not told:
        lines.append(f"What decided: {BINDING.get(why.binding) or f'workers {FILTERS.get(why.binding, why.binding)}'}.")
    if why.nearest_miss and not told:
        lines.append(f"The nearest miss: {_miss(why.nearest_miss)}.")
    if why.earliest is not None:
        lines.append(f"The earliest slot that fits is {show_slot(why.earliest.start, why.earliest.end, now)}.")
    return lines


def _conditions(booking: Reservation) -> Sequence[Condition]:
    return [c for c in booking.status.conditions if c.status and c.type not in NOTICES]


def _largest(counts: Mapping[str, int]) -> Sequence[tuple[str, int]]:
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda pair: -pair[1])


def _listed(parts: Iterable[str]) -> str:
    words = list(parts)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none removed"


def _miss(miss: Mapping[str, object]) -> str:
    worker = miss.get("worker") or "the pool"
    dimension = str(miss.get("dimension") or "")
    needed, free = miss.get("needed"), miss.get("free")
    if needed is None or free is None:
        return ", ".join(f"{key} {value}" for key, value in miss.items())
    return f"{worker} has {_number(free)} of {_number(needed)} {DIMENSIONS.get(dimension, FILTERS.get(dimension, dimension))}"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
