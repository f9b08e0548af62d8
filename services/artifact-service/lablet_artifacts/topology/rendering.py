"""One seat's copy of a lab file: the author's bytes with the seat's ports and values in their places.

Dumping a parsed file would rewrite it: round-trip dumpers settle indentation, line width and quoting by rules of their
own, and CRLF does not survive them. Here the parser only says where the strings stand; the new text is spliced into
the author's text, so every other byte is the same because it was never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from lablet_artifacts.topology.ports import Slot, Survey, survey
from lablet_artifacts.topology.problems import Problem, RenderError
from lablet_artifacts.topology.reading import read_structure
from lablet_artifacts.topology.scalars import is_printable
from lablet_artifacts.topology.splicing import Change, changed, written
from lablet_artifacts.topology.tree import decode


def render(data: bytes, ports: Mapping[str, int], values: Mapping[str, str] | None = None) -> bytes:
    """The file with `ports` (name → number) and `values` (token → text) put in.

    Exactly the named ports of the file must be given; more values than the file uses are fine. Tokens outside node
    tags and smart annotations are left as they are, and text that a value brings in is not searched for tokens.
    Raises TopologyError where the file is no sound topology, and RenderError naming every token without a port or
    value, every port without a place, every token left over, and every text that grows too long for its field.
    """
    return fill(prepare(data), ports, values)


@dataclass(frozen=True, slots=True)
class Template:
    """A lab file and where its slots are: what all its seats have in common. Little more than the text itself."""

    text: str
    found: Survey


def prepare(data: bytes) -> Template:
    """Reads the file, which is most of the work. Raises TopologyError."""
    text = decode(data)
    return Template(text, survey(read_structure(text).places))


def fill(template: Template, ports: Mapping[str, int], values: Mapping[str, str] | None = None) -> bytes:
    """The seat's file. Raises RenderError as `render` does."""
    text, found = template.text, template.found
    problems = list(found.problems)
    problems += _unplaced(found.slots, ports, values or {})
    problems += _unfit(found.slots, ports, values or {})
    if problems:
        raise RenderError(problems)
    parts: list[str] = []
    at = 0
    for _, group in groupby(found.slots, key=lambda slot: slot.place.scalar.start):
        slots = list(group)
        place = slots[0].place
        changes = [Change(slot.start, slot.end, _new(slot, ports, values or {})) for slot in slots]
        length = len(changed(place.text, changes))
        if length > place.longest:
            problems.append(_at(slots[0], f"the text grows to {length} characters", f"at most {place.longest} fit"))
        parts += [text[at : place.scalar.start], written(text, place.scalar, changes)]
        at = place.scalar.end
    if problems:
        raise RenderError(problems)
    return "".join([*parts, text[at:]]).encode("utf-8")


def _new(slot: Slot, ports: Mapping[str, int], values: Mapping[str, str]) -> str:
    if slot.port is not None:
        return str(int(ports[slot.port]))
    return values[slot.token or ""]


def _unplaced(slots: tuple[Slot, ...], ports: Mapping[str, int], values: Mapping[str, str]) -> list[Problem]:
    """Slots that nothing is given for, and ports that no slot takes."""
    problems = []
    for slot in slots:
        token = slot.place.text[slot.start : slot.end]
        if slot.port is not None and slot.port not in ports:
            shown = f"the token {token}" if token.startswith("${") else f"the tag {slot.place.text!r}"
            problems.append(_at(slot, f"no port is given for {slot.port!r}, which {shown} names", "allocate it"))
        elif slot.token is not None and slot.token not in values:
            known = ", ".join(sorted(values)) or "none"
            problems.append(_at(slot, f"the token {token} is unknown", f"values given: {known}"))
    places = {slot.port for slot in slots}
    problems += [
        Problem(f"the port {name!r} has no place in the file", f"add ${{PORT_{name.upper()}}} to a tag")
        for name in ports
        if name not in places
    ]
    return problems


def _unfit(slots: tuple[Slot, ...], ports: Mapping[str, int], values: Mapping[str, str]) -> list[Problem]:
    """Ports that are no port numbers, and values (of those used) that cannot stand on one line of a file."""
    problems = []
    for name, port in ports.items():
        if type(port) is not int or not 1 <= port <= 65535:  # a bool is an int to isinstance
            problems.append(Problem(f"the port {name!r} is {port!r}", "give a whole number from 1 to 65535"))
    used = {slot.token for slot in slots}
    for name, value in values.items():
        if name in used and not all(is_printable(c) for c in value):
            problems.append(
                Problem(f"the value of ${{{name}}} has a control character or line break", "give one printable line")
            )
    return problems


def _at(slot: Slot, message: str, remedy: str) -> Problem:
    scalar = slot.place.scalar
    return Problem(message, remedy, slot.place.field, slot.place.node, scalar.line, scalar.column)
