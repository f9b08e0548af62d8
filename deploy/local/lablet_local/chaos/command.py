"""`lablet chaos`: seed after seed, what each did and found, and one line at the end."""

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lablet_local.chaos.run import Verdict, run_seed
from lablet_local.demo.command import LabsMissing, sample_labs

_LAB = "ospf-basics"


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    first: int = 1
    seeds: int = 1
    seconds: float = 30.0
    ha: bool = False
    """Three members of etcd and of NATS."""
    keep: Path | None = None
    """Folder below which a failed seed's data stay; None: below the system's temporary folder."""


def run_chaos(options: ChaosOptions) -> int:
    """0 when every check of every seed held."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        lab_file = (sample_labs() / f"{_LAB}.yaml").read_bytes()
    except LabsMissing as error:
        console.print(f"chaos: {error}", markup=False)
        return 2
    seeds = range(options.first, options.first + options.seeds)
    verdicts = [_one(seed, options, lab_file, console) for seed in seeds]
    return summary(verdicts, console)


def _one(seed: int, options: ChaosOptions, lab_file: bytes, console: Console) -> Verdict:
    folder = Path(tempfile.mkdtemp(prefix=f"lablet-chaos-{seed}-", dir=options.keep))
    began = time.monotonic()
    verdict = asyncio.run(
        run_seed(
            seed,
            options.seconds,
            folder / "mesh",
            lab_file,
            lambda words: console.print(f"  {words}", markup=False),
            ha=options.ha,
        )
    )
    show(verdict, console, time.monotonic() - began)
    if verdict.ok:
        shutil.rmtree(folder)
    else:
        console.print(
            f"  kept: {folder}; again: lablet chaos{' --ha' * options.ha} --seed {seed} --seconds {options.seconds:g}",
            markup=False,
        )
    return verdict


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


def summary(verdicts: list[Verdict], console: Console) -> int:
    """The line that ends a run."""
    failed = [verdict.seed for verdict in verdicts if not verdict.ok]

    def broken(*words: str) -> int:
        return sum(
            len(check.broken)
            for verdict in verdicts
            for check in verdict.checks
            if any(word in check.claim for word in words)
        )

    figures = {
        "seeds": len(verdicts),
        "faults": sum(verdict.faults.total() for verdict in verdicts),
        "requests": sum(len(verdict.seen.asked) for verdict in verdicts),
        "lost": broken("answered in the end", "exactly one outcome", "made exactly once", "was published"),
        "doubled": broken("two places", "two machines", "left over"),
        "overcommitted": broken("beyond its capacity", "never needed more", "more nodes than its licence"),
        "longest_unavailable_seconds": round(max(verdict.seen.longest_unavailable for verdict in verdicts), 1),
    }
    if failed:
        console.print(f"chaos: failed seeds: {', '.join(map(str, failed))}", markup=False)
    told = " ".join(f"{name}={value}" for name, value in figures.items())
    console.print(f"chaos: {'FAILED' if failed else 'ok'} {told}", markup=False)
    return 1 if failed else 0
