"""The commands that pages show: found, run, and compared with what the pages say comes of them.

A block counts when the line above it is `<!-- run -->`. A line that begins with `$ ` is a command (what follows up to the
next is what it prints; lines of a here-document belong to it). In what is shown, `…` stands for anything within a line,
and alone on a line for any lines; blanks count as one; ids, days, times of day and spans may be other ones. An id in a
command (`rsv-…`, or one of an earlier run) is the last of its kind that was printed. `lablet up` is not run: the mesh is
there already.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^<!-- run -->\n```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_ID = re.compile(r"\b(rsv|ins|ser|req)-[a-z2-7]{26}(?:-\d+)?\b")
_NAMED = re.compile(r"\b(rsv|ins|ser|req)-(?:…|[a-z2-7]{26}(?:-\d+)?)")
_OTHER = (
    (_NAMED, r"\1-ID"),
    (re.compile(r"\d\d:\d\d"), "HH:MM"),
    (re.compile(r"\b(?:today|tomorrow|yesterday|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d\d \w{3}(?: \d{4})?)\b"), "DAY"),
    (re.compile(r"DAY HH:MM ?– ?(?:DAY )?HH:MM"), "SLOT"),
    (re.compile(r"\b\d+ (?:h|min|minutes|s)\b(?: \d+ (?:min|s)\b)?"), "SPAN"),
)
_HERE = re.compile(r"<<'(\w+)'")
_GIVEN = ("lablet up", "make up")
_LOOKS = re.compile(r"lablet (?:get|describe|explain|open|trace|artifact list|events history)\b")


@dataclass(frozen=True, slots=True)
class Shown:
    """A command and what the page says it prints."""

    page: str
    command: str
    output: tuple[str, ...]


def shown(root: Path, page: str) -> Iterator[Shown]:
    """The page's marked commands, in order."""
    for block in _BLOCK.findall((root / page).read_text(encoding="utf-8")):
        command, output, until = "", list[str](), ""
        for line in block.splitlines():
            if until:
                command += f"\n{line}"
                until = "" if line == until else until
            elif line.startswith("$ "):
                if command:
                    yield Shown(page, command, tuple(output))
                command, output = line.removeprefix("$ "), []
                here = _HERE.search(line)
                until = here[1] if here else ""
            else:
                output.append(line)
        if command:
            yield Shown(page, command, tuple(output))


def is_given(command: str) -> bool:
    return command.startswith(_GIVEN)


def is_look(command: str) -> bool:
    """Whether it changes nothing, so that what it shows may be waited for."""
    return _LOOKS.match(command) is not None


class Ids:
    """The ids that were printed, by kind."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def see(self, text: str) -> None:
        for found in _ID.finditer(text):
            self._last[found[1]] = found[0]

    def put_into(self, command: str) -> str:
        """Raises `KeyError` for an id of a kind of which none was printed."""
        return _NAMED.sub(lambda found: self._last[found[1]], command)


def differs(wanted: Sequence[str], got: str) -> str | None:
    """What is shown and not printed, or printed and not shown; None where they agree. Nothing shown: anything will do."""
    if not any(line.strip() for line in wanted):
        return None
    lines = [_plain(line) for line in got.splitlines() if line.strip()]
    patterns = [_plain(line) for line in wanted if line.strip()]
    joined = "".join(r"(?:.*\n)*" if line == "…" else f"{_pattern(line)}\n" for line in patterns)
    if re.fullmatch(joined, "".join(f"{line}\n" for line in lines)):
        return None
    missing = [line for line in patterns if line != "…" and not any(re.fullmatch(_pattern(line), one) for one in lines)]
    return f"shown and not printed: {missing or 'the order, or lines that are not shown'}\nprinted:\n{got}"


def _plain(line: str) -> str:
    for given, name in _OTHER:
        line = given.sub(name, line)
    return " ".join(line.split())


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("…"))
