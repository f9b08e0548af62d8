"""What a run has shown, as one line of JSON beside the records of the benchmarks (`bench/records/fuzz.jsonl`), and as the
table of the documentation, which a test compares with it.

Not in it: the cases. Each is made again from its target and seed, by the version that the record names.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from lablet_common.version import __version__


@dataclass(frozen=True, slots=True)
class Shown:
    """By one target."""

    cases: int
    refused: int
    findings: int
    longest_ms: float
    """Processor time of the slowest case."""
    slowest: int
    """Its seed."""
    memory_mb: float
    """At most in memory beyond what was before the run."""


@dataclass(frozen=True, slots=True)
class Run:
    """Each case within the limits of `run`, or among the findings."""

    targets: Mapping[str, Shown]
    first: int
    """Seed of each target's first case."""
    cases: int
    findings: int
    longest_ms: float
    memory_mb: float
    left_mb: float
    """In memory after the run beyond what was before."""
    seconds: float
    load: float
    """Of the machine over the minute before the end."""
    machine: Mapping[str, str | int]
    ended: str
    version: str

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, line: str) -> Self:
        read = json.loads(line)
        return cls(**{**read, "targets": {name: Shown(**shown) for name, shown in read["targets"].items()}})


def recorded(targets: Mapping[str, Shown], *, first: int, left_mb: float, seconds: float) -> Run:
    """What these have shown, here and now."""
    return Run(
        targets=targets,
        first=first,
        cases=sum(shown.cases for shown in targets.values()),
        findings=sum(shown.findings for shown in targets.values()),
        longest_ms=max(shown.longest_ms for shown in targets.values()),
        memory_mb=max(shown.memory_mb for shown in targets.values()),
        left_mb=round(left_mb, 1),
        seconds=round(seconds),
        load=round(os.getloadavg()[0], 1),
        machine=_this_machine(),
        ended=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=__version__,
    )


def read_runs(file: Path) -> list[Run]:
    return [Run.from_json(line) for line in file.read_text(encoding="utf-8").splitlines()]


def table(run: Run) -> str:
    """The targets in Markdown, the slowest first, and all of them."""
    rows = ["| target | cases | refused | findings | slowest case | most memory |", "|---|---:|---:|---:|---:|---:|"]
    for name, shown in sorted(run.targets.items(), key=lambda one: (-round(one[1].longest_ms), one[0])):
        rows.append(_row(name, shown.cases, shown.refused, shown.findings, shown.longest_ms, shown.memory_mb))
    refused = sum(shown.refused for shown in run.targets.values())
    rows.append(_row("**all**", run.cases, refused, run.findings, run.longest_ms, run.memory_mb))
    return "\n".join(rows)


def _row(name: str, cases: int, refused: int, findings: int, longest_ms: float, memory_mb: float) -> str:
    return f"| {name} | {cases:,} | {refused:,} | {findings} | {longest_ms:.0f} ms | {memory_mb:.0f} MB |"


def _this_machine() -> dict[str, str | int]:
    cpus = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", cpus.read_text(), re.MULTILINE) if cpus.exists() else None
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = platform.system()
    return {
        "processor": named[1].strip() if named else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": system,
        "python": platform.python_version(),
    }
