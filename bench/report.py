"""How a benchmark tells what it found: one line `bench <name>: key=value …`, and the same as JSON with `--json FILE`.

The JSON is `{"name", "at", "machine", "figures"}`, where figures are numbers wherever the line shows one; what renders
pages and plots reads these files. A benchmark calls `options(parser)` where it builds its parser and `report` at its end.
"""

import argparse
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path


def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds what every benchmark takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser


def line(name: str, figures: Mapping[str, object]) -> str:
    """The one line that a benchmark ends with."""
    return f"bench {name}: " + " ".join(f"{key}={value}" for key, value in figures.items())


def report(name: str, figures: Mapping[str, object], file: Path | None = None) -> None:
    """Prints the line and writes the file that `--json` names."""
    print(line(name, figures))
    if file is not None:
        told = {
            "name": name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "figures": {key: _number(value) for key, value in figures.items()},
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, object]:
    """What the figures were measured on; `load` is the mean number of runnable processes of the last minute."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _number(value: object) -> object:
    """A figure that was made into text for the line, as the number that it shows."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() and "." not in value else number
