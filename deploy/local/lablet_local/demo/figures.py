"""The morning in numbers, and its moments in lab time: what the last line, the table and the report are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lablet_local.demo.books import PowerSpan, Seat, below, booking, demands, power_spans, seats_of, title, was
from lablet_local.demo.checks import Check
from lablet_local.demo.checks.story import seats_placed
from lablet_local.demo.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Moment:
    """A mark on the calendar."""

    at: datetime
    text: str
    kind: str
    """killed, taken-over or cancelled."""


@dataclass(frozen=True, slots=True)
class Figures:
    reservations: int
    placed: int
    """Seats."""
    waitlisted: int
    rejected: int
    events: int
    lost: int
    double_booked: int
    failover_seconds: float
    """Real."""
    worker_hours: float
    """Lab time."""
    seconds: float
    """Real, of the whole demo."""

    def line(self) -> str:
        return (
            f"reservations={self.reservations} placed={self.placed} waitlisted={self.waitlisted} "
            f"rejected={self.rejected} events={self.events} lost={self.lost} double_booked={self.double_booked} "
            f"failover_seconds={self.failover_seconds:.1f} worker_hours={self.worker_hours:.1f} seconds={self.seconds:.1f}"
        )


def figures(evidence: Evidence, checks: Sequence[Check], seconds: float) -> Figures:
    """`lost` counts bookings that are not stored, changes that were not published and seats that did not run;
    `double_booked` what the three checks of capacity found."""
    reservations = below(evidence, "/reservations/").values()

    def broken(*words: str) -> int:
        return sum(len(check.broken) for check in checks if any(word in check.claim for word in words))

    return Figures(
        reservations=len(reservations),
        placed=seats_placed(evidence),
        waitlisted=sum(was(one, "Waitlisted") for one in reservations),
        rejected=sum(was(one, "Rejected") for one in reservations),
        events=len(evidence.events),
        lost=broken("was decided", "is stored", "was published", "ran exactly once"),
        double_booked=broken("booked beyond", "two places", "more nodes", "ran together"),
        failover_seconds=evidence.take_over.seconds,
        worker_hours=sum(span.hours for span in power_spans(evidence)),
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True)
class Block:
    """Seats of one reservation on one worker, drawn as one."""

    booking: str
    title: str
    worker: str
    seats: tuple[Seat, ...]
    nodes: int
    """Of one seat."""
    cancelled: bool = False

    @property
    def start(self) -> datetime:
        return self.seats[0].start

    @property
    def end(self) -> datetime:
        return self.seats[0].end

    @property
    def height(self) -> int:
        """In nodes."""
        return self.nodes * len(self.seats)


def blocks(evidence: Evidence) -> list[Block]:
    """Every placed seat, also of what was cancelled later, grouped by reservation and worker."""
    needs = demands(evidence)
    found = []
    for reservation in below(evidence, "/reservations/").values():
        by_worker: dict[str, list[Seat]] = {}
        for seat in seats_of(reservation):
            by_worker.setdefault(seat.worker, []).append(seat)
        for worker, seats in by_worker.items():
            nodes = int(needs[seats[0].definition]["nodeCount"])
            found.append(
                Block(
                    booking(reservation), title(reservation), worker, tuple(seats), nodes, was(reservation, "Cancelled")
                )
            )
    return sorted(found, key=lambda one: (one.worker, one.start, one.booking))


def spans(evidence: Evidence) -> list[PowerSpan]:
    return power_spans(evidence)
