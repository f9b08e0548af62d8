"""etcd's documents read as what they mean: seats, slots, demands, power. Plain dictionaries in, small values out; pure.

Nothing here goes through Lablet's models, so that a wrong model cannot agree with itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lablet_local.demo.evidence import Evidence

Json = Mapping[str, Any]
HOLDING = ("Held", "Scheduled", "Active")
FINAL = ("Completed", "Rejected", "Cancelled", "Expired", "Failed")
DIMENSIONS = ("nodeCount", "memoryGb", "cpuCores", "storageGb")
_DUST = 1e-6


@dataclass(frozen=True, slots=True)
class Seat:
    """One placed seat of one reservation."""

    reservation: str
    seat: int
    instance: str
    worker: str
    ports: Mapping[str, int]
    start: datetime
    end: datetime
    definition: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class PowerSpan:
    """A worker that was on, in lab time; `ready` is when labs could begin."""

    worker: str
    start: datetime
    end: datetime
    ready: datetime | None = None

    @property
    def hours(self) -> float:
        return (self.end - self.start).total_seconds() / 3600


def below(evidence: Evidence, prefix: str) -> dict[str, Json]:
    """The present documents below a prefix, by what follows it."""
    return {
        key.removeprefix(prefix): value
        for key, value in sorted(evidence.present.items())
        if key.startswith(prefix) and isinstance(value, dict)
    }


def is_agent(worker: Any) -> bool:
    """A worker that is an agent's host: it runs labs of processes, and comes and goes by itself."""
    return isinstance(worker, Mapping) and worker["spec"].get("runtime") == "process"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def phase(document: Json) -> str:
    return str(document["status"]["phase"])


def moves(document: Json) -> list[Json]:
    return list(document["status"].get("history") or ())


def was(document: Json, wanted: str) -> bool:
    """It is in that phase or was once."""
    return phase(document) == wanted or any(move["to"] == wanted for move in moves(document))


def booking(document: Json) -> str:
    """The scenario's name of a reservation."""
    return str((document["metadata"].get("labels") or {}).get("booking", ""))


def title(document: Json) -> str:
    return str((document["metadata"].get("labels") or {}).get("title", document["metadata"]["id"]))


def seats_of(reservation: Json) -> list[Seat]:
    """Its placed seats; those that were lost take nothing."""
    slot = reservation["status"].get("slot") or reservation["spec"]
    if not slot.get("start"):
        return []
    return [
        Seat(
            reservation=str(reservation["metadata"]["id"]),
            seat=int(place["seat"]),
            instance=str(place["instance"]),
            worker=str(place["worker"]),
            ports=place.get("ports") or {},
            start=instant(slot["start"]),
            end=instant(slot["end"]),
            definition=str(reservation["spec"]["definition"]),
            attempt=int(place.get("attempt", 1)),
        )
        for place in reservation["status"].get("placement") or ()
        if place.get("state", "placed") == "placed"
    ]


def demands(evidence: Evidence) -> dict[str, Json]:
    """`name@version` → what one seat takes."""
    return {
        str(document["metadata"]["id"]): document["spec"]["requirements"]
        for document in below(evidence, "/definitions/").values()
    }


def capacities(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Worker → what it offers in each dimension."""
    return {
        name: {
            "nodeCount": float(document["spec"]["maxNodes"]),
            "memoryGb": float(document["spec"]["capacity"]["memoryGb"]),
            "cpuCores": float(document["spec"]["capacity"]["cpuCores"]),
            "storageGb": float(document["spec"]["capacity"]["storageGb"]),
        }
        for name, document in below(evidence, "/workers/").items()
    }


def overbooked(
    seats: Iterable[Seat], needs: Mapping[str, Json], offered: Mapping[str, float]
) -> list[tuple[datetime, str]]:
    """The instants at which seats of one worker take more than it offers or share a port. Slots are half-open, so only
    their beginnings need to be looked at."""
    booked = list(seats)
    found = []
    for at in sorted({seat.start for seat in booked}):
        present = [seat for seat in booked if seat.start <= at < seat.end]
        for dimension in DIMENSIONS:
            taken = sum(float(needs[seat.definition].get(dimension, 0)) for seat in present)
            if taken > offered[dimension] + _DUST:
                found.append((at, f"{dimension} {taken:g} of {offered[dimension]:g}"))
        ports = [port for seat in present for port in seat.ports.values()]
        twice = sorted({port for port in ports if ports.count(port) > 1})
        if twice:
            found.append((at, f"port {twice[0]} given twice"))
    return found


def power_spans(evidence: Evidence) -> list[PowerSpan]:
    """From the moment a worker was powered on until it was off again; one that is still on ends with its last move."""
    spans = []
    for name, document in below(evidence, "/workers/").items():
        if is_agent(document):
            continue
        begun: datetime | None = None
        ready: datetime | None = None
        last: datetime | None = None
        for move in moves(document):
            last = instant(move["at"])
            if move["to"] == "Provisioning" and begun is None:
                begun = last
            elif move["to"] == "Ready" and ready is None:
                ready = last
            elif move["to"] == "Offline" and begun is not None:
                spans.append(PowerSpan(name, begun, last, ready))
                begun, ready = None, None
        if begun is not None and last is not None:
            spans.append(PowerSpan(name, begun, last, ready))
    return spans
