"""The words of explanations: filters, quantities and whole sentences, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping

from .model import Dimension, Filter, NearestMiss, PlacementRequest, SeatChoice

REASONS: Mapping[str, str] = {
    Filter.POOL: "in another pool",
    Filter.EXCLUDED: "excluded by the request",
    Filter.SELECTOR: "without the wanted labels",
    Filter.RUNTIME: "with another runtime",
    Filter.LICENCE: "with a licence kind that may not host it",
    Filter.VERSION: "with a runtime version out of range",
    Filter.NODE_DEFINITIONS: "without a needed node definition",
    Filter.NODE_LIMIT: "with too small a node limit",
    Filter.SIZE: "too small even when empty",
    Filter.FAILED: "failed",
    Filter.UNSCHEDULABLE: "cordoned",
    Filter.BOOT: "not up in time",
    Filter.MAINTENANCE: "in maintenance",
    Filter.CAPACITY: "full",
    Filter.PORTS: "without free ports",
    Filter.LICENCE_COUNT: "without a free licence",
    Filter.WAIT_LIST: "kept for somebody ahead on the wait list",
}

_QUANTITIES: Mapping[str, str] = {
    Dimension.CPU: "CPU cores",
    Dimension.MEMORY: "GB of memory",
    Dimension.STORAGE: "GB of storage",
    Dimension.NODES: "licensed nodes",
    Dimension.PORTS: "ports",
    Filter.MAINTENANCE: "minutes without maintenance",
    Filter.LICENCE_COUNT: "licences",
    Filter.BOOT: "minutes to boot and prepare",
    Filter.DURATION: "minutes",
}


def sentence(
    request: PlacementRequest,
    removed: Mapping[str, int],
    considered: int,
    fitting: int,
    binding: str,
    miss: NearestMiss | None,
) -> str:
    """A refusal that need not last, in words."""
    if not considered:
        return f"Pool {request.pool} has no workers."
    if fitting and fitting < request.seats:
        head = f"Only {fitting} of {seat_count(request.seats)} fit in this slot"
    else:
        head = f"No room for {seat_count(request.seats)} in this slot"
    reasons = [f"{count} {REASONS[name]}" for name, count in removed.items()]
    text = f"{head}: of {worker_count(considered)}, " + (", ".join(reasons) if reasons else "all have too little") + "."
    return text + what_is_short(binding, miss)


def what_is_short(binding: str, miss: NearestMiss | None) -> str:
    """The binding constraint and the nearest miss, as sentences that follow one."""
    text = ""
    quantity = _QUANTITIES.get(binding)
    if quantity is not None:
        text += f" What is short: {quantity}."
    if miss is not None and miss.dimension in _QUANTITIES:
        unit = _QUANTITIES[miss.dimension]
        if miss.worker is not None:
            text += f" Nearest: {miss.worker} has {miss.free:g} of the {miss.needed:g} {unit} for one more seat."
        elif miss.dimension == Filter.LICENCE_COUNT:
            text += f" {miss.needed:g} workers would have to be on at once, the licences allow {miss.free:g}."
    return text


def why(choice: SeatChoice, packed: bool) -> str:
    """Why one worker got its seats."""
    numbers = ", ".join(str(seat) for seat in choice.seats[:5]) + (", …" if len(choice.seats) > 5 else "")
    power = f"adds {choice.added_on_minutes} minutes of power" if choice.added_on_minutes else "is on anyway"
    rank = "least added power, then fullest" if packed else "emptiest, then least added power"
    late = f", ready {choice.late_minutes} minutes late" if choice.late_minutes else ""
    return f"{choice.worker} takes seat {numbers}: it {power}{late} and is then {choice.fullness:.0%} full ({rank})"


def seat_count(count: int) -> str:
    """A number of seats."""
    return "1 seat" if count == 1 else f"{count} seats"


def worker_count(count: int) -> str:
    """A number of workers."""
    return "1 worker" if count == 1 else f"{count} workers"
