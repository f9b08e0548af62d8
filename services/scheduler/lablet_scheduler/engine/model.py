"""The engine's own language: workers as placement sees them, what a seat needs, what is booked, what was decided.

The service around the engine maps its resources to these values and back; nothing here knows JSON, etcd or a clock.
A time is a whole minute since 1970-01-01T00:00Z (`Minute`), a span is half-open `[start, end)`. Quantities are floats
at the border and thousandths (integers) inside, demands rounded up and capacities down, so that sums are exact.
These classes check their own shape; whether a booking fits is the calendar's question, not theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import ceil, floor
from typing import NamedTuple

from .versions import parse_version

Minute = int
"""A whole minute since the Unix epoch, UTC."""

SCALE = 1000
"""Thousandths: one CPU core is 1000 inside, one gigabyte too."""

SLACK = 1e-6
"""A float that misses a whole thousandth by less than this is taken as that thousandth."""

MAX_SEATS = 100
MAX_LEAD_MINUTES = 24 * 60
"""Boot plus preparation, turnaround, and the grace, may each be a day at most."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_minute(moment: datetime) -> Minute:
    """The minute of an aware datetime that lies on a whole minute. Raises ValueError otherwise."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    minutes, rest = divmod(moment - _EPOCH, timedelta(minutes=1))
    if rest:
        raise ValueError(f"{moment.isoformat()} is not on a whole minute")
    return minutes


def minute_floor(moment: datetime) -> Minute:
    """The last whole minute at or before an aware datetime."""
    return (moment - _EPOCH) // timedelta(minutes=1)


def minute_ceil(moment: datetime) -> Minute:
    """The first whole minute at or after an aware datetime."""
    return -((_EPOCH - moment) // timedelta(minutes=1))


def from_minute(minute: Minute) -> datetime:
    """The aware UTC datetime of a minute."""
    return _EPOCH + timedelta(minutes=minute)


def scaled_demand(quantity: float) -> int:
    """A quantity in thousandths, rounded up."""
    return ceil(quantity * SCALE - SLACK)


def scaled_capacity(quantity: float) -> int:
    """A quantity in thousandths, rounded down."""
    return floor(quantity * SCALE + SLACK)


class Dimension(StrEnum):
    """What a worker has a limited amount of, at each instant. The value is the name in explanations."""

    CPU = "cpuCores"
    MEMORY = "memoryGb"
    STORAGE = "storageGb"
    NODES = "nodeCount"
    PORTS = "ports"


class Filter(StrEnum):
    """Why a worker does not come into question, in the order in which it is asked."""

    DURATION = "duration"
    POOL = "pool"
    EXCLUDED = "excluded"
    SELECTOR = "selector"
    RUNTIME = "runtime"
    LICENCE = "license"
    VERSION = "runtimeVersion"
    NODE_DEFINITIONS = "nodeDefinitions"
    NODE_LIMIT = "nodeLimit"
    SIZE = "size"
    FAILED = "failed"
    UNSCHEDULABLE = "unschedulable"
    BOOT = "boot"
    MAINTENANCE = "maintenance"
    CAPACITY = "capacity"
    PORTS = "ports"
    LICENCE_COUNT = "licenseCount"
    WAIT_LIST = "waitList"
    """There is room, but somebody ahead waits for it."""


class Span(NamedTuple):
    """A half-open span of minutes."""

    start: Minute
    end: Minute


class Spreading(StrEnum):
    """How a pool fills its workers."""

    PACK = "pack"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """What the operator decided for a pool. Durations in minutes."""

    pool: str
    turnaround: int = 0
    """Between two slots on a worker's licence (its nodes) and ports; the worker stays on in it."""
    grace: int = 30
    """A worker stays on when its next slot begins within this many minutes."""
    preparation: int = 0
    """From "the worker is ready" to "the lab is reachable": worked off before the slot starts."""
    reserve: int | None = 0
    """How much earlier still a worker is powered on, for boots that take longer or fail; None: as long as its boot."""
    spreading: Spreading = Spreading.PACK
    licence_limits: Mapping[str, int] = field(default_factory=dict)
    """Licence kind → how many workers may hold one at the same time; a kind that is not named is not limited."""

    def __post_init__(self) -> None:
        for name, minutes in (
            ("turnaround", self.turnaround),
            ("grace", self.grace),
            ("preparation", self.preparation),
            ("reserve", self.reserve or 0),
        ):
            if not 0 <= minutes <= MAX_LEAD_MINUTES:
                raise ValueError(f"pool {self.pool}: {name} is {minutes} minutes, not 0 to {MAX_LEAD_MINUTES}")


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One logical worker as placement sees it."""

    name: str
    pool: str
    cpu_cores: float
    memory_gb: float
    storage_gb: float
    max_nodes: int | None = None
    """Node limit of its licence; None: not limited."""
    licence: str = "ENTERPRISE"
    port_start: int = 2000
    port_end: int = 9999
    """Last port of the range, included."""
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    """Runtime version; None: not known yet (never booted), which no version range refuses."""
    node_definitions: frozenset[str] | None = None
    runtime: str = "cml"
    """What runs labs on it."""
    """What the runtime offers; None: not known yet, which no requirement refuses."""
    unschedulable: bool = False
    unschedulable_until: Minute | None = None
    """The first minute at which a slot may start again; None: until it is uncordoned."""
    maintenance: tuple[Span, ...] = ()
    failed: bool = False
    boot_minutes: int = 0
    on_since: Minute | None = None
    """When it was last powered on, if it is on (ready `boot_minutes` later); None: off."""
    on_until: Minute | None = None
    """Until when it stays on if nothing more comes; None: until its bookings end."""

    def __post_init__(self) -> None:
        if not 0 <= self.boot_minutes <= MAX_LEAD_MINUTES:
            raise ValueError(f"worker {self.name}: boot_minutes is {self.boot_minutes}, not 0 to {MAX_LEAD_MINUTES}")
        if self.port_end < self.port_start - 1:
            raise ValueError(f"worker {self.name}: port range {self.port_start}–{self.port_end} is turned round")
        if self.version is not None:
            parse_version(self.version)
        for span in self.maintenance:
            if span.end <= span.start:
                raise ValueError(f"worker {self.name}: maintenance span {span} is empty")


@dataclass(frozen=True, slots=True)
class Demand:
    """What one seat needs, for as long as it is booked. Hashable: equal demands share their filter results."""

    cpu_cores: float = 0.0
    memory_gb: float = 0.0
    storage_gb: float = 0.0
    nodes: int = 0
    ports: tuple[str, ...] = ()
    """Names of the ports in the order in which they get their numbers."""
    licences: frozenset[str] = frozenset()
    """Licence kinds that may host it; empty: any."""
    min_version: str | None = None
    max_version: str | None = None
    """Included, and compared on as many parts as it has: "2.9" admits 2.9.1 and refuses 2.10."""
    node_definitions: frozenset[str] = frozenset()
    runtime: str = "cml"
    selector: tuple[tuple[str, str], ...] = ()
    """Labels that the worker must carry."""

    def __post_init__(self) -> None:
        if min(self.cpu_cores, self.memory_gb, self.storage_gb, self.nodes) < 0:
            raise ValueError(f"a demand cannot be negative: {self}")
        for version in (self.min_version, self.max_version):
            if version is not None:
                parse_version(version)
        if len(set(self.ports)) != len(self.ports):
            raise ValueError(f"port names repeat: {', '.join(self.ports)}")


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """Seats wanted in one slot of one pool, all or none."""

    reservation: str
    pool: str
    demand: Demand
    start: Minute
    end: Minute
    seats: int = 1
    now: Minute = 0
    """The caller's present minute: boot times of workers that are off are counted from here."""
    priority: int = 0
    punctual: bool = False
    """True: a worker that cannot be ready by `start` is refused (filter `boot`). False: it only ranks last."""
    exclude: frozenset[str] = frozenset()
    """Workers that must not be used."""
    seat_numbers: tuple[int, ...] | None = None
    """Numbers of the seats; None: 1 to `seats`."""
    max_minutes: int | None = None
    """Longest slot that the definition allows; None: any."""

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"{self.reservation}: the slot ends ({self.end}) before it has begun ({self.start})")
        if not 1 <= self.seats <= MAX_SEATS:
            raise ValueError(f"{self.reservation}: {self.seats} seats, not 1 to {MAX_SEATS}")
        if self.seat_numbers is not None and len(set(self.seat_numbers)) != self.seats:
            raise ValueError(f"{self.reservation}: {self.seats} seats, but seat numbers {self.seat_numbers}")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seats' numbers."""
        return self.seat_numbers if self.seat_numbers is not None else tuple(range(1, self.seats + 1))

    @property
    def minutes(self) -> int:
        """Length of the slot."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Booking:
    """One seat that is on the calendar."""

    reservation: str
    seat: int
    worker: str
    start: Minute
    end: Minute
    """End of the slot that was granted."""
    demand: Demand
    ports: tuple[tuple[str, int], ...] = ()
    """Port name → number, in the demand's order."""
    occupied_end: Minute | None = None
    """When the seat really leaves its worker, if that is not `end` (an overrun)."""
    priority: int = 0
    started: bool = False
    """Its lab exists: it cannot be moved, only lost."""

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"{self.reservation}/{self.seat}: the slot ends ({self.end}) before it begins")
        if self.occupied_end is not None and self.occupied_end <= self.start:
            raise ValueError(f"{self.reservation}/{self.seat}: occupied until {self.occupied_end}, before it begins")

    @property
    def until(self) -> Minute:
        """When its cpu, memory and storage are free again (turnaround not included)."""
        return self.end if self.occupied_end is None else self.occupied_end

    @property
    def key(self) -> tuple[str, int]:
        """(reservation, seat)."""
        return (self.reservation, self.seat)


@dataclass(frozen=True, slots=True)
class NearestMiss:
    """The worker that came closest, in the quantity that it lacked (minutes for time, else the dimension's unit)."""

    worker: str | None
    dimension: str
    needed: float
    free: float


@dataclass(frozen=True, slots=True)
class SeatChoice:
    """Why one worker got its seats."""

    worker: str
    seats: tuple[int, ...]
    added_on_minutes: int
    """Minutes of power that these seats add to the worker's calendar."""
    late_minutes: int
    """Minutes after the start at which the worker can be ready at the earliest; 0: in time."""
    fullness: float
    """Share of the worker in use at the slot's peak with these seats, mean of its dimensions, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision's reasons, as data and as a sentence."""

    summary: str
    considered: int
    """Workers looked at."""
    removed: Mapping[str, int]
    """Filter name → workers that it removed (each worker counts once, at the first filter that removes it)."""
    binding: str | None = None
    """What is short: a dimension's name, or a filter's. None for a placement."""
    nearest: NearestMiss | None = None
    seats_wanted: int = 1
    seats_fitting: int = 0
    choices: tuple[SeatChoice, ...] = ()
    feasible: int = 0
    """Workers that could take at least one seat."""


@dataclass(frozen=True, slots=True)
class SeatPlacement:
    """One seat's worker and port numbers."""

    seat: int
    worker: str
    ports: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """All seats have a place."""

    request: PlacementRequest
    seats: tuple[SeatPlacement, ...]
    explanation: Explanation

    def bookings(self) -> tuple[Booking, ...]:
        """What to put on the calendar."""
        wanted = self.request
        return tuple(
            Booking(
                reservation=wanted.reservation,
                seat=seat.seat,
                worker=seat.worker,
                start=wanted.start,
                end=wanted.end,
                demand=wanted.demand,
                ports=seat.ports,
                priority=wanted.priority,
            )
            for seat in self.seats
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """No seat has a place."""

    request: PlacementRequest
    permanent: bool
    """True: not even the empty pool could take it (reject). False: it is full in this slot (wait)."""
    explanation: Explanation
