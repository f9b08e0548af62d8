"""Jobs under faults: each writes a line into a ledger all the time while it runs, so that what really ran is known from the
processes themselves, whatever agents and mesh say. The check is pure."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from lablet_local.chaos.load import Seen
from lablet_local.demo.books import below
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence

_TICKS = 15
_TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Ran:
    """One life of a job, from its first line to its last. Unix seconds."""

    job: str
    worker: str
    process: int
    begin: float
    end: float


class Ledger:
    """The file that jobs write to: labs run as another user where the agents' user is root."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="lablet-chaos-jobs-", dir="/var/tmp")
        os.fchmod(descriptor, 0o666 if os.geteuid() == 0 else 0o600)
        os.close(descriptor)
        self.path = Path(name)

    def manifest(self, job: str) -> bytes:
        """A lab of one process that writes for a while and ends by itself."""
        line = f"echo {job} $LABLET_WORKER $$ $(date +%s.%N) >> {self.path}"
        script = f"i=0; while [ $i -lt {_TICKS} ]; do {line}; i=$((i+1)); sleep {_TICK_SECONDS}; done"
        node = {
            "name": "a",
            "command": ["/bin/sh", "-c", script],
            "resources": {"cpu": 0.1, "memory": "64Mi"},
        }
        return f"kind: ProcessLab\nuntil: completed\nnodes: {json.dumps([node])}\n".encode()

    def read(self) -> tuple[Ran, ...]:
        return tuple(lives(self.path.read_text(encoding="utf-8").splitlines()))

    def remove(self) -> None:
        self.path.unlink()


def lives(lines: Iterable[str]) -> Iterator[Ran]:
    """Lines of the ledger as lives. A line cut short by the end of its process is left out."""
    ticks: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for line in lines:
        words = line.split()
        if len(words) == 4:
            ticks[words[0], words[1], int(words[2])].append(float(words[3]))
    for (job, worker, process), times in ticks.items():
        yield Ran(job, worker, process, min(times), max(times))


def never_twice(evidence: Evidence, seen: Seen, ran: Iterable[Ran]) -> Check:
    """No job had two lives at a time, nor more lives than its instance had attempts."""
    of_job: dict[str, list[Ran]] = defaultdict(list)
    for one in ran:
        of_job[one.job].append(one)
    attempts: dict[str, int] = defaultdict(int)
    for instance in below(evidence, "/instances/").values():
        job = str(instance["spec"]["definition"]).partition("@")[0]
        attempts[job] += int(instance["status"].get("attempt", 1))
    broken = []
    for job, found in of_job.items():
        broken += [
            f"{job} ran on {one.worker} and {other.worker} at a time"
            for one, other in combinations(found, 2)
            if one.begin <= other.end and other.begin <= one.end
        ]
        if len(found) > attempts[job]:
            broken.append(f"{job} was run {len(found)} times in {attempts[job]} attempts")
    asked = sum(one.what == "run" for one in seen.accepted)
    return Check("processes", "no job ran twice", min(asked, len(of_job)), tuple(broken), Harm.DOUBLED)
