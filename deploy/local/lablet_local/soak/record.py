"""The record of a soak: JSON lines, one at the beginning, one for each sample, one at the end."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BadRecord(Exception):
    """The file is not the record of a soak; says where it ceases to be one."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that was looked at in one moment."""

    at: float
    """Real seconds since the load began."""
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record as it was read."""

    begin: dict[str, Any]
    """How it was run: `seconds`, `speed`, `rate`, `version`, `settings`, …"""
    samples: Sequence[Sample]
    end: dict[str, Any] = field(default_factory=dict)
    """What was found when the load was over: `checks`, `requests`, `labs`, …; empty where the run was broken off."""


class Writer:
    """Appends line by line, so that a run which is broken off leaves what it saw."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        path.write_text("", encoding="utf-8")

    def begin(self, how: dict[str, Any]) -> None:
        self._line({"begin": how})

    def sample(self, at: float, values: dict[str, float]) -> None:
        self._line({"at": round(at, 2), "values": {name: round(value, 4) for name, value in sorted(values.items())}})

    def end(self, found: dict[str, Any]) -> None:
        self._line({"end": found})

    def _line(self, what: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what, separators=(",", ":")) + "\n")


def read(path: Path) -> Recorded:
    """Raises `BadRecord`, `OSError`."""
    begin: dict[str, Any] | None = None
    samples: list[Sample] = []
    end: dict[str, Any] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found = json.loads(line)
            if "begin" in found:
                begin = dict(found["begin"])
            elif "end" in found:
                end = dict(found["end"])
            else:
                samples.append(Sample(float(found["at"]), {str(k): float(v) for k, v in found["values"].items()}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadRecord(f"{path}:{number}: {error}") from error
    if begin is None:
        raise BadRecord(f"{path}: no line tells how it was run")
    return Recorded(begin, samples, end)
