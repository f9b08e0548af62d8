"""The same reservations on OpenStack Blazar, on Slurm and on Lablet, in one run: same hosts, slots and order.

Whole hosts, one slot each, every answer committed on a disk of this machine (Slurm: see `peers/slurm_side.py`; its own
column tells when). Each side asks in the same order until all is asked or its budget is spent, with as much standing
before as the title says. Beside the time by the clock, which a busy machine falsifies, stands the CPU time of all
processes of the side, without the client's for Slurm and Lablet. Ratios are of this run.

Blazar and Slurm are optional; a side that is not there is skipped and named.

    .venv/bin/python bench/bench_peers.py --prepare     # Blazar into a folder of its own; says how Slurm comes
    .venv/bin/python bench/bench_peers.py [--brief]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop
from peers import lablet_side, slurm_side
from peers.workload import Workload, workload
from report import options as common
from report import report

BLAZAR = "blazar==18.0.0"
SLURM = "apt-get install --no-install-recommends slurmctld slurm-client munge"
SIZES = ((100, 500, 1200), (1000, 5000, 1200))
"""Hosts, reservations before, reservations asked."""
SIDES = {
    "blazar": "Blazar create_lease",
    "slurm_chooses": "Slurm, chooses the node",
    "slurm_named": "Slurm, caller names the node",
    "post": "Lablet, one POST after another",
    "scheduler": "Lablet, past the gateway",
    "batch": "Lablet, in batches of 100",
}
CANNOT = """\
What a side cannot express, so that none of it is in the comparison:
  Blazar         licences that are counted, the node limit of a licence; ports; a wait list (a full slot is an error);
                 the reason of a refusal and the first start that would fit; as soon as possible; a term of classes;
                 machines that are off until a slot nears. (It has kinds of host, parts of hosts, all or none.)
  Slurm          the node limit of a licence; ports; a wait list of reservations (a full slot is an error); more of the
                 reason than "nodes are busy", and the first start that would fit; one changed date of a series; more
                 than 9,999 reservations; an answer that waits for the disk. (It has counted licences, features, parts
                 of nodes, all or none, daily and weekly repetition.)
  Slurm, named   all of that, and the choice: its caller must know a free node.
Lablet's answers hold all of it: ports, licence, nodes, power and the explanation are computed for each."""


def blazar_python() -> Path:
    """The interpreter of the environment that has Blazar."""
    named = os.environ.get("BENCH_BLAZAR_PYTHON")
    return Path(named) if named else Path(tempfile.gettempdir()) / "lablet-bench-blazar" / "bin" / "python"


def prepare() -> None:
    python = blazar_python()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", BLAZAR], check=True)
    print(f"{BLAZAR} is in {python.parents[1]}")
    lacking = slurm_side.missing()
    print(f"Slurm lacks {', '.join(lacking)}: as root, {SLURM}" if lacking else "Slurm is installed")


def blazar(work: Workload) -> dict[str, Any]:
    script = Path(__file__).with_name("peers") / "blazar_side.py"
    done = subprocess.run(
        [blazar_python(), script], input=work.to_json(), capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise SystemExit(f"Blazar's side failed: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def sides(work: Workload, there: Mapping[str, bool]) -> dict[str, dict[str, Any]]:
    """Everything that is installed, one after the other, each shown as soon as it is through."""
    figures: dict[str, dict[str, Any]] = {}

    def told(more: Mapping[str, dict[str, Any]]) -> None:
        figures.update(more)
        for side, row in more.items():
            print(row_of(side, row), flush=True)

    if there["blazar"]:
        told({"blazar": blazar(work)})
    if there["slurm"]:
        told({"slurm_chooses": slurm_side.measure(work, named=False)})
        told({"slurm_named": slurm_side.measure(work, named=True)})
    told(uvloop.run(lablet_side.measure(work)))
    return figures


def per_second(row: Mapping[str, Any]) -> float:
    return float(row["done"] / row["seconds"])


def cpu_ms(row: Mapping[str, Any]) -> float:
    return float(row["cpu_seconds"] / max(1, row["done"] + row["refused"]) * 1000)


def row_of(side: str, row: Mapping[str, Any]) -> str:
    behind = f"  on disk after {row['durable_seconds']:.1f} s" if "durable_seconds" in row else ""
    cells = f"{row['done']:>6}{row['refused']:>9}{per_second(row):>12.2f}{cpu_ms(row):>13.1f}"
    return f"  {SIDES[side]:<32}{cells}{behind}"


def ratios(figures: Mapping[str, Mapping[str, Any]], hosts: int) -> dict[str, str]:
    """Lablet against the others by the clock: above one, Lablet is ahead."""
    return {
        f"{way}_over_{side}_{hosts}": f"{per_second(figures[way]) / per_second(figures[side]):.2f}"
        for side in ("blazar", "slurm_chooses", "slurm_named")
        if side in figures
        for way in ("post", "batch")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="installs Blazar into a folder of its own")
    parser.add_argument("--brief", action="store_true", help="100 hosts only, ten seconds for each side")
    parser.add_argument("--hosts", type=int, choices=[size[0] for size in SIZES], help="that size only")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds for each side")
    options = common(parser).parse_args()
    if options.prepare:
        prepare()
        return
    began = time.perf_counter()
    there = {"blazar": blazar_python().exists(), "slurm": not slurm_side.missing()}
    told: dict[str, object] = {f"{name}_there": "yes" if here else "skipped" for name, here in there.items()}
    if not there["blazar"]:
        print(f"Blazar is skipped: there is no {blazar_python()} (bench_peers.py --prepare makes it)")
    if not there["slurm"]:
        print(f"Slurm is skipped: {', '.join(slurm_side.missing())} not found ({SLURM})")
    sizes = SIZES[:1] if options.brief else [size for size in SIZES if options.hosts in (None, size[0])]
    for hosts, before, asked in sizes:
        work = workload(hosts, before, asked, 10.0 if options.brief else options.budget)
        print(f"{hosts} hosts, {before} reservations before")
        print(f"  {'side':<32}{'made':>6}{'refused':>9}{'per second':>12}{'CPU ms each':>13}")
        figures = sides(work, there)
        for side, row in figures.items():
            told[f"{side}_{hosts}_per_second"] = f"{per_second(row):.2f}"
            told[f"{side}_{hosts}_cpu_ms"] = f"{cpu_ms(row):.1f}"
        told |= ratios(figures, hosts)
    print(CANNOT)
    report("peers", {**told, "seconds": f"{time.perf_counter() - began:.0f}"}, options.json)


if __name__ == "__main__":
    main()
