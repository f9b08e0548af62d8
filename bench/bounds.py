"""What is wished of a benchmark's figures, and what they must not fall below: `floors.json`. Pure but for reading it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from records import Record


@dataclass(frozen=True, slots=True)
class Bound:
    """What is wished of a figure, or of the ratio of two (`one/other`)."""

    key: str
    target: float | None
    floor: float | None
    lower: bool

    def value(self, record: Record) -> float | None:
        first, slash, second = self.key.partition("/")
        value = record.number(first)
        if not slash or value is None:
            return value
        below = record.number(second)
        return value / below if below else None

    @property
    def wish(self) -> str:
        """The target with its sign; empty where there is none."""
        return "" if self.target is None else f"{'≤' if self.lower else '≥'} {self.target:g}"

    def verdict(self, value: float) -> str:
        """Whether the target is met; empty where there is none."""
        if self.target is None:
            return ""
        return "met" if self.meets(value, self.target) else "not met"

    def meets(self, value: float, bound: float) -> bool:
        return value <= bound if self.lower else value >= bound


def read_floors(path: Path) -> dict[str, tuple[Bound, ...]]:
    read: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: tuple(
            Bound(key, one.get("target"), one.get("floor"), one.get("better") == "lower") for key, one in bounds.items()
        )
        for name, bounds in read.items()
    }
