"""The morning as data: who books what for when, who gives up, and when the scheduler is killed.

Everything is in lab minutes since `OPENING`; the seed moves the single bookings and the small groups, and nothing else.
Single bookings are for the agents; all others are for the pool of CML workers. What the morning relies on: that is a
pool of seven workers with twenty licensed nodes each, of which an ospf-basics seat takes 3, a vlan-trunking seat 6 and
an exam-routing seat 4. Class, exam and workshop together then leave room for nothing more at half past eight.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

OPENING = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
"""A Monday."""
POOL, AGENTS = "default", "agents"
LABS = ("ospf-basics", "vlan-trunking", "exam-routing")
OSPF, VLAN, EXAM = LABS
NOTEBOOK = "notebook"
"""A lab of processes, for the agents."""


@dataclass(frozen=True, slots=True)
class Booking:
    """One reservation that somebody asks for."""

    name: str
    """Unique in the morning; becomes the label `booking` of the reservation."""
    title: str
    definition: str
    seats: int
    start: int
    end: int
    """Slot, minutes since the opening."""
    asked: int = 0
    """When it is asked for, minutes since the opening."""
    priority: int = 0
    during_failover: bool = False
    """Asked for while no scheduler is alive."""
    pool: str = POOL

    @property
    def begins(self) -> datetime:
        return OPENING + timedelta(minutes=self.start)

    @property
    def ends(self) -> datetime:
        return OPENING + timedelta(minutes=self.end)


@dataclass(frozen=True, slots=True)
class Morning:
    """Bookings in the order in which they are made."""

    bookings: tuple[Booking, ...]
    kill_at: int
    """When the active scheduler is killed, minutes since the opening."""
    cancel_at: int
    cancelled: str
    """Name of the booking that is given up at `cancel_at`."""
    typed_in: str
    """Name of the booking in whose first seat a command is typed."""
    ends: int
    """When the last slot ends."""


def morning(seed: int = 1) -> Morning:
    """The morning with the single bookings of a seed."""
    chance = random.Random(seed)
    first = (
        Booking("class", "CCNA class, 20 seats", OSPF, 20, 60, 120, 3),
        Booking("exam", "Routing exam, 12 seats", EXAM, 12, 90, 150, 4, priority=10),
        Booking("workshop", "VLAN workshop", VLAN, 3, 90, 130, 5),
        Booking("hackathon", "Hackathon, 100 seats", EXAM, 100, 60, 150, 6),
        Booking("study-group", "Study group", VLAN, 3, 90, 130, 7),
        Booking("second-class", "Parallel class", OSPF, 16, 85, 125, 9),
    )
    early = tuple(_single(chance, person) for person in _PEOPLE)
    late = tuple(_group(chance, town) for town in _GROUPS)
    return Morning(
        bookings=(*first, *early, *late),
        kill_at=18,
        cancel_at=46,
        cancelled="workshop",
        typed_in="class",
        ends=max(booking.end for booking in (*first, *early, *late)),
    )


_PEOPLE = ("Ada", "Grace", "Radia", "Vint", "Elizabeth")
_GROUPS = ("Paul's group", "Barbara's group", "Edsger's group")


def _single(chance: random.Random, person: str) -> Booking:
    """Somebody alone, on an agent's host: real processes. When class and exam have begun, so that this one machine does not
    start everything at once."""
    start = chance.choice((100, 105, 110))
    return Booking(person.lower(), person, NOTEBOOK, 1, start, start + chance.choice((30, 35, 40)), 10, pool=AGENTS)


def _group(chance: random.Random, title: str) -> Booking:
    """After the class, on workers that are still on."""
    start = chance.randint(131, 135)
    lab = chance.choice((OSPF, OSPF, VLAN))
    name = title.lower().replace("'s ", "-")
    return Booking(name, title, lab, 2, start, start + chance.choice((18, 20, 24)), 18, during_failover=True)
