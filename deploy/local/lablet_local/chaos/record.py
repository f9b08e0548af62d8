"""What each seed did and found, one JSON line each, so that hundreds of them can be run in pieces and summed up later.

A line is written in one piece when its seed is judged; one that was cut short (the machine went off) is passed over. Every
line counts: a seed that failed once is not unmade by a later run. An inconclusive line leaves its seed open, until some run
of the same plan is conclusive.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lablet_common.version import __version__
from lablet_local.chaos.verdict import Result, Verdict, result_from
from lablet_local.demo.checks.check import Harm

_COLUMNS = (
    "mesh", "runs", "seeds", "ok", "failed", "inconclusive", "faults", "requests", "lost", "doubled", "over-committed",
    "unsettled", "longest unavailable", "slowest to rest",
)  # fmt: skip
_UNCOMPARED = ": nothing to compare"
"""How the lines from before `uncompared` end what is listed as broken for want of anything to compare."""


class BadRecord(ValueError):
    """A line that is no record; names file and line."""


class Record(BaseModel):
    """One seed that was lived through and judged. Spans are real seconds."""

    model_config = ConfigDict(frozen=True)

    seed: int
    members: int
    """Of etcd and of NATS."""
    agents: int = 0
    seconds: float
    """Of faults."""
    took: float
    """From the mesh's start to its end."""
    faults: dict[str, int]
    missed: dict[str, int] = {}
    """Faults that were planned and did not come about; none in lines from before they were counted."""
    answers: dict[str, int]
    statuses: dict[str, int] = {}
    """Every answer, to reads and each try, by class of its status, from 500 on by the status itself; none in early lines."""
    reservations: dict[str, int]
    requests: int
    lost: int
    doubled: int
    overcommitted: int
    unsettled: int = 0
    """Not answered, not at its end in time, or a mesh that did not come back."""
    longest_unavailable: float
    longest_unwritable: float | None = None
    """Without a POST that was accepted; None in earlier lines."""
    at_rest_after: float
    broken: list[str]
    """Every claim that did not hold, with its cases."""
    uncompared: list[str] = []
    """Every claim for which there was nothing to compare."""
    reduced: str = ""
    ended: datetime
    version: str = __version__

    @model_validator(mode="before")
    @classmethod
    def _told_apart(cls, body: Any) -> Any:
        """Earlier lines list both kinds as broken."""
        if not isinstance(body, dict) or "uncompared" in body or not isinstance(body.get("broken"), list):
            return body
        claims = [str(claim) for claim in body["broken"]]
        return body | {
            "broken": [claim for claim in claims if not claim.endswith(_UNCOMPARED)],
            "uncompared": [claim.removesuffix(_UNCOMPARED) for claim in claims if claim.endswith(_UNCOMPARED)],
        }

    @property
    def result(self) -> Result:
        return result_from(self.broken, self.uncompared)

    @property
    def same_run(self) -> tuple[int, int, int, float]:
        """What makes the same plan again."""
        return self.seed, self.members, self.agents, self.seconds

    @property
    def mesh(self) -> str:
        """Of what kind it was."""
        told = f"{self.members} etcd, {self.members} NATS"
        return told + (f", {self.agents} agents" if self.agents else "")


def record_of(verdict: Verdict, *, members: int, agents: int = 0, seconds: float, took: float) -> Record:
    """The line of a verdict, as of now."""

    def broken(harm: Harm) -> int:
        return sum(len(check.broken) for check in verdict.checks if check.harm is harm)

    return Record(
        seed=verdict.seed,
        members=members,
        agents=agents,
        seconds=seconds,
        took=round(took, 1),
        faults=dict(sorted(verdict.faults.items())),
        missed=dict(sorted(verdict.missed.items())),
        answers=dict(sorted(verdict.seen.outcomes.items())),
        statuses=dict(sorted(verdict.seen.by_class.items())),
        reservations=dict(sorted(verdict.outcomes.items())),
        requests=len(verdict.seen.asked),
        lost=broken(Harm.LOST),
        doubled=broken(Harm.DOUBLED),
        overcommitted=broken(Harm.OVERCOMMITTED),
        unsettled=broken(Harm.UNSETTLED),
        longest_unavailable=round(verdict.seen.longest_unavailable, 1),
        longest_unwritable=round(verdict.seen.longest_unwritable, 1),
        at_rest_after=round(verdict.converged_seconds, 1),
        broken=verdict.broken,
        uncompared=verdict.uncompared,
        reduced=verdict.reduced,
        ended=datetime.now(UTC).replace(microsecond=0),
    )


def append(path: Path, record: Record) -> None:
    """Adds the line and sees it onto the disk. What an earlier run left half written is ended first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + record.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Iterator[Record]:
    """Every record of a file. Raises `BadRecord`, `OSError`."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            body = json.loads(line)
        except json.JSONDecodeError as error:
            if line.startswith("{"):  # cut short while it was written
                continue
            raise BadRecord(f"{path}:{number} is no record: {error}") from error
        try:
            yield Record.model_validate(body)
        except ValidationError as error:
            raise BadRecord(f"{path}:{number} is no record: {error.errors()[0]['msg']}") from error


def undecided(records: Sequence[Record]) -> list[Record]:
    """The inconclusive ones of whose plan no run was conclusive, whether before or after."""
    decided = {record.same_run for record in records if record.result is not Result.INCONCLUSIVE}
    return [record for record in records if record.same_run not in decided]


def result_of(records: Sequence[Record]) -> Result:
    """Of all together: one that failed is enough to fail, one that is undecided to prove nothing; so are none at all."""
    if any(record.result is Result.FAILED for record in records):
        return Result.FAILED
    return Result.INCONCLUSIVE if not records or undecided(records) else Result.OK


def summed(records: Iterable[Record]) -> str:
    """The table of docs/reliability/fault-runs.md, with a row for each kind of mesh, and the faults by kind."""
    kinds: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        kinds[record.mesh].append(record)
    rows = [f"| {' | '.join(_COLUMNS)} |", "|---|" + "---:|" * (len(_COLUMNS) - 1)]
    rows += [_row(mesh, found) for mesh, found in sorted(kinds.items())]
    together = [record for found in kinds.values() for record in found]
    faults: Counter[str] = Counter()
    for record in together:
        faults.update(record.faults)
    told = ", ".join(f"{count:,} {kind}" for kind, count in faults.most_common()) or "none"
    missed: Counter[str] = Counter()
    for record in together:
        missed.update(record.missed)
    if missed:
        told += f"; {missed.total():,} more were planned and did not come about"
    rows += ["", f"Faults: {told}. Together {sum(record.took for record in together) / 3600:.1f} hours."]
    rows += [
        f"Seed {record.seed} ({record.mesh}) failed: {'; '.join(record.broken)}"
        for record in together
        if record.result is Result.FAILED
    ]
    still = undecided(together)
    rows += [
        f"Seed {record.seed} ({record.mesh}) was inconclusive{'' if record in still else ', and not so in another run'}: "
        f"nothing was compared for {'; '.join(record.uncompared)}"
        for record in together
        if record.result is Result.INCONCLUSIVE
    ]
    return "\n".join(rows)


def _row(mesh: str, found: Sequence[Record]) -> str:
    cells: list[object] = [
        mesh,
        len(found),
        len({record.seed for record in found}),
        *(sum(record.result is result for record in found) for result in Result),
        f"{sum(sum(record.faults.values()) for record in found):,}",
        f"{sum(record.requests for record in found):,}",
        sum(record.lost for record in found),
        sum(record.doubled for record in found),
        sum(record.overcommitted for record in found),
        sum(record.unsettled for record in found),
        f"{max(record.longest_unavailable for record in found):.1f} s",
        f"{max(record.at_rest_after for record in found):.0f} s",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"
