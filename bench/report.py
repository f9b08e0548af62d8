"""How a benchmark tells what it found: one line `bench <name>: key=value …`, and with `--json FILE` the record of it.

The record is what `run.py` makes from the line, so a file written here can stand in `bench/records`. A benchmark calls
`options(parser)` where it builds its parser and `report` at its end.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from records import Record, now, this_machine

_BEGAN, _AT, _LOAD = time.monotonic(), now(), os.getloadavg()[0]


def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds what every benchmark takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the record of this run there")
    return parser


def line(name: str, figures: Mapping[str, object]) -> str:
    """The one line that a benchmark ends with."""
    return f"bench {name}: " + " ".join(f"{key}={value}" for key, value in figures.items())


def report(name: str, figures: Mapping[str, object], file: Path | None = None) -> None:
    """Prints the line and writes the file that `--json` names."""
    print(line(name, figures))
    if file is not None:
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
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(record.to_json(), encoding="utf-8")
