"""Whether anything grew, from the record of a soak. Pure.

Growth is judged only where enough time is left after the warm-up: in a run of minutes everything still grows into its work.
What counts things that should not happen is judged always, and from the first sample on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lablet_local.demo.checks.check import Check
from lablet_local.soak.limits import LIMITS, Limit, limit_of
from lablet_local.soak.record import Recorded
from lablet_local.soak.trend import Point, after_warm_up, growth, risen

WARM_UP = 0.2
"""Part of the run."""
JUDGED_SECONDS = 1200.0
"""So much must be left after it."""
_UNKNOWN = Limit("*", "nobody has said how much it may grow")
_SERVICES = ("api-gateway", "scheduler", "worker-controller", "artifact-service")


@dataclass(frozen=True, slots=True)
class Grown:
    """One series from the warm-up's end on."""

    name: str
    limit: Limit
    median: float
    growth: float
    allowed: float
    known: bool = True

    @property
    def ok(self) -> bool:
        return self.known and (not self.limit.judged or self.growth <= self.allowed)

    @property
    def percent(self) -> float:
        """Of its median."""
        return 100 * self.growth / self.median if self.median else 0.0

    @property
    def strain(self) -> float:
        """Which part of what is allowed it took; what only may not grow at all: infinite where it did."""
        if self.allowed:
            return self.growth / self.allowed
        return float("inf") if self.growth > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    seconds: float
    """Of load, as far as it went."""
    judged: bool
    """Whether there was time enough to judge growth."""
    grown: tuple[Grown, ...]
    checks: tuple[Check, ...]
    """What the end was held to."""
    requests: int
    labs: int
    lost: int

    @property
    def too_much(self) -> list[Grown]:
        """What grew beyond its limit, the worst first."""
        found = [one for one in self.grown if not one.ok and (self.judged or one.limit.counted)]
        return sorted(found, key=lambda one: -one.strain)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks) and not self.too_much

    def most(self, measure: str, *whose: str) -> float:
        """The largest growth of a measure in % of its median (of these only, if some are named)."""
        return max(
            (
                one.percent
                for one in self.grown
                if one.name.partition("/")[0] == measure
                and (not whose or one.name.partition("/")[2].rpartition("-")[0] in whose)
            ),
            default=0.0,
        )


def judge(recorded: Recorded, limits: tuple[Limit, ...] = LIMITS) -> Verdict:
    planned = float(recorded.begin["seconds"])
    last = max((one.at for one in recorded.samples if one.at <= planned), default=0.0)
    deeds = _after(recorded, "load/deeds", planned)
    worked = deeds[-1][1] - deeds[0][1] if deeds else 0.0
    names = sorted({name for sample in recorded.samples for name in sample.values})
    checks = [
        Check(str(one["source"]), str(one["claim"]), int(one["lookedAt"]), tuple(map(str, one["broken"])))
        for one in recorded.end.get("checks", ())
    ]
    return Verdict(
        seconds=last if not recorded.end else planned,
        judged=planned * (1 - WARM_UP) >= JUDGED_SECONDS,
        grown=tuple(_grown(recorded, name, worked, limits) for name in names),
        checks=tuple(checks),
        requests=int(recorded.end.get("requests", 0)),
        labs=int(recorded.end.get("labs", 0)),
        lost=int(recorded.end.get("lost", 0)),
    )


def points_of(recorded: Recorded, name: str) -> list[Point]:
    """A series over the time of the load; of what was not there, 0 (a kind without keys has no count)."""
    planned = float(recorded.begin["seconds"])
    return [(one.at, one.values.get(name, 0.0)) for one in recorded.samples if one.at <= planned]


def summary(verdict: Verdict) -> str:
    """The line that ends a run."""
    figures = {
        "hours": f"{verdict.seconds / 3600:.2f}",
        "requests": str(verdict.requests),
        "labs": str(verdict.labs),
        "lost": str(verdict.lost),
        "rss_growth_pct": f"{verdict.most('rss_bytes', *_SERVICES):.1f}",
        "fds_growth_pct": f"{verdict.most('fds', *_SERVICES):.1f}",
        "tasks_growth_pct": f"{verdict.most('tasks'):.1f}",
        "consumers_growth_pct": f"{verdict.most('nats_consumers'):.1f}",
        "etcd_growth_pct": f"{verdict.most('etcd_db_bytes'):.1f}",
        "streams_growth_pct": f"{verdict.most('stream_bytes'):.1f}",
    }
    told = " ".join(f"{name}={value}" for name, value in figures.items())
    return f"soak: {'ok' if verdict.ok else 'FAILED'} {told}" + (
        "" if verdict.judged else " (too short to judge growth)"
    )


def broken(verdict: Verdict) -> list[str]:
    """What did not hold, a line each."""
    found = [f"{check.source}: {check.claim}: {check.detail}" for check in verdict.checks if not check.ok]
    if not verdict.checks:
        found.append("the run was broken off before its end was looked at")
    return found + [
        f"{one.name} grew by {one.growth:.6g}, {one.allowed:.6g} are allowed ({one.limit.words})"
        for one in verdict.too_much
    ]


def by_limit(verdict: Verdict) -> list[tuple[Limit, Sequence[Grown]]]:
    """Series under each limit, those that took most of it first; limits in their order, what is under none last."""
    groups: dict[Limit, list[Grown]] = {limit: [] for limit in LIMITS}
    for one in verdict.grown:
        groups.setdefault(one.limit, []).append(one)
    return [(limit, sorted(found, key=lambda one: -one.strain)) for limit, found in groups.items() if found]


def outcomes(recorded: Recorded) -> Counter[str]:
    """Answers by what was asked."""
    return Counter({str(name): int(count) for name, count in recorded.end.get("answers", {}).items()})


def _after(recorded: Recorded, name: str, planned: float) -> list[Point]:
    return after_warm_up(points_of(recorded, name), planned, WARM_UP)


def _told(recorded: Recorded, name: str) -> list[Point]:
    """What a counter has said: 0 until it was first there; of a sample that lacks it since then nothing is known."""
    planned = float(recorded.begin["seconds"])
    first = next((one.at for one in recorded.samples if name in one.values), 0.0)
    return [
        (one.at, one.values.get(name, 0.0))
        for one in recorded.samples
        if one.at <= planned and (one.at < first or name in one.values)
    ]


def _grown(recorded: Recorded, name: str, deeds: float, limits: tuple[Limit, ...]) -> Grown:
    limit = limit_of(name, limits)
    points = _after(recorded, name, float(recorded.begin["seconds"]))
    middle = median(value for _, value in points) if points else 0.0
    more = risen(_told(recorded, name)) if limit is not None and limit.counted else growth(points)
    if limit is None:
        return Grown(name, _UNKNOWN, middle, more, 0.0, known=False)
    return Grown(name, limit, middle, more, limit.allowed(middle, deeds))
