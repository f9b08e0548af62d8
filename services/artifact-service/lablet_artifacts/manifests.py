"""Manifests of process labs: read with the same limits as lab files, each fault with its line, node and field.

The model (`lablet_common.process_lab`) says what is right; the tree of the YAML text says where it stands. Everything wrong
is told at once. Rendering gives the seat's lab as JSON: the agent reads no YAML.
"""

import re
from collections.abc import Iterator
from collections.abc import Mapping as Table
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lablet_artifacts.topology import Problem, RenderError, TopologyError
from lablet_artifacts.topology.fields import plain_value
from lablet_artifacts.topology.tree import Mapping, Scalar, Sequence, Value, decode, read_tree
from lablet_common import process_lab
from lablet_common.process_lab import KIND, MOST_BYTES, RUNTIME, ProcessLab

FORMAT = "process"
_KIND = re.compile(rb"^(?:\xef\xbb\xbf)?[\"']?kind[\"']?[ \t]*:[ \t]*[\"']?ProcessLab\b", re.MULTILINE)
# a string that never ends is one word: if none were found, each quote within it would be tried again to the file's end
_WORD = re.compile(rb"""#[^\n]*|"(?:[^"\\]|\\.)*"?|'[^']*'?|[{}\[\],:]|[^\s{}\[\],:"'#][^\s{}\[\],:"']*""")
_MOST_DEPTH = 12
_MOST_PROBLEMS = 50
_REMEDIES: Table[str, str] = {
    "extra_forbidden": "remove it, or correct its name",
    "missing": "add it",
    "string_type": "put it in quotes",
    "fault": "correct it",
}


def is_manifest(data: bytes) -> bool:
    """The file says `kind: ProcessLab` at its outermost level; also a broken one, whose faults are then told as a
    manifest's. Lines or JSON, pretty or not."""
    data = data[: MOST_BYTES * 2]
    return _KIND.search(data) is not None or (b"ProcessLab" in data and ("kind", KIND) in _outermost(data))


def _outermost(data: bytes) -> Iterator[tuple[str, str]]:
    """Key and first word of each value of a document in braces; nothing of any other."""
    words = (one[0].decode(errors="replace") for one in _WORD.finditer(data.removeprefix(b"\xef\xbb\xbf")))
    depth, before, key = 0, "", ""
    for word in words:
        if word.startswith("#") or (depth == 0 and word == "---"):
            continue
        if depth == 0 and word != "{":
            return
        if word in ("}", "]"):
            depth -= 1
        elif depth == 1 and word == ":" and not key:
            key = before
        elif depth == 1 and word == ",":
            key = ""
        elif depth == 1 and key and before == ":":
            yield key, word.strip("\"'")
        if word in ("{", "["):
            depth += 1
        before = word.strip("\"'") if word not in (":", ",") else word


def read_manifest(data: bytes) -> ProcessLab:
    """The manifest of a file. Raises `LabFileError` with every fault and its place."""
    if len(data) > MOST_BYTES:
        raise TopologyError(
            [Problem(f"the manifest has {len(data):,} bytes, more than {MOST_BYTES:,}", "put data into files")]
        )
    root = read_tree(decode(data))
    if not isinstance(root, Mapping):
        raise TopologyError([Problem("a mapping is expected", f"begin with kind: {KIND}", line=1, column=1)])
    if _depth(root) > _MOST_DEPTH:
        raise TopologyError([Problem(f"it is nested deeper than {_MOST_DEPTH} levels", "a manifest needs less")])
    try:
        return ProcessLab.model_validate(plain_value(root))
    except ValidationError as error:
        faults = [one for one in error.errors(include_url=False) if not _is_echo(one)]
        problems = list(
            {(p.field, p.line, p.column): p for p in (_problem(root, one) for one in reversed(faults))}.values()
        )
        del problems[_MOST_PROBLEMS:]
        raise TopologyError(sorted(problems, key=lambda one: (one.line or 0, one.column or 0))) from None


def inferred(lab: ProcessLab) -> dict[str, Any]:
    """What the manifest says of its definition's spec: the sums of its resources, its ports, its runtime."""
    return {
        "title": lab.title,
        "description": lab.description,
        "requirements": lab.requirements.to_dict(),
        "ports": [port.to_dict() for port in lab.ports],
        "runtime": {"name": RUNTIME},
        "collect": ["configurations"],
        "untilCompleted": lab.until is process_lab.Until.COMPLETED,
    }


def fill(lab: ProcessLab, ports: Table[str, int], *, seat: int, user: str, worker: str) -> bytes:
    """The seat's lab as JSON. Raises `LabFileError` where ports and manifest do not fit together."""
    try:
        return process_lab.render(lab, ports, seat=seat, user=user, worker=worker).to_json()
    except ValueError as error:
        raise RenderError([Problem(str(error), "publish the manifest again", "ports")]) from error


def _depth(value: Value) -> int:
    """Of nesting; aliases share, so a loop over levels ends as the tree does."""
    level, depth = [value], 0
    while level and depth <= _MOST_DEPTH:
        depth += 1
        level = [child for one in level for child in _children(one)]
    return depth


def _children(value: Value) -> list[Value]:
    if isinstance(value, Mapping):
        return list(value.entries.values())
    return list(value.items) if isinstance(value, Sequence) else []


def _is_echo(error: ErrorDetails) -> bool:
    """A list that is called too short only because its faulty items were not counted."""
    given = error["input"]
    return error["type"] == "too_short" and len(given) >= (error.get("ctx") or {}).get("min_length", 0)


def _problem(root: Mapping, error: ErrorDetails) -> Problem:
    context = error.get("ctx") or {}
    path = (*error["loc"], *context.get("path", ()))
    place, said = _place(root, path)
    missing = error["type"] == "missing"
    field = _field(said + ((path[-1],) if missing else ()))
    return Problem(
        _message(error, path),
        _REMEDIES.get(error["type"], "correct it"),
        field,
        _node(root, path),
        place.line,
        place.column,
    )


def _message(error: ErrorDetails, path: tuple[int | str, ...]) -> str:
    if error["type"] == "missing":
        return f"the field {str(path[-1])!r} is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no field {str(path[-1])!r} here"
    given = error["input"]
    shown = f" (given: {str(given)[:60]})" if isinstance(given, str | int | float) else ""
    return error["msg"][0].lower() + error["msg"][1:] + shown


def _place(root: Mapping, path: tuple[int | str, ...]) -> tuple[Value, tuple[int | str, ...]]:
    """The innermost value that the path leads to, and the steps that led there; names of union branches lead nowhere."""
    value: Value = root
    taken: list[int | str] = []
    for step in path:
        if isinstance(value, Mapping) and step in value.entries:
            value = value.entries[str(step)]
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value.items):
            value = value.items[step]
        else:
            continue
        taken.append(step)
    return value, tuple(taken)


def _field(steps: tuple[int | str, ...]) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f"{'.' if text else ''}{step}"
    return text


def _node(root: Mapping, path: tuple[int | str, ...]) -> str | None:
    nodes = root.entries.get("nodes")
    if len(path) < 2 or path[0] != "nodes" or not isinstance(path[1], int) or not isinstance(nodes, Sequence):
        return None
    node = nodes.items[path[1]] if path[1] < len(nodes.items) else None
    name = node.entries.get("name") if isinstance(node, Mapping) else None
    return name.value if isinstance(name, Scalar) else None
