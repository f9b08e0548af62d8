"""Cases given to their targets, each held to its limits: no error but a refusal with words, one second, so much memory.

A case is named by target and seed, so that it can be made again alone. A reader that hangs is interrupted by an alarm (this
runs in the main thread); one that hangs inside C code is seen when it comes back, by the clock. What a case may take of
memory is a limit of the kernel's on the address space, so that it is held below an earlier high water too; what the cases
leave behind is seen by how much the process has grown in the end.
"""

import argparse
import random
import re
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lablet_local.fuzz.mutate import spoilt
from lablet_local.fuzz.record import Shown, recorded, table
from lablet_local.fuzz.targets import TARGETS, Target

MOST_SECONDS = 1.0
"""For one case, in CPU time of this process: a busy machine is no defect."""
MOST_GROWTH_MB = 200
"""That one case may take beyond what the process has, and that all of them may leave behind."""
_ROUND = 50_000
_MB = 1024 * 1024


class Hung(BaseException):
    """Not an Exception: no reader may take it for bad input."""


@dataclass(frozen=True, slots=True)
class Finding:
    target: str
    seed: int
    what: str


@dataclass(slots=True)
class Tally:
    """Of one target."""

    cases: int = 0
    refused: int = 0
    longest_seconds: float = 0.0
    slowest: int = 0
    """Seed of the case that took longest."""
    memory_mb: float = 0.0
    """At most in memory while its cases were read, beyond what was before the run."""


@dataclass(slots=True)
class Report:
    findings: list[Finding] = field(default_factory=list)
    by_target: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    @property
    def cases(self) -> int:
        return sum(tally.cases for tally in self.by_target.values())

    @property
    def refused(self) -> int:
        return sum(tally.refused for tally in self.by_target.values())

    def shown(self) -> dict[str, Shown]:
        """For the record."""
        return {
            name: Shown(
                cases=tally.cases,
                refused=tally.refused,
                findings=sum(finding.target == name for finding in self.findings),
                longest_ms=round(1000 * tally.longest_seconds, 1),
                slowest=tally.slowest,
                memory_mb=round(tally.memory_mb, 1),
            )
            for name, tally in sorted(self.by_target.items())
        }


def case_of(target: Target, seed: int) -> bytes:
    """The case that target and seed name."""
    return spoilt(random.Random(f"{target.name}/{seed}"), target.examples)


def give(target: Target, seed: int, report: Report) -> None:
    """One case, with what became of it in the report."""
    case, tally = case_of(target, seed), report.by_target[target.name]
    began = time.process_time()
    try:
        with _alarm(), _bounded():
            target.read(case)
    except MemoryError:
        report.findings.append(Finding(target.name, seed, f"took more than {MOST_GROWTH_MB} MB"))
    except target.refusals as refusal:
        tally.refused += 1
        if why := unsaid(refusal):
            report.findings.append(Finding(target.name, seed, f"{type(refusal).__name__} {why}"))
    except Hung:
        report.findings.append(Finding(target.name, seed, f"not done after {MOST_SECONDS:g} s"))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        report.findings.append(Finding(target.name, seed, f"{type(error).__name__}: {error}"[:300]))
    took = time.process_time() - began
    if took > tally.longest_seconds:
        tally.longest_seconds, tally.slowest = took, seed
    tally.cases += 1


def unsaid(refusal: Exception) -> str:
    """What is wrong with the refusal's words; empty: nothing."""
    words = str(refusal)
    try:
        words.encode()
    except UnicodeEncodeError:
        return "with words that no answer can hold"
    return "" if words.strip() else "without words"


def run(targets: Sequence[Target], cases: int, first: int = 0, *, seconds: float = float("inf")) -> Report:
    """About so many cases, shared among the targets by their shares, at least one each, and in rounds: whichever round ends
    after so many seconds of real time is the last."""
    report, before, end = Report(), _memory_mb()[1], time.monotonic() + seconds
    whole = sum(target.share for target in targets)
    for this_round in range(rounds := max(1, cases // _ROUND)):
        for target in targets:
            most = max(1, cases * target.share // whole)
            _forget_high_water()
            for number in range(most * this_round // rounds, most * (this_round + 1) // rounds):
                give(target, first + number, report)
            tally = report.by_target[target.name]
            tally.memory_mb = max(tally.memory_mb, _high_water_mb() - before)
        if time.monotonic() >= end:
            break
    return report


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _bounded() -> Iterator[None]:
    """Inside, `MOST_GROWTH_MB` more of memory is a `MemoryError`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = int((_memory_mb()[0] + MOST_GROWTH_MB) * _MB)
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _memory_mb() -> tuple[float, float]:
    """Address space, and what of it is in memory now."""
    space, resident = Path("/proc/self/statm").read_text().split()[:2]
    page = resource.getpagesize() / _MB
    return int(space) * page, int(resident) * page


def _forget_high_water() -> None:
    """What was the most in memory so far counts no more."""
    Path("/proc/self/clear_refs").write_text("5")


def _high_water_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lablet_local.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="seed of each target's first case")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after the round in which these are over"
    )
    parser.add_argument("--record", type=Path, help="add a line with what was shown to this file")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], help="this one only")
    parser.add_argument("--show", type=int, metavar="SEED", help="print the case of --target with this seed, and end")
    options = parser.parse_args(arguments)
    chosen = [target for target in TARGETS if options.target in (None, target.name)]
    if options.show is not None:
        if len(chosen) != 1:
            parser.error("--show needs --target")
        sys.stdout.buffer.write(case_of(chosen[0], options.show))
        return 0
    run(chosen, 2_000, first=10**9)  # what is loaded once is no growth
    before, began = _memory_mb()[1], time.monotonic()
    report = run(chosen, options.cases, options.first, seconds=60 * options.minutes)
    grown = _memory_mb()[1] - before
    shown = recorded(report.shown(), first=options.first, left_mb=grown, seconds=time.monotonic() - began)
    if options.record is not None:
        with options.record.open("a", encoding="utf-8") as file:
            file.write(shown.to_json())
    for finding in report.findings:
        print(f"{finding.target} seed {finding.seed}: {finding.what}")
    print(table(shown))
    ok = not report.findings and grown < MOST_GROWTH_MB
    print(
        f"fuzz: {'ok' if ok else 'FAILED'} cases={shown.cases} refused={report.refused} findings={shown.findings} "
        f"longest_ms={shown.longest_ms:.0f} memory_mb={shown.memory_mb:.0f} memory_growth_mb={grown:.0f} "
        f"seconds={shown.seconds:.0f}"
    )
    return 0 if ok else 1
