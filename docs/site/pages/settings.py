"""Every setting, from `.env.example`, which a test holds against the settings classes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pages.table import code, table

HEAD = """# Settings

Environment variables. A bad value ends a service at its start with the name of the variable. Every secret can be
given as a file by the same name with `_FILE` behind it: prefer that. *Lab* minutes pass as fast as the lab clock
runs, *real* seconds as fast as yours. The same list to copy from: [`.env.example`](../../.env.example).
"""
_SECTION = re.compile(r"# -{4} (.*?) -+$")
_VARIABLE = re.compile(r"#([A-Z][A-Z0-9_]*)=(.*)$")


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    default: str
    meaning: str


def page(example: str) -> str:
    parts = [HEAD]
    for title, lines in sections(example):
        rows = [(code(line.name), code(line.default) or "–", line.meaning) for line in lines]
        parts += [f"## {title}\n", table(("variable", "default", "meaning"), rows)]
    return "\n".join(parts)


def sections(example: str) -> Iterator[tuple[str, list[Line]]]:
    """Title and variables; words above a variable are its meaning, one without words belongs to the one above it."""
    title, lines, words = "", list[Line](), list[str]()
    for text in example.splitlines():
        if found := _SECTION.match(text):
            if lines:
                yield title, lines
            title, lines, words = found[1], [], []
        elif found := _VARIABLE.match(text):
            lines.append(Line(found[1], found[2], " ".join(words) or _beside(found[1])))
            words = []
        elif text.startswith("# "):
            words.append(text.removeprefix("# "))
        else:
            words = []
    yield title, lines


def _beside(name: str) -> str:
    return "The same, from a file." if name.endswith("_FILE") else "See above."
