"""How fast lab time may run: a take-over must not eat more than half of the lead time before a slot.

When an owner dies, its shards are taken over within the lease's TTL + 2 real seconds; at speed S that is S times as much
lab time, in which nothing is decided or prepared.
"""

from dataclasses import dataclass

TAKE_OVER_EXTRA_SECONDS = 2.0
_SHORTEST_TTL = 2.0
_USUAL_TTL = 3.0
DEFAULT_LEAD_MINUTES = 35.0


class TooFast(ValueError):
    """A speed (or lead time) at which a take-over would come too late; the message has the largest that is allowed."""


@dataclass(frozen=True, slots=True)
class Pace:
    speed: float
    """Lab seconds in one real second."""
    lead_minutes: float
    lease_ttl: float
    """Real seconds."""


def largest_speed(lead_minutes: float, lease_ttl: float = _SHORTEST_TTL) -> float:
    """The fastest that still leaves half of the lead time after a take-over."""
    return lead_minutes * 60 / 2 / (lease_ttl + TAKE_OVER_EXTRA_SECONDS)


def choose_pace(speed: float, lead_minutes: float = DEFAULT_LEAD_MINUTES, lease_ttl: float | None = None) -> Pace:
    """A lease TTL of 3 s where it fits, else of 2 s. Raises `TooFast` when neither (or the given one) does."""
    if speed <= 0:
        raise TooFast(f"the speed must be above 0, not {speed:g}")
    for ttl in (lease_ttl,) if lease_ttl is not None else (_USUAL_TTL, _SHORTEST_TTL):
        if speed <= largest_speed(lead_minutes, ttl):
            return Pace(speed, lead_minutes, ttl)
    shortest = lease_ttl if lease_ttl is not None else _SHORTEST_TTL
    limit = largest_speed(lead_minutes, shortest)
    raise TooFast(
        f"speed {speed:g} is too fast: a take-over (lease {shortest:g} s + {TAKE_OVER_EXTRA_SECONDS:g} s) would eat "
        f"more than half of the lead time of {lead_minutes:g} lab minutes; the largest speed allowed is {int(limit)}"
    )
