"""`lablet chaos`: seed after seed, what each did and found, and one line at the end."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lablet_local.chaos.record import BadRecord, Record, append, read, record_of, summed
from lablet_local.chaos.run import NOT_HERE, Verdict, failed, run_seed
from lablet_local.demo.command import LabsMissing, sample_labs
from lablet_local.members import MANY

_LAB = "ospf-basics"


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    first: int = 1
    seeds: int = 1
    seconds: float = 30.0
    ha: bool = False
    """Three members of etcd and of NATS."""
    agents: int = 0
    """Hosts that run jobs."""
    keep: Path | None = None
    """Folder below which a failed seed's data stay; None: below the system's temporary folder."""
    record: Path | None = None
    """File to which each seed adds its line; seeds that stand in it are not run again."""

    @property
    def members(self) -> int:
        return MANY if self.ha else 1

    def again(self, seed: int) -> str:
        """The command that plans the same faults."""
        agents = f" --agents {self.agents}" if self.agents else ""
        return f"lablet chaos{' --ha' * self.ha}{agents} --seed {seed} --seconds {self.seconds:g}"


def run_chaos(options: ChaosOptions) -> int:
    """0 when every check of every seed held; 2 where nothing can be run here. A seed without a verdict, because its mesh did
    not come back or something of the run itself broke, has failed, and the next one is run."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        lab_file = (sample_labs() / f"{_LAB}.yaml").read_bytes()
        records = _run_before(options)
    except (LabsMissing, BadRecord) as error:
        console.print(f"chaos: {error}", markup=False)
        return 2
    before = {record.seed for record in records}
    for seed in range(options.first, options.first + options.seeds):
        if seed in before:
            continue
        try:
            record = _one(seed, options, lab_file, console)
        except NOT_HERE as error:
            console.print(f"chaos: no mesh can be started here: {error}", markup=False)
            return 2
        if options.record is not None:
            append(options.record, record)
        records.append(record)
    return summary(records, console)


def run_sum(files: Sequence[Path]) -> int:
    """Prints the table of records. 0 when there are some and every check held."""
    try:
        records = [record for file in files for record in read(file)]
    except (BadRecord, OSError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    print(summed(records))
    return 0 if records and all(record.ok for record in records) else 1


def _run_before(options: ChaosOptions) -> list[Record]:
    """What the record says of the seeds that are asked for, run in the same way."""
    if options.record is None or not options.record.exists():
        return []
    seeds = range(options.first, options.first + options.seeds)
    wanted = {(seed, options.members, options.agents, options.seconds) for seed in seeds}
    return [record for record in read(options.record) if record.same_run in wanted]


def _one(seed: int, options: ChaosOptions, lab_file: bytes, console: Console) -> Record:
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"lablet-chaos-{seed}-", dir=options.keep))
    began = time.monotonic()
    living = run_seed(
        seed,
        options.seconds,
        folder / "mesh",
        lab_file,
        lambda words: console.print(f"  {words}", markup=False),
        ha=options.ha,
        agents=options.agents,
    )
    try:
        verdict = asyncio.run(living)
    except NOT_HERE:
        raise
    except Exception as error:  # noqa: BLE001 - whatever ends a seed without a verdict is the worst verdict
        verdict = failed(seed, error)
    took = time.monotonic() - began
    show(verdict, console, took)
    if verdict.ok:
        shutil.rmtree(folder)
    else:
        console.print(f"  kept: {folder}; again: {options.again(seed)}", markup=False)
    return record_of(verdict, members=options.members, agents=options.agents, seconds=options.seconds, took=took)


def show(verdict: Verdict, console: Console, seconds: float) -> None:
    """One seed in a few lines; every check that broke."""
    console.print(f"seed {verdict.seed}: {'ok' if verdict.ok else 'FAILED'} in {seconds:.0f} s", markup=False)
    console.print(f"  faults: {_counted(verdict.faults)}", markup=False)
    console.print(f"  answers: {_counted(verdict.seen.outcomes)}", markup=False)
    console.print(f"  reservations: {_counted(verdict.outcomes)}", markup=False)
    console.print(
        f"  longest unavailable {verdict.seen.longest_unavailable:.1f} s, at rest after {verdict.converged_seconds:.1f} s",
        markup=False,
    )
    if verdict.reduced:
        console.print(f"  reduced: {verdict.reduced}", markup=False)
    for check in verdict.checks:
        if not check.ok:
            console.print(f"  BROKEN {check.source}: {check.claim}: {check.detail}", markup=False)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def summary(records: Sequence[Record], console: Console) -> int:
    """The line that ends a run."""
    failed = sorted({record.seed for record in records if not record.ok})
    figures = {
        "seeds": len({record.seed for record in records}),
        "faults": sum(sum(record.faults.values()) for record in records),
        "requests": sum(record.requests for record in records),
        "lost": sum(record.lost for record in records),
        "doubled": sum(record.doubled for record in records),
        "overcommitted": sum(record.overcommitted for record in records),
        "longest_unavailable_seconds": max(record.longest_unavailable for record in records),
    }
    if failed:
        console.print(f"chaos: failed seeds: {', '.join(map(str, failed))}", markup=False)
    told = " ".join(f"{name}={value}" for name, value in figures.items())
    console.print(f"chaos: {'FAILED' if failed else 'ok'} {told}", markup=False)
    return 1 if failed else 0
