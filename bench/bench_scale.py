"""How far one mesh goes: replicas 1 to 4 of each service over eight pools, and a region of 100 workers that grows to
10,000 running labs.

    .venv/bin/python bench/bench_scale.py [--brief] [--only replicas|growth]
"""

import argparse
import time
from collections.abc import Sequence

import uvloop
from report import options as common
from report import report
from scale.growth import Size, grow, slope
from scale.replicas import Point, curves

REPLICAS, REPLICAS_BRIEF = (1, 2, 4), (1, 4)
SIZES, SIZES_BRIEF = (1_000, 2_500, 5_000, 10_000), (500, 1_500)


def show_point(point: Point) -> None:
    print(f"  {point.service:<12}{point.replicas:>8}{point.per_second:>12.1f}{point.cpu_ms_each:>15.2f}", flush=True)


def told_of_replicas(points: Sequence[Point]) -> dict[str, object]:
    told: dict[str, object] = {}
    single = {point.service: point.per_second for point in points if point.replicas == 1}
    for point in points:
        told[f"{point.service}_{point.replicas}_per_second"] = f"{point.per_second:.1f}"
        told[f"{point.service}_{point.replicas}_times_one"] = f"{point.per_second / single[point.service]:.2f}"
        told[f"{point.service}_{point.replicas}_cpu_ms"] = f"{point.cpu_ms_each:.2f}"
    return told


HEADS = ("labs", "up/s", "CPU ms", "look s", "plan ms", "held ms", "rest CPU %", "take-over s", "memory MB", "etcd MB")


def show(row: Size) -> None:
    cells = (
        row.up_per_second, row.cpu_ms_each, row.look_seconds, row.plan_ms, row.held_ms,
        row.rest_cpu_pct, row.takeover_seconds, row.memory_mb, row.etcd_mb,
    )  # fmt: skip
    print(f"  {row.instances:>13}" + "".join(f"{cell:>13.2f}" for cell in cells), flush=True)


def told_of_growth(rows: Sequence[Size]) -> dict[str, object]:
    told: dict[str, object] = {}
    for row in rows:
        told |= {
            f"labs_{row.instances}_cpu_ms": f"{row.cpu_ms_each:.2f}",
            f"labs_{row.instances}_look_seconds": f"{row.look_seconds:.2f}",
            f"labs_{row.instances}_plan_ms": f"{row.plan_ms:.1f}",
            f"labs_{row.instances}_held_ms": f"{row.held_ms:.0f}",
            f"labs_{row.instances}_rest_cpu_pct": f"{row.rest_cpu_pct:.0f}",
            f"labs_{row.instances}_takeover_seconds": f"{row.takeover_seconds:.2f}",
            f"labs_{row.instances}_memory_mb": f"{row.memory_mb:.0f}",
            f"labs_{row.instances}_etcd_mb": f"{row.etcd_mb:.0f}",
        }
    per = {
        "memory_kb_per_lab": slope(rows, lambda row: row.memory_mb) * 1000,
        "etcd_kb_per_lab": slope(rows, lambda row: row.etcd_mb) * 1000,
        "look_ms_per_lab": slope(rows, lambda row: row.look_seconds) * 1000,
        "takeover_ms_per_lab": slope(rows, lambda row: row.takeover_seconds) * 1000,
    }
    return told | {name: f"{value:.3g}" for name, value in per.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brief", action="store_true", help="one and four replicas, and 1,500 labs")
    parser.add_argument("--only", choices=("replicas", "growth"))
    options = common(parser).parse_args()
    began = time.perf_counter()
    figures: dict[str, object] = {}
    if options.only != "growth":
        numbers = REPLICAS_BRIEF if options.brief else REPLICAS
        print("  service     replicas    a second    CPU ms each", flush=True)
        seconds, decisions = (3.0, 600) if options.brief else (5.0, 2000)
        figures |= told_of_replicas(uvloop.run(curves(numbers, show_point, seconds=seconds, decisions=decisions)))
    if options.only != "replicas":
        print("  " + "".join(f"{head:>13}" for head in HEADS), flush=True)
        figures |= told_of_growth(uvloop.run(grow(SIZES_BRIEF if options.brief else SIZES, show)))
    report("scale", {**figures, "seconds": f"{time.perf_counter() - began:.0f}"}, options.json)


if __name__ == "__main__":
    main()
