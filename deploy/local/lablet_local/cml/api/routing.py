"""Finds the handler of a path: a tree of path segments, so that the cost does not grow with the number of routes.

A literal segment wins over a parameter, a parameter over `{rest:path}`. The first entry of a path and method stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

from .call import Entry


@dataclass(slots=True)
class _Branch:
    literal: dict[str, _Branch] = field(default_factory=dict)
    parameter: _Branch | None = None
    here: dict[str, tuple[Entry, tuple[str, ...]]] = field(default_factory=dict)
    rest: dict[str, tuple[Entry, tuple[str, ...]]] = field(default_factory=dict)


class Routes:
    """The tree of a table's entries."""

    def __init__(self, entries: list[Entry]) -> None:
        self._root = _Branch()
        for entry in entries:
            self._plant(entry)

    def _plant(self, entry: Entry) -> None:
        branch, names = self._root, list[str]()
        for segment in entry.path.strip("/").split("/"):
            if segment.endswith(":path}"):
                branch.rest.setdefault(entry.method, (entry, tuple(names)))
                return
            if segment.startswith("{"):
                names.append(segment[1:-1])
                branch.parameter = branch.parameter or _Branch()
                branch = branch.parameter
            else:
                branch = branch.literal.setdefault(segment, _Branch())
        branch.here.setdefault(entry.method, (entry, tuple(names)))

    def find(self, method: str, path: str) -> tuple[Entry, dict[str, str]] | int:
        """The entry and its path parameters, or the status to answer: 404, or 405 for a known path."""
        branch, values = self._root, list[str]()
        fallback = None
        for segment in path.strip("/").split("/"):
            fallback = branch.rest.get(method) or fallback
            if segment in branch.literal:
                branch = branch.literal[segment]
            elif branch.parameter is not None and segment:
                values.append(unquote(segment))
                branch = branch.parameter
            else:
                return (fallback[0], {}) if fallback else 404
        found = branch.here.get(method)
        if found is None:
            if fallback is not None:
                return fallback[0], {}
            return 405 if branch.here else 404
        entry, names = found
        return entry, dict(zip(names, values, strict=True))
