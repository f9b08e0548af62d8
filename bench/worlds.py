"""How large a simulated world should be: defects found in a minute of processor time, by the size of the worlds.

Defects of known kinds are planted (see `planted`), each into the services of a process of its own, which then lives through
worlds of every size in turns, each size for as much processor time as the others. A seed finds a defect when its world does
not hold. `M` is as `make simulate` draws its worlds, `S` has half of everything, `L` twice; `D` is dense: the bookings and
faults of M in a third of its time. All times are the process's own CPU time, so that a busy machine counts little.

Not said: anything of defects that no size finds, or of worlds in which other things happen. Finds are few, and their number
is told: of n finds the rate is known to some 1/√n.

    .venv/bin/python bench/worlds.py [--seconds 26] [--first 1] [--defects failed_unseen,…] [--sizes S,M,L,D]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from planted import DEFECTS
from report import options as common
from report import report

from lablet_local.simulation.__main__ import lived
from lablet_local.simulation.story import Shape, drawn

SECONDS = 26.0
"""Of processor time for each defect and size."""
SOUND_SECONDS = 4.0
"""For each size, of worlds in which nothing was planted."""
NOTHING = "nothing"
"""In place of a defect: every world must hold."""


def scaled(shape: Shape, share: float, time_share: float) -> Shape:
    """So much of everything there is, rounded up, and of the time in which it happens."""
    whole = ("bookings", "workers", "deaths", "freezes", "machines_lost", "drains", "compactions")
    changes = {name: math.ceil(getattr(shape, name) * share) for name in whole}
    return replace(shape, window=int(shape.window * time_share), **changes)


SIZES: Mapping[str, Callable[[Shape], Shape]] = {
    "S": lambda shape: scaled(shape, 0.5, 0.5),
    "M": lambda shape: shape,
    "L": lambda shape: scaled(shape, 2, 2),
    "D": lambda shape: scaled(shape, 1, 1 / 3),
}


@dataclass(slots=True)
class Found:
    """Of one defect (or of several) by the worlds of one size."""

    seeds: int = 0
    finds: int = 0
    cpu_seconds: float = 0.0

    @property
    def a_minute(self) -> float:
        """Finds; half a one where there was none, so that a mean can be taken."""
        return 60 * max(self.finds, 0.5) / self.cpu_seconds if self.cpu_seconds else 0.0

    def told(self) -> str:
        each = self.cpu_seconds / self.seeds if self.seeds else 0.0
        return f"{self.finds:>3} of {self.seeds:<4} {each:5.2f} s {self.a_minute:7.1f} a minute"


def measure(defect: str, sizes: Sequence[str], seconds: float, first: int) -> dict[str, Found]:
    """In this process, whose services have the defect from here on."""
    if defect != NOTHING:
        DEFECTS[defect]()
    found = {size: Found() for size in sizes}
    while True:
        size, row = min(found.items(), key=lambda one: one[1].cpu_seconds)
        if row.cpu_seconds >= seconds:
            return found
        seed = first + row.seeds
        shape = SIZES[size](drawn(random.Random(f"size {seed}")))
        began = time.process_time()
        verdict = lived(seed, shape)
        row.cpu_seconds += time.process_time() - began
        row.seeds += 1
        row.finds += not verdict.ok


def measured(defect: str, sizes: str, seconds: float, first: int) -> dict[str, Found]:
    """The same in a process of its own, with fixed hashes as every simulation has them."""
    command = [sys.executable, __file__, "--only", defect, "--sizes", sizes]
    command += ["--seconds", str(seconds), "--first", str(first)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {size: Found(**row) for size, row in json.loads(done.stdout).items()}


def main() -> None:
    parser = common(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of processor time, for each defect and size")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--defects", default=",".join(DEFECTS))
    parser.add_argument("--first", type=int, default=1, help="the first seed of each size")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    if options.only:
        found = measure(options.only, sizes, options.seconds, options.first)
        print(json.dumps({size: asdict(row) for size, row in found.items()}))
        return
    rates: dict[str, list[float]] = {size: [] for size in sizes}
    finds = dict.fromkeys(sizes, 0)
    sound = measured(NOTHING, options.sizes, min(options.seconds, SOUND_SECONDS), options.first)
    if alarms := sum(row.finds for row in sound.values()):
        sys.exit(f"{alarms} worlds did not hold although nothing was planted")
    for defect in options.defects.split(","):
        for size, row in measured(defect, options.sizes, options.seconds, options.first).items():
            print(f"  {defect:<20} {size}  {row.told()}", flush=True)
            rates[size].append(row.a_minute)
            finds[size] += row.finds
    figures: dict[str, object] = {"defects": len(options.defects.split(",")), "seconds": options.seconds}
    for size in sizes:
        mean = math.exp(sum(map(math.log, rates[size])) / len(rates[size]))
        figures |= {
            f"{size.lower()}_finds": finds[size],
            f"{size.lower()}_finds_per_cpu_minute": f"{mean:.1f}",
            f"{size.lower()}_ms_per_seed": f"{1000 * sound[size].cpu_seconds / sound[size].seeds:.0f}",
        }
    report("worlds", figures, options.json)


if __name__ == "__main__":
    main()
