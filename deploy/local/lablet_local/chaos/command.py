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

from lablet_local.chaos.record import BadRecord, Record, append, read, record_of, result_of, summed, undecided
from lablet_local.chaos.run import NOT_HERE, run_seed
from lablet_local.chaos.verdict import Result, Verdict, failed
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
    """Folder below which the data of a seed that did not hold stay; None: below the system's temporary folder."""
    record: Path | None = None
    """File to which each seed adds its line; seeds that stand in it are not run again, but for inconclusive ones."""

    @property
    def members(self) -> int:
        return MANY if self.ha else 1

    def again(self, seed: int) -> str:
        """The command that plans the same faults."""
        agents = f" --agents {self.agents}" if self.agents else ""
        return f"lablet chaos{' --ha' * self.ha}{agents} --seed {seed} --seconds {self.seconds:g}"


def run_chaos(options: ChaosOptions) -> int:
    """0 when every check of every seed held; 1 when one was broken; 2 where nothing can be run here; 3 when none was broken,
    but a seed is inconclusive in each of its runs. A seed without a verdict, because its mesh did not come back or something
    of the run itself broke, has failed, and the next one is run."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        lab_file = (sample_labs() / f"{_LAB}.yaml").read_bytes()
        records = _run_before(options)
    except (LabsMissing, BadRecord) as error:
        console.print(f"chaos: {error}", markup=False)
        return 2
    decided = {record.seed for record in records if record.result is not Result.INCONCLUSIVE}
    for seed in range(options.first, options.first + options.seeds):
        if seed in decided:
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
    """Prints the table of records. Returns what `run_chaos` does of them; 3 also where there are none."""
    try:
        records = [record for file in files for record in read(file)]
    except (BadRecord, OSError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    print(summed(records))
    return result_of(records).exit_status


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
    """One seed in a few lines; every check that broke, or had nothing to compare."""
    console.print(f"seed {verdict.seed}: {verdict.result} in {seconds:.0f} s", markup=False)
    console.print(f"  faults: {_counted(verdict.faults)}; missed: {_counted(verdict.missed)}", markup=False)
    console.print(f"  answers: {_counted(verdict.seen.outcomes)}", markup=False)
    console.print(f"  every answer by its status: {_counted(verdict.seen.by_class)}", markup=False)
    console.print(f"  reservations: {_counted(verdict.outcomes)}", markup=False)
    console.print(
        f"  longest unavailable {verdict.seen.longest_unavailable:.1f} s, unwritable "
        f"{verdict.seen.longest_unwritable:.1f} s, at rest after {verdict.converged_seconds:.1f} s",
        markup=False,
    )
    if verdict.reduced:
        console.print(f"  reduced: {verdict.reduced}", markup=False)
    for claim in verdict.broken:
        console.print(f"  BROKEN {claim}", markup=False)
    for claim in verdict.uncompared:
        console.print(f"  nothing was compared: {claim}", markup=False)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def summary(records: Sequence[Record], console: Console) -> int:
    """The line that ends a run, behind the seeds that did not hold. Returns the exit status."""
    result = result_of(records)
    not_held = {
        "failed": {record.seed for record in records if record.result is Result.FAILED},
        "inconclusive": {record.seed for record in undecided(records)},
    }
    figures = {
        "seeds": len({record.seed for record in records}),
        "faults": sum(sum(record.faults.values()) for record in records),
        "requests": sum(record.requests for record in records),
        "lost": sum(record.lost for record in records),
        "doubled": sum(record.doubled for record in records),
        "overcommitted": sum(record.overcommitted for record in records),
        "longest_unavailable_seconds": max(record.longest_unavailable for record in records),
    }
    for what, seeds in not_held.items():
        if seeds:
            console.print(f"chaos: {what} seeds: {', '.join(map(str, sorted(seeds)))}", markup=False)
    told = " ".join(f"{name}={value}" for name, value in figures.items())
    console.print(f"chaos: {result} {told}", markup=False)
    return result.exit_status
