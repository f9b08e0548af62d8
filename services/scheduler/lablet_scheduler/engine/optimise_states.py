"""What a worker is like at one instant, reduced to what the rest of its calendar can notice.

Seats are put on workers in the order of their start. Seen from the start of the next seat, all that matters of a
worker is its kind, until when it is on, and what still runs on it; whether the seat fits, and how many minutes of power
it adds, follow from these three exactly (usage only ever rises at a start). Such a `State` gets a number, and each
answer is worked out once: the optimiser asks the same few thousand questions millions of times.

Port numbers and counted licences are not in a state: ports are only counted, licences are asked elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

from .model import Minute
from .timeline import SOFT

Quantities = tuple[int, ...]
"""cpu, memory, storage (thousandths), nodes, ports: the timeline's rows but the last."""

OFF: Minute = -(2**40)
"""Until when a worker is on that is off, or has been needed so long ago that it makes no difference."""

MOST_STATES = 400_000
"""States remembered before the optimiser has to begin a fresh book (some 200 MB)."""


class Kind(NamedTuple):
    """Workers that are the same to every seat. `lead` and `bridge` in minutes."""

    capacity: Quantities
    lead: int
    bridge: int
    signature: object
    """What the filters look at: workers of one kind are admitted to the same seats."""


class Load(NamedTuple):
    """Seats of one reservation that are alike: a load is what one of them puts on a worker."""

    start: Minute
    until: Minute
    """When cpu, memory and storage are free again."""
    hold: Minute
    """When nodes, ports and power are free again."""
    amounts: Quantities
    movable: bool


class Step(NamedTuple):
    """What comes of one more seat."""

    state: int
    added: int
    """Minutes of power."""
    before: int
    """Seats of the same load that were there already."""


class StateBook:
    """All states met so far, and what comes of putting loads on them."""

    def __init__(self, loads: list[Load]) -> None:
        self.loads = loads
        self._numbers: dict[tuple[Kind, Minute, tuple[int, ...]], int] = {}
        self._states: list[tuple[Kind, Minute, tuple[int, ...]]] = []
        self.steps: list[dict[int, Step | None]] = [{} for _ in loads]
        """Per load: state → what comes of it (None: it does not fit)."""
        self._aged: dict[Minute, dict[int, int]] = {}

    @property
    def full(self) -> bool:
        """True when it is time for a new book."""
        return len(self._states) > MOST_STATES

    def empty(self, kind: Kind) -> int:
        """The state of a worker that is off."""
        return self._number((kind, OFF, ()))

    def aged(self, minute: Minute) -> dict[int, int]:
        """State → state at a later minute, as far as known: ask `age` for what is missing."""
        return self._aged.setdefault(minute, {})

    def age(self, state: int, minute: Minute) -> int:
        """The same worker at a later minute."""
        kind, on_until, active = self._states[state]
        loads = self.loads
        left = tuple(load for load in active if loads[load].hold > minute)
        later = self._number((kind, on_until if on_until >= minute - kind.bridge else OFF, left))
        self._aged[minute][state] = later
        return later

    def enter(self, state: int, load: int) -> Step | None:
        """One more seat of a load on a worker whose state has been aged to the load's start; None: it does not fit.

        A seat that cannot move is let in where it is, unless a movable one would be in its way: facts over the limit
        are not the optimiser's to judge."""
        kind, on_until, active = self._states[state]
        loads = self.loads
        start, _, hold, amounts, movable = loads[load]
        step: Step | None = None
        if self._fits(kind, active, start, amounts) or not (movable or any(loads[one].movable for one in active)):
            if on_until >= hold:
                added, until = 0, on_until
            elif on_until >= start - kind.bridge:
                added, until = hold - on_until, hold
            else:
                added, until = kind.lead + hold - start, hold
            step = Step(self._number((kind, until, tuple(sorted((*active, load))))), added, active.count(load))
        self.steps[load][state] = step
        return step

    def _fits(self, kind: Kind, active: tuple[int, ...], start: Minute, amounts: Quantities) -> bool:
        loads = self.loads
        for row, (most, need) in enumerate(zip(kind.capacity, amounts, strict=True)):
            used = 0
            for one in active:
                other = loads[one]
                if row >= SOFT or other.until > start:
                    used += other.amounts[row]
            if used + need > most:
                return False
        return True

    def _number(self, state: tuple[Kind, Minute, tuple[int, ...]]) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._states)
            self._states.append(state)
        return number
