"""One thing that must hold, and every case in which it did not."""

from dataclasses import dataclass
from enum import StrEnum

_SHOWN = 3


class Harm(StrEnum):
    """What it means for people when a check does not hold."""

    LOST = "lost"
    """Something that was promised, done or told is not there, or not so."""
    DOUBLED = "doubled"
    """Something was done, made or told that was to be once, or by nobody."""
    OVERCOMMITTED = "overcommitted"
    """More was given away than there is."""
    UNSETTLED = "unsettled"
    """Something is not answered or not at its end."""


@dataclass(frozen=True, slots=True)
class Check:
    source: str
    """Who says so: etcd, events, simulators or story."""
    claim: str
    """A sentence that is true when the check holds."""
    looked_at: int
    """How many cases were compared; none at all is a failure too."""
    broken: tuple[str, ...] = ()
    harm: Harm = Harm.UNSETTLED

    @property
    def ok(self) -> bool:
        return self.looked_at > 0 and not self.broken

    @property
    def detail(self) -> str:
        """How many were compared, or what broke it."""
        if self.ok:
            return f"{self.looked_at} compared"
        if not self.broken:
            return "nothing to compare"
        more = len(self.broken) - _SHOWN
        return "; ".join(self.broken[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
