"""A YAML document as a tree whose every value knows its place in the text.

Lab files come from strangers, so the limits are held while the parser's events stream in, before anything is built
from them: values, depth, aliases, and the size to which aliases would expand. Aliases share one value instead of
copying it. What is spliced later needs exact offsets: a scalar's `start` and `end` enclose just its own characters,
without anchor and tag. Neither comments nor layout are kept here; whoever wants them has the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from lablet_artifacts.topology.problems import Problem, TopologyError

MOST_BYTES = 10 * 1024 * 1024
"""Size of a lab file in bytes."""
MOST_VALUES = 250_000
"""Scalars, lists and mappings as written; a lab of 1,000 nodes has about 130,000."""
_FEW_VALUES, _BYTES_EACH = 5_000, 6
"""A file with more than so many values has so many bytes for each of them (labs have 12 and more, the barest ones
written as JSON 6.3). The parser takes 15 µs for a value and 1 µs for a byte: a small file full of commas shall not be a long
one's work."""
MOST_DEPTH = 40
MOST_WORD = 200_000
"""Characters without a blank, where one of them is `!`: the parser's time for a tag grows with its square."""
MOST_ALIASES = 1_000
MOST_EXPANDED = 3 * MOST_BYTES
"""Characters and values when every alias is written out."""

_HALF = re.compile("[\ud800-\udfff]")
"""What YAML can write as an escape, and nothing can keep."""
_KNOWN_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_PROPERTY = re.compile(r"(?:[&!]\S*(?:[ \t]+|(?:[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n))+[ \t]*))+")


@dataclass(slots=True, eq=False)
class Scalar:
    """One scalar. `text[start:end]` is what was written, quotes and block header included."""

    value: str
    style: str
    """`` (plain), `'`, `"`, `|` or `>`."""
    tag: str | None
    start: int
    end: int
    line: int
    column: int
    in_flow: bool
    shared: bool = False
    """True when an alias lets the same characters stand for several values."""
    expanded: int = 0


@dataclass(slots=True, eq=False)
class Sequence:
    line: int
    column: int
    items: list[Value] = field(default_factory=list)
    expanded: int = 1


@dataclass(slots=True, eq=False)
class Mapping:
    line: int
    column: int
    entries: dict[str, Value] = field(default_factory=dict)
    expanded: int = 1


Value = Scalar | Sequence | Mapping


def decode(data: bytes) -> str:
    """The text of a file. Raises TopologyError when it is too large or not UTF-8."""
    if len(data) > MOST_BYTES:
        raise TopologyError(
            [Problem(f"the file has {len(data):,} bytes, more than {MOST_BYTES:,}", "shorten the node configurations")]
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line_start = before.rfind(b"\n") + 1
        raise TopologyError(
            [
                Problem(
                    f"byte 0x{data[error.start]:02x} is not UTF-8 ({error.reason})",
                    "save the file in UTF-8",
                    line=before.count(b"\n") + 1,
                    column=len(before[line_start:].decode("utf-8", "replace")) + 1,
                )
            ]
        ) from None


def read_tree(text: str) -> Value:
    """The one document of a text. Raises TopologyError with the place of the first fault."""
    if any(len(word) > MOST_WORD and "!" in word for word in text.split()):
        raise TopologyError(
            [Problem(f"there is a word of more than {MOST_WORD:,} characters", "break it into several lines")]
        )
    return _Composer(text).document()


class _Composer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._anchors: dict[str, Value | None] = {}
        self._aliased: dict[int, Value] = {}
        self._values = 0
        self._most_values = min(MOST_VALUES, _FEW_VALUES + len(text) // _BYTES_EACH)
        self._aliases = 0
        self._events = self._guarded()

    def document(self) -> Value:
        root: Value | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self._fail(event, "a second document begins here", "keep one lab per file")
                root = self._value(next(self._events), 0, in_flow=False)
            elif isinstance(event, StreamEndEvent):
                break
        if root is None:
            raise TopologyError(
                [Problem("the file is empty", "give a lab topology: lab, nodes, links", line=1, column=1)]
            )
        for target in self._aliased.values():
            _share(target)
        return root

    def _guarded(self) -> Iterator[Any]:
        """The parser's events; its errors as ours."""
        try:
            yield from YAML(typ="safe", pure=True).parse(self._text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ": ".join(str(part) for part in (error.context, error.problem) if part)
            self._raise(f"not valid YAML: {said}", _remedy(said, self._line(mark)), mark)
        except ReaderError as error:
            before = self._text[: error.position]
            line_start = max(before.rfind("\n"), before.rfind("\r")) + 1
            raise TopologyError(
                [
                    Problem(
                        f"the character {error.character:#06x} may not stand in a YAML file",
                        "remove it or write it as an escape in double quotes",
                        line=before.count("\n") + 1,
                        column=error.position - line_start + 1,
                    )
                ]
            ) from None
        except (YAMLError, ValueError, OverflowError, AssertionError, NotImplementedError, AttributeError) as error:
            # the parser has no error of its own for escapes beyond Unicode, odd directives and the like
            raise TopologyError([Problem(f"not valid YAML: {error}", "correct the YAML")]) from None

    def _line(self, mark: Any) -> str:
        if mark is None:
            return ""
        start = self._text.rfind("\n", 0, mark.index) + 1
        return self._text[start : mark.index + 200].partition("\n")[0]

    def _raise(self, message: str, remedy: str, mark: Any) -> NoReturn:
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        raise TopologyError([Problem(message, remedy, line=line, column=column)]) from None

    def _fail(self, event: Any, message: str, remedy: str) -> NoReturn:
        self._raise(message, remedy, event.start_mark)

    def _value(self, event: Any, depth: int, *, in_flow: bool) -> Value:
        self._values += 1
        if self._values > self._most_values:
            said = f"more than {self._most_values:,} values, too many for its {len(self._text):,} characters"
            self._fail(event, f"the file has {said}", "split the lab")
        if depth > MOST_DEPTH:
            self._fail(event, f"values are nested deeper than {MOST_DEPTH}", "a lab needs fewer levels")
        if isinstance(event, AliasEvent):
            return self._alias(event)
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        value: Value
        if isinstance(event, ScalarEvent):
            value = self._scalar(event, in_flow=in_flow)
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(event, depth, in_flow=in_flow or bool(event.flow_style))
        else:
            value = self._mapping(event, depth, in_flow=in_flow or bool(event.flow_style))
        if value.expanded > MOST_EXPANDED:
            self._fail(event, "the aliases expand to too much", "write the repeated parts out, or repeat less")
        if anchor is not None:
            self._anchors[anchor] = value
        return value

    def _alias(self, event: Any) -> Value:
        self._aliases += 1
        if self._aliases > MOST_ALIASES:
            self._fail(event, f"the file has more than {MOST_ALIASES:,} aliases", "write the repeated parts out")
        if event.anchor not in self._anchors:
            self._fail(event, f"the alias *{event.anchor} has no anchor before it", f"define &{event.anchor} first")
        target = self._anchors[event.anchor]
        if target is None:
            self._fail(event, f"the alias *{event.anchor} stands inside its own anchor", "write the value out")
        self._aliased[id(target)] = target
        return target

    def _tag(self, event: Any, expected: frozenset[str]) -> str | None:
        if event.tag is None or event.tag == "!":
            return "str" if event.tag == "!" and "str" in expected else None
        name = _KNOWN_TAGS.get(event.tag)
        if name not in expected:
            self._fail(event, f"the tag {event.tag} has no place in a lab file", "remove the tag")
        return name

    def _scalar(self, event: Any, *, in_flow: bool) -> Scalar:
        tag = self._tag(event, frozenset({"str", "int", "float", "bool", "null"}))
        if not event.value.isascii() and _HALF.search(event.value):
            self._fail(
                event, "the text holds half of a surrogate pair", "write the character itself, or \\U and eight digits"
            )
        start = event.start_mark.index
        if event.anchor is not None or event.tag is not None:
            properties = _PROPERTY.match(self._text, start, event.end_mark.index)
            start = properties.end() if properties else event.end_mark.index
        mark = event.start_mark
        return Scalar(
            value=event.value,
            style=event.style or "",
            tag=tag,
            start=start,
            end=event.end_mark.index,
            line=mark.line + 1,
            column=mark.column + 1,
            in_flow=in_flow,
            expanded=1 + len(event.value),
        )

    def _sequence(self, event: Any, depth: int, *, in_flow: bool) -> Sequence:
        self._tag(event, frozenset({"seq"}))
        sequence = Sequence(event.start_mark.line + 1, event.start_mark.column + 1)
        for item in self._events:
            if isinstance(item, SequenceEndEvent):
                break
            value = self._value(item, depth + 1, in_flow=in_flow)
            sequence.items.append(value)
            sequence.expanded += value.expanded
        return sequence

    def _mapping(self, event: MappingStartEvent, depth: int, *, in_flow: bool) -> Mapping:
        self._tag(event, frozenset({"map"}))
        mapping = Mapping(event.start_mark.line + 1, event.start_mark.column + 1)
        merged: list[Mapping] = []
        for key_event in self._events:
            if isinstance(key_event, MappingEndEvent):
                break
            key = self._value(key_event, depth + 1, in_flow=in_flow)
            if not isinstance(key, Scalar):
                self._fail(key_event, "a key must be a string", "use a simple name as the key")
            value = self._value(next(self._events), depth + 1, in_flow=in_flow)
            mapping.expanded += key.expanded + value.expanded
            if key.value == "<<" and key.style == "":
                merged += self._merge(key_event, value)
            elif key.value in mapping.entries:
                self._fail(key_event, f"the key {key.value!r} appears twice", "remove one of the two")
            else:
                mapping.entries[key.value] = value
        for other in merged:
            for name, value in other.entries.items():
                mapping.entries.setdefault(name, value)
        return mapping

    def _merge(self, event: Any, value: Value) -> list[Mapping]:
        parts = value.items if isinstance(value, Sequence) else [value]
        mappings = [part for part in parts if isinstance(part, Mapping)]
        if len(mappings) != len(parts):
            self._fail(event, "a merge key (<<) takes mappings only", "refer to an anchored mapping")
        return mappings


def _share(value: Value) -> None:
    """Marks each scalar below an aliased value. Iterative, each value once."""
    seen: set[int] = set()
    waiting: list[Value] = [value]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Scalar):
            each.shared = True
        else:
            waiting.extend(each.items if isinstance(each, Sequence) else each.entries.values())


def _remedy(said: str, line: str) -> str:
    if "\t" in line and "\\t" in said:
        return "indent with spaces, not tabs"
    if "${" in line and ("[" in line or "{" in line.replace("${", "")):
        return "put quotes around strings with ${…} inside [ ] or { }"
    if "mapping values are not allowed" in said:
        return "put quotes around a value that holds ': ', or check the indentation"
    return "correct the YAML at this place"
