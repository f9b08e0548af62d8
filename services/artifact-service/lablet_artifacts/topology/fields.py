"""Reading typed fields out of a mapping: each wrong one is reported with its place, and reading goes on.

What comes back for a wrong field is None (or nothing in a list); the report tells whether the whole may be used.
"""

from __future__ import annotations

from collections.abc import Iterator

from lablet_artifacts.topology import scalars
from lablet_artifacts.topology.problems import Problem, Report
from lablet_artifacts.topology.tree import Mapping, Scalar, Sequence, Value


def kind(value: Value) -> str:
    """What a value is, in words for a message."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    if is_text(value):
        return "a string"
    if is_null(value):
        return "empty"
    if scalars.truth(value.value) is not None:
        return "a truth value"
    return "a number"


def is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and (
        value.tag == "null" or (not value.style and value.tag is None and scalars.is_null(value.value))
    )


def is_text(value: Value) -> bool:
    if not isinstance(value, Scalar):
        return False
    return value.tag == "str" or (value.tag is None and (bool(value.style) or scalars.is_string_somewhere(value.value)))


def plain_value(value: Value, memo: dict[int, object] | None = None) -> object:
    """A value as Python's own str, int, float, bool, None, list and dict; shared where aliases share."""
    memo = {} if memo is None else memo
    if isinstance(value, Scalar):
        if value.tag == "str" or (value.style and value.tag is None):
            return value.value
        return scalars.plain(value.value)
    if id(value) not in memo:
        if isinstance(value, Sequence):
            memo[id(value)] = [plain_value(item, memo) for item in value.items]
        else:
            memo[id(value)] = {name: plain_value(item, memo) for name, item in value.entries.items()}
    return memo[id(value)]


def flat(mapping: Mapping) -> Mapping:
    """The mapping with the fields of its `data` beside its own, as the oldest files had them."""
    data = mapping.entries.get("data")
    if not isinstance(data, Mapping):
        return mapping
    own = {name: value for name, value in mapping.entries.items() if name != "data"}
    return Mapping(mapping.line, mapping.column, own | data.entries, mapping.expanded)


class Fields:
    """The fields of one mapping. `path` is the mapping's own path, `node` the label for messages."""

    def __init__(self, mapping: Mapping, path: str, report: Report, node: str | None = None) -> None:
        self.mapping = mapping
        self.path = path
        self.report = report
        self.node = node
        self._known: set[str] = set()

    def path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def problem(self, name: str, message: str, remedy: str, at: Value | None = None) -> None:
        """Reports a fault of a field, at the field's value or else at the mapping."""
        place = at or self.mapping.entries.get(name) or self.mapping
        self.report.add(
            Problem(message, remedy, self.path_of(name) if name else self.path, self.node, place.line, place.column)
        )

    def get(self, name: str) -> Value | None:
        """The value, None where it is absent; the field counts as known from here on."""
        self._known.add(name)
        return self.mapping.entries.get(name)

    def extra(self) -> dict[str, object]:
        """Whatever was not asked for."""
        return {n: plain_value(v) for n, v in self.mapping.entries.items() if n not in self._known}

    def text(self, name: str, *, least: int = 0, most: int, required: bool = False) -> str | None:
        """A string of `least` to `most` characters; null counts as absent unless it is required."""
        value = self.get(name)
        if value is None:
            if required:
                self.problem(name, f"the field {name!r} is missing", f"add {name}")
            return None
        if is_null(value) and not required:
            return None
        if not isinstance(value, Scalar) or not is_text(value):
            shown = f" ({value.value})" if isinstance(value, Scalar) and value.value else ""
            remedy = "put it in quotes" if isinstance(value, Scalar) else "give one string"
            self.problem(name, f"{name} must be a string, not {kind(value)}{shown}", remedy)
            return None
        if not least <= len(value.value) <= most:
            self.problem(name, f"{name} has {len(value.value)} characters", f"use {least} to {most} characters")
            return None
        return value.value

    def whole(self, name: str, low: int, high: int, *, zero_is_absent: bool = False) -> int | None:
        """A whole number in `low..high`; null is absent, and 0 too where asked."""
        value = self.get(name)
        if value is None or is_null(value):
            return None
        found = scalars.whole(value.value) if isinstance(value, Scalar) and _is_plain(value) else None
        if found is None:
            self.problem(name, f"{name} must be a whole number, not {_shown(value)}", f"give {low} to {high}")
            return None
        if zero_is_absent and found == 0:
            return None
        if not low <= found <= high:
            self.problem(name, f"{name} is {found}", f"give {low} to {high}")
            return None
        return found

    def coordinate(self, name: str) -> float | None:
        """A required number within the canvas of CML (±15000)."""
        value = self.get(name)
        if value is None:
            self.problem(name, f"the field {name!r} is missing", f"add {name}, a position on the canvas")
            return None
        found = scalars.number(value.value) if isinstance(value, Scalar) and _is_plain(value) else None
        if found is None or not -15000 <= found <= 15000:
            self.problem(name, f"{name} must be a number, not {_shown(value)}", "give -15000 to 15000")
            return None
        return found

    def items(self, name: str, *, required: bool = False) -> Iterator[tuple[str, Value]]:
        """The items of a list with their paths; nothing where it is absent, null or no list."""
        value = self.get(name)
        if value is None or (is_null(value) and not required):
            if required:
                self.problem(name, f"the field {name!r} is missing", f"add {name}: []")
            return
        if not isinstance(value, Sequence):
            self.problem(name, f"{name} must be a list, not {_shown(value)}", "begin each item with a dash")
            return
        for index, item in enumerate(value.items):
            yield f"{self.path_of(name)}[{index}]", item

    def mappings(self, name: str, *, required: bool = False) -> Iterator[tuple[str, Mapping]]:
        """The items of a list that must all be mappings, with their paths."""
        for path, item in self.items(name, required=required):
            if isinstance(item, Mapping):
                yield path, item
            else:
                self.report.add(
                    Problem(
                        f"a mapping is expected here, not {_shown(item)}",
                        "give the item's fields as name: value",
                        path,
                        self.node,
                        item.line,
                        item.column,
                    )
                )


def _is_plain(value: Scalar) -> bool:
    return (not value.style and value.tag is None) or value.tag in ("int", "float")


def _shown(value: Value) -> str:
    if isinstance(value, Scalar) and not is_null(value):
        text = value.value if len(value.value) <= 40 else value.value[:37] + "…"
        return f"{kind(value)} ({text})"
    return kind(value)
