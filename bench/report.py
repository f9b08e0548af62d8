"""How a benchmark tells what it found: a table of its figures beside their targets, one line `bench <name>: key=value …`, and
with `--json FILE` the record of it.

The record is what `run.py` makes from the line, so a file written here can stand in `bench/records`. A benchmark calls
`options(parser)` where it builds its parser and `report` at its end.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bounds import Bound, read_floors
from records import Record, now, this_machine

FLOORS = Path(__file__).parent / "floors.json"
_BEGAN, _AT, _LOAD = time.monotonic(), now(), os.getloadavg()[0]


def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds what every benchmark takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the record of this run there")
    return parser


def table(record: Record, bounds: Sequence[Bound]) -> str:
    """Each figure on a line of its own, with its target and whether it is met; ratios with a target come last."""
    rows: list[tuple[str, str, str]] = []
    by_key = {bound.key: bound for bound in bounds}
    ratios = [bound.key for bound in bounds if bound.key not in record.figures]
    for key in (*record.figures, *ratios):
        bound = by_key.get(key)
        value = bound.value(record) if bound is not None else None
        shown = record.figures.get(key, "" if value is None else f"{value:.4g}")
        wish = "" if bound is None or value is None else f"{bound.wish:<10}{bound.verdict(value)}"
        rows.append((key, shown, wish))
    width = max(len(key) for key, _, _ in rows)
    return "\n".join(f"  {key:<{width}}  {shown:>12}  {wish}".rstrip() for key, shown, wish in rows)


def report(name: str, figures: Mapping[str, object], file: Path | None = None) -> None:
    """Prints the table and the line, and writes the file that `--json` names."""
    script, *given = sys.argv
    own = [word for word in given if not word.startswith("--json") and word != str(file)]
    record = Record(
        name,
        {key: str(value) for key, value in figures.items()},
        this_machine(),
        _AT,
        round(time.monotonic() - _BEGAN, 1),
        round(_LOAD, 1),
        shlex.join([f"bench/{Path(script).name}", *own]),
    )
    print(table(record, read_floors(FLOORS).get(name, ())))
    print(record.line(), flush=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(record.to_json(), encoding="utf-8")
