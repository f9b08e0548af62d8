"""`python -m lablet_local.simulation`: many seeds, or a term of weeks, and one line about them.

    --seeds N --first S --jobs J      seeds S to S+N-1, on J processors
    --weeks W --first S               one world in which W weeks of classes are taught
    --only 17,1:45                    these seeds, behind a colon one of an earlier generation of worlds

A failing seed is named with what did not hold, and `--only SEED` lives it again, step by step the same: Python's hashes are
fixed for that, by starting the interpreter anew where they are not.
"""

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

from lablet_common.testing.simulation import Weather
from lablet_local.chaos.licences import HELD
from lablet_local.simulation.story import GENERATION, Shape
from lablet_local.simulation.trial import Verdict, trial

_HASH_SEED = "PYTHONHASHSEED"
_CHUNK = 8
_ENOUGH = 6
"""So many small worlds together must have had something to compare for every check that was made, and something must have
gone wrong."""
_MANY = 30
"""Among so many some have bridges, and some count licences."""


def term(weeks: int) -> Shape:
    """So many weeks of classes, with something going wrong nearly every day."""
    weather = Weather(slow=0.1, latency=0.02, late=0.005, refused=0.002, answer_lost=0.002, overtaken=0.002, cut=0.002)
    return Shape(
        weeks=weeks, workers=4, deaths=4 * weeks, freezes=2 * weeks, machines_lost=3 * weeks, drains=weeks,
        compactions=weeks, bridges=True, licences=2, weather=weather, late_boots=0.1, failed_boots=0.03,
    )  # fmt: skip


def lived(seed: int, shape: Shape | None, generation: int = GENERATION) -> Verdict:
    """A seed's verdict, or what its world fell apart with."""
    gc.disable()  # a world is small and ends as a whole
    _freeze()
    try:
        return trial(seed, shape, generation=generation)
    except Exception as error:  # noqa: BLE001 - a seed that cannot be lived through has failed
        return Verdict(seed, (), "", 0, 0, 0, 0.0, (repr(error),), generation)
    finally:
        gc.enable()
        gc.collect()


@cache
def _freeze() -> None:
    """What was there before the first world, modules above all, is looked through no more when the garbage of one is."""
    gc.collect()
    gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if os.environ.get(_HASH_SEED) != "0":
        command = [sys.executable, "-m", "lablet_local.simulation", *arguments]
        os.execve(sys.executable, command, os.environ | {_HASH_SEED: "0"})  # noqa: S606 - itself
    parser = argparse.ArgumentParser(prog="simulate", description="Seeds of the simulated world.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument(
        "--only", default="", help="these seeds, separated by commas; 1:45 is one of the first generation"
    )
    parser.add_argument("--generation", type=int, default=GENERATION, choices=range(1, GENERATION + 1))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--weeks", type=int, default=0)
    parser.add_argument("--traces", action="store_true", help="a line for each seed, with its trace")
    asked = parser.parse_args(arguments)
    seeds = [_named(one, asked.generation) for one in asked.only.split(",") if one] or [
        (seed, asked.generation) for seed in range(asked.first, asked.first + asked.seeds)
    ]
    shape = term(asked.weeks) if asked.weeks else None
    began = time.monotonic()
    found: list[Verdict] = []
    for verdict in _verdicts(seeds[:1] if shape else seeds, shape, asked.jobs):
        found.append(verdict)
        if asked.traces:
            print(f"seed {verdict.name}: trace={verdict.trace} steps={verdict.steps}", flush=True)
        for line in verdict.broken:
            print(f"seed {verdict.name}: {line}", flush=True)
    failed = [verdict.name for verdict in found if not verdict.ok]
    many = shape is not None or len(found) >= _MANY
    counted = shape is not None or sum(verdict.generation > 1 for verdict in found) >= _MANY
    missing = unproven(found, bridges=many, licences=counted) if shape or len(found) >= _ENOUGH else []
    for claim in missing:
        print(f"nothing was compared: {claim}", flush=True)
    print(_line(found, failed, time.monotonic() - began, proven=not missing))
    return 1 if failed or missing else 0


def _named(name: str, generation: int) -> tuple[int, int]:
    """Seed and generation of `17` (which is of `generation`) or `1:45`. Raises `ValueError`."""
    earlier, _, seed = name.rpartition(":")
    return int(seed), int(earlier or generation)


def unproven(found: Sequence[Verdict], *, bridges: bool = False, licences: bool = False) -> list[str]:
    """What no world had anything to compare for; `bridges`: some must have told of their commits, `licences`: some must
    have counted theirs."""
    compared: Counter[str] = Counter()
    for verdict in found:
        compared.update({check.claim: check.looked_at for check in verdict.checks})
    missing = [claim for claim, count in compared.items() if not count]
    if bridges and not any(check.source == "events" for verdict in found for check in verdict.checks):
        missing.append("no world had bridges")
    if licences and not any(check.claim == HELD for verdict in found for check in verdict.checks):
        missing.append("no world counted its licences")
    return missing + ([] if sum(verdict.faults for verdict in found) else ["nothing went wrong in any world"])


def _verdicts(seeds: Sequence[tuple[int, int]], shape: Shape | None, jobs: int) -> Iterator[Verdict]:
    one = partial(_lived, shape=shape)
    if jobs <= 1 or len(seeds) == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(one, seeds, chunksize=_CHUNK)


def _lived(seed: tuple[int, int], shape: Shape | None) -> Verdict:
    return lived(seed[0], shape, seed[1])


def _line(found: Sequence[Verdict], failed: Sequence[str], seconds: float, *, proven: bool) -> str:
    said = {
        "seeds": len(found),
        "commits": sum(one.commits for one in found),
        "faults": sum(one.faults for one in found),
        "steps": sum(one.steps for one in found),
        "lab_hours": round(sum(one.lab_hours for one in found)),
        "seconds": round(seconds, 1),
        "seeds_per_minute": round(60 * len(found) / seconds) if seconds else 0,
    }
    head = f"FAILED {','.join(failed)}" if failed else "ok" if proven else "UNPROVEN"
    return f"simulate: {head} " + " ".join(f"{name}={value}" for name, value in said.items())


if __name__ == "__main__":
    sys.exit(main())
