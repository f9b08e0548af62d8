"""Putting new text into one scalar of a YAML file without touching anything around it.

The scalar keeps its style: inside quotes the new text is escaped, in a block it stands as it is, without quotes it
stays bare as long as every reader still sees the string that is meant; else it gets quotes. Only a scalar whose
characters do not show its text one to one (escapes, folded lines) and cannot be changed piece by piece is written
anew, on one line. The result always reads as exactly the text that was asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lablet_artifacts.topology.ports import TOKEN
from lablet_artifacts.topology.scalars import is_printable, is_string_everywhere
from lablet_artifacts.topology.tree import Scalar

_INDICATORS = frozenset("-?:,[]{}#&*!|>'\"%@`")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*[ \t]*(#[^\r\n]*)?(?:\r\n|\r|\n|$)")


@dataclass(frozen=True, slots=True)
class Change:
    """Characters `start:end` of a scalar's value become `new`, which is printable and has no line break."""

    start: int
    end: int
    new: str


def changed(value: str, changes: list[Change]) -> str:
    """The value with the changes (in order, not overlapping) made."""
    parts, at = [], 0
    for change in changes:
        parts += [value[at : change.start], change.new]
        at = change.end
    return "".join([*parts, value[at:]])


def written(text: str, scalar: Scalar, changes: list[Change]) -> str:
    """What must stand in place of `text[scalar.start:scalar.end]` so that the scalar reads as `changed(...)`."""
    raw = text[scalar.start : scalar.end]
    meant = changed(scalar.value, changes)
    if scalar.style in ("|", ">"):
        return _block(raw, scalar, changes, meant)
    if scalar.style:
        inner = _piecewise(raw[1:-1], scalar, changes)
        return quoted(meant, scalar.style) if inner is None else f"{scalar.style}{inner}{scalar.style}"
    bare = _piecewise(raw, scalar, changes)
    if bare is not None and _may_stay_bare(meant, scalar):
        return bare
    return quoted(meant, "'")


def quoted(value: str, quote: str) -> str:
    """A value in quotes on one line: single ones as they are wanted, double ones where it needs escapes."""
    if quote == "'" and all(is_printable(c) for c in value):
        return "'" + value.replace("'", "''") + "'"
    return '"' + "".join(_escaped(c) for c in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if is_printable(character):
        return character
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(character)
    return short.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def _block(raw: str, scalar: Scalar, changes: list[Change], meant: str) -> str:
    header = _BLOCK_HEADER.match(raw)
    if header is not None:
        inner = _piecewise(raw[header.end() :], scalar, changes)
        if inner is not None:
            return raw[: header.end()] + inner
    comment = header[1] if header is not None else None
    body = raw.rstrip(" \r\n")
    return quoted(meant, "'") + (f"  {comment}" if comment else "") + raw[len(body) :]


def _piecewise(inner: str, scalar: Scalar, changes: list[Change]) -> str | None:
    """The written inside of a scalar with the changes made in it; None where it has to be written anew."""
    escape = {"'": _single, '"': _double}.get(scalar.style, str)
    if inner == scalar.value and scalar.style not in ("|", ">"):
        return changed(inner, [Change(c.start, c.end, escape(c.new)) for c in changes])
    if any(c.new != c.new.strip() or not c.new for c in changes):
        return None  # blanks at the end of a line, or an empty line, would be folded away
    there = [(m.start(), m.end(), m[0]) for m in TOKEN.finditer(inner)]
    wanted = [m[0] for m in TOKEN.finditer(scalar.value)]
    if [t for _, _, t in there] != wanted or wanted != [scalar.value[c.start : c.end] for c in changes]:
        return None
    pairs = zip(there, changes, strict=True)
    return changed(inner, [Change(start, end, escape(c.new)) for (start, end, _), c in pairs])


def _single(text: str) -> str:
    return text.replace("'", "''")


def _double(text: str) -> str:
    return "".join(_escaped(c) for c in text)


def _may_stay_bare(meant: str, scalar: Scalar) -> bool:
    """True when the text without quotes is a string of just these characters to every reader of YAML."""
    if not meant or meant != meant.strip() or ": " in meant or " #" in meant or meant.endswith(":"):
        return False
    if meant[0] in _INDICATORS and meant[:2] != scalar.value[:2]:
        return False
    if scalar.in_flow and any(c in ",[]{}" for c in meant):
        return False
    return all(is_printable(c) or c == "\n" for c in meant) and (is_string_everywhere(meant) or scalar.tag == "str")
