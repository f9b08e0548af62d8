"""Puts instances to CP-SAT and keeps its answers in recorded.json (see cpsat.py for the environment that it needs).

Only proven optima are of use for small instances; of the others the answer with the lower cost is kept, so that a
longer second run improves the first. What was recorded for other instances stays. A run goes on where an earlier one
stopped: what is proven, or has had as many seconds and threads before, is passed over.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import instances
from .cpsat import solve

RECORDED = Path(__file__).with_name("recorded.json")
KINDS = {"small": instances.small, "large": instances.large}


def read() -> dict[str, dict[int, dict[str, Any]]]:
    """Kind → seed → what CP-SAT said; answers to instances that have changed since are left out."""
    if not RECORDED.exists():
        return {kind: {} for kind in KINDS}
    found = json.loads(RECORDED.read_text())
    return {
        kind: {row["seed"]: row for row in found[kind] if row["fingerprint"] == make(row["seed"]).fingerprint()}
        for kind, make in KINDS.items()
    }


def keep(kind: str, answers: Iterable[dict[str, Any]]) -> None:
    """Adds answers to the file."""
    known = read()
    for answer in answers:
        old = known[kind].get(answer["seed"])
        if old is None or (answer["proven"], -answer["cost"]) >= (old["proven"], -old["cost"]):
            known[kind][answer["seed"]] = {name: answer[name] for name in answer if name != "seats"}
    blocks = [
        f'"{name}": [\n' + ",\n".join(json.dumps(rows[seed]) for seed in sorted(rows)) + "\n]"
        for name, rows in known.items()
    ]
    RECORDED.write_text("{" + ",\n".join(blocks) + "}\n")


def had(answer: dict[str, Any]) -> float:
    """The seconds that an answer was given: of CPU time where that was the limit, else by the clock."""
    return float(answer.get("cpu_seconds", answer["limit"]))


def main() -> None:
    """Records the seeds of a range one by one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, help="not included")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cpu-seconds", type=float, help="of CPU time, within ten times as many by the clock")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    seconds = options.seconds if options.cpu_seconds is None else 10 * options.cpu_seconds
    known = read()[options.kind]
    for seed in range(options.first, options.last):
        old = known.get(seed)
        if old and (
            old["proven"] or (had(old) >= (options.cpu_seconds or seconds) and old["threads"] >= options.threads)
        ):
            continue
        answer = solve(KINDS[options.kind](seed), seconds, options.threads, options.cpu_seconds)
        keep(options.kind, [answer])
        print(*(f"{name}={answer[name]}" for name in ("seed", "cost", "bound", "proven", "seconds")), flush=True)


if __name__ == "__main__":
    main()
