"""What is wrong with a lab file, and where: one value per fault, so that an author can mend all of them at once.

It does not guarantee that every fault of a file is listed: a file that is no YAML at all ends at its first fault, and
`MOST_PROBLEMS` ends the list of a file that is wrong throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_PROBLEMS = 50
"""After so many problems reading stops: the author has seen enough."""
_LONGEST_MESSAGE = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `line` and `column` count from 1; None where the fault has no place in the file."""

    message: str
    remedy: str
    field: str = ""
    """Path of the field, such as `nodes[2].tags[0]`; empty where no field is meant."""
    node: str | None = None
    """Label (or id, where the label is at fault) of the node concerned."""
    line: int | None = None
    column: int | None = None

    def __post_init__(self) -> None:
        if len(self.message) > _LONGEST_MESSAGE:  # a message may quote the file, and the file may be hostile
            object.__setattr__(self, "message", self.message[: _LONGEST_MESSAGE - 1] + "…")
        for name in ("message", "remedy", "field", "node"):
            text = getattr(self, name)
            if text and not text.isascii():  # YAML can write halves of surrogate pairs, which no answer can hold
                object.__setattr__(self, name, text.encode(errors="replace").decode())

    def __str__(self) -> str:
        place = [f"line {self.line}, column {self.column}"] if self.line is not None else []
        place += [f"node {self.node!r}"] if self.node is not None else []
        place += [self.field] if self.field else []
        where = ", ".join(place)
        return f"{where}: {self.message} ({self.remedy})" if where else f"{self.message} ({self.remedy})"


class LabFileError(ValueError):
    """A lab file cannot be used as asked. `problems` is never empty and in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise AssertionError("an error needs at least one problem")
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(f"{self.problems[0]}" + (f" and {more} more" if more else ""))


class TopologyError(LabFileError):
    """The file is not a lab topology that CML would import."""


class RenderError(LabFileError):
    """The file is sound, but its tokens and the given ports and values do not fit together."""


class TooManyProblems(Exception):  # a signal between Report and its reader, never seen outside
    """The report is full."""


class Report:
    """Collects problems while a file is read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Raises TooManyProblems when `MOST_PROBLEMS` are reached."""
        self.problems.append(problem)
        if len(self.problems) >= MOST_PROBLEMS:
            raise TooManyProblems

    def sorted(self) -> list[Problem]:
        """By place in the file; what has no place comes first."""
        return sorted(self.problems, key=lambda p: (p.line or 0, p.column or 0))
