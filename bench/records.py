"""What a run of a benchmark leaves: its figures, the machine, the date and the command, as JSON.

A record is made from the benchmark's own last line, `bench NAME: key=value …`, so that what people read and what the page
is rendered from is one thing. Values stay as they were printed. Pure but for reading and writing files.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import interpreter

_LINE = re.compile(r"^bench ([a-z]+):((?: [a-z0-9_]+=\S*)+)$")


class NoResult(Exception):
    """The output does not end with the benchmark's line."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran."""

    processor: str
    cores: int
    memory_gb: int
    system: str
    python: str

    def __str__(self) -> str:
        return f"{self.cores} cores ({self.processor}), {self.memory_gb} GB, {self.system}, Python {self.python}"


@dataclass(frozen=True, slots=True)
class Record:
    """One run."""

    name: str
    figures: Mapping[str, str]
    machine: Machine
    began: str
    """UTC, to the second; a date alone where no more is known."""
    seconds: float
    load: float | None
    """Of the machine over the minute before it began: above the number of cores, figures by the clock say little. None: not
    known."""
    command: str
    brief: bool = False
    """The short form, which never takes the place of a full one's record."""

    def number(self, key: str) -> float | None:
        """The figure as a number; None where there is none, or it is no number."""
        try:
            return float(self.figures[key])
        except (KeyError, ValueError):
            return None

    def line(self) -> str:
        return f"bench {self.name}: " + " ".join(f"{key}={value}" for key, value in self.figures.items())

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        read = json.loads(text)
        return cls(**{**read, "machine": Machine(**read["machine"])})


def parse_line(output: str) -> tuple[str, dict[str, str]]:
    """Name and figures of the last line. Raises `NoResult`."""
    lines = output.strip().splitlines()
    found = _LINE.match(lines[-1]) if lines else None
    if found is None:
        raise NoResult(lines[-1] if lines else "no output")
    return found[1], dict(pair.split("=", 1) for pair in found[2].split())


def read_all(folder: Path) -> dict[str, Record]:
    """Every record of a folder, by name; none where there is no folder."""
    records = (Record.from_json(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {record.name: record for record in records}


def write(record: Record, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.name}.json"
    path.write_text(record.to_json(), encoding="utf-8")
    return path


def this_machine() -> Machine:
    cpus = Path("/proc/cpuinfo")
    names = (
        re.findall(r"^model name\s*: (.+)$", cpus.read_text(encoding="utf-8"), re.MULTILINE) if cpus.exists() else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = platform.system()
    name = names[0].strip() if names else platform.machine()
    python = f"{platform.python_version()} ({interpreter.this_build()})"
    return Machine(name, os.cpu_count() or 1, round(memory), system, python)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
