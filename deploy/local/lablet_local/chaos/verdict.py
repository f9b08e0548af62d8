"""What became of a seed: every check held, a promise was broken, or nothing was proven.

A run can be so starved that no lab ever runs: whoever counts the labs then has nothing to count. That is no broken promise,
and no proof that it was kept either, so it is neither ok nor FAILED. What broke wins over what could not be compared.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lablet_local.chaos.load import Seen
from lablet_local.demo.checks.check import Check, Harm

_NO_CHECK = "checks: none was made"


class Result(StrEnum):
    """Of a seed, or of many."""

    OK = "ok"
    """Every check compared something, and held."""
    FAILED = "FAILED"
    """A check was broken."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """What was compared held, and some check had nothing to compare."""

    @property
    def exit_status(self) -> int:
        """Of the process; 2 is kept for what cannot be run or read at all."""
        return {Result.OK: 0, Result.FAILED: 1, Result.INCONCLUSIVE: 3}[self]


def result_from(broken: Sequence[str], uncompared: Sequence[str]) -> Result:
    """By the claims that did not hold, and those for which there was nothing to compare."""
    if broken:
        return Result.FAILED
    return Result.INCONCLUSIVE if uncompared else Result.OK


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a seed."""

    seed: int
    checks: tuple[Check, ...]
    faults: Counter[str]
    seen: Seen
    converged_seconds: float
    """Real seconds from the last fault until nothing was under way any more."""
    reduced: str = ""
    """What could not be done here, and why."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Reservations by the phase in which they ended."""

    hit: Counter[str] = field(default_factory=Counter)
    """Faults by what they were of: a process, a pair, or nothing where the kind says it."""
    missed: Counter[str] = field(default_factory=Counter)
    """Faults that were planned and did not come about."""

    @property
    def planned(self) -> int:
        """Faults, whatever became of them."""
        return self.faults.total() + self.missed.total()

    @property
    def broken(self) -> list[str]:
        """Every claim that did not hold, with its cases."""
        return [f"{check.source}: {check.claim}: {check.detail}" for check in self.checks if check.broken]

    @property
    def uncompared(self) -> list[str]:
        """Every claim for which there was nothing to compare."""
        if not self.checks:
            return [_NO_CHECK]
        return [f"{check.source}: {check.claim}" for check in self.checks if not check.ok and not check.broken]

    @property
    def result(self) -> Result:
        return result_from(self.broken, self.uncompared)

    @property
    def ok(self) -> bool:
        """Whether the seed has proven something: an inconclusive one has not."""
        return self.result is Result.OK


def never_shown(verdicts: Sequence[Verdict], deeds: Sequence[Sequence[str]]) -> list[str]:
    """What several seeds together say nothing about: kinds of faults that were planned, more than once, and never came about
    (a single one may find etcd away at its moment), and deeds of which none was accepted."""
    done = {kind for verdict in verdicts for kind in verdict.faults}
    missed = sum((verdict.missed for verdict in verdicts), Counter[str]())
    missing = [f"no {kind} came about" for kind in sorted(missed.keys() - done) if missed[kind] > 1]
    return missing + [
        f"no {' or '.join(names)} was accepted"
        for names in deeds
        if not any(verdict.seen.shows(names) for verdict in verdicts)
    ]


def failed(
    seed: int,
    error: BaseException,
    faults: Counter[str] | None = None,
    seen: Seen | None = None,
    missed: Counter[str] | None = None,
) -> Verdict:
    """The verdict on a seed whose mesh did not come back, or could not be looked at: nothing of it is proven."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    check = Check("mesh", "it came back and could be judged", 1, (said,), Harm.UNSETTLED)
    return Verdict(seed, (check,), faults or Counter(), seen or Seen(), 0.0, missed=missed or Counter())
