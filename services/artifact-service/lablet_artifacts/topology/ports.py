"""Named ports of a lab file: which places stand for a port, and what the port is called.

Two notations. `${PORT_<NAME>}` in a node's tag or in the tag or label of a smart annotation stands for the port
`<name>` (lower case). A node's tag `protocol:number` stands for the port `<label>_<protocol>`; its number is a mere
placeholder. Every other `${NAME}` in these places is a value of the seat. The rules where the two meet:

- A token whose name equals a derived name means that very port, so `serial:5001` on R1 and `${PORT_R1_SERIAL}` in an
  annotation show one number.
- Two different `protocol:number` tags that derive one name get `name`, `name_2`, `name_3` in the order of the file;
  the same tag twice on one node is one port.
- A smart annotation whose tag or label equals a `protocol:number` tag that only one node has follows that tag, because
  CML groups nodes by equal tags.
- A port's protocol is the word before its token (`serial:${PORT_R1}`) where that is a known protocol, else tcp. Two
  different ones for one port are a fault.
- A place that an alias lets stand for several values cannot hold a port or token: its characters are not its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lablet_artifacts.topology.model import Place, Topology
from lablet_artifacts.topology.problems import MOST_PROBLEMS, Problem

PROTOCOLS = ("serial", "vnc", "ssh", "telnet", "tcp", "udp", "http", "https")
"""What may stand before the colon of a `protocol:number` tag; upper and lower case are the same."""

_WORDS = "|".join(sorted(PROTOCOLS, key=len, reverse=True))
_PORT_TAG = re.compile(rf"({_WORDS}):([0-9]+)", re.IGNORECASE)
_PROTOCOL_BEFORE = re.compile(rf"(?:^|[^A-Za-z0-9])({_WORDS}):$", re.IGNORECASE)
TOKEN = re.compile(r"\$\{([^{}$\r\n]*)\}|\$\{")
"""A token, or the beginning of one that does not end."""
_TOKEN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PORT_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")
_UNSAFE = re.compile(r"[^a-z0-9_.-]")
_LONGEST_NAME = 64
_BEFORE = 16
"""Characters before a token in which its protocol stands, if it does: the longest word, its colon and what precedes it."""
_QUOTED = 80
"""Characters of the file that a message repeats: with all of them, a text of tokens alone costs the square of its length."""


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that each seat of the lab gets on its worker."""

    name: str
    protocol: str
    node: str | None
    """Label of the node that it leads to, where the file says so."""
    where: str
    """Path of the first place that names it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Characters `start:end` of a place's text, to be replaced by a port (`port`) or else by a value (`token`)."""

    place: Place
    start: int
    end: int
    port: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    ports: tuple[NamedPort, ...]
    slots: tuple[Slot, ...]
    problems: tuple[Problem, ...]


def find_ports(topology: Topology) -> list[NamedPort]:
    """The named ports in the order in which the file first names them."""
    return list(survey(topology.places).ports)


def find_tokens(topology: Topology) -> tuple[str, ...]:
    """The names of the other tokens (`SEAT`, `HOST`, …) that rendering needs a value for, sorted."""
    return tuple(sorted({slot.token for slot in survey(topology.places).slots if slot.token is not None}))


def derived_name(label: str, protocol: str) -> str:
    """The port name of a `protocol:number` tag: label and protocol in lower case, other characters than
    `a-z0-9_.-` as `_`, at most 64 characters (longer labels are cut and keep a digest)."""
    safe = _UNSAFE.sub("_", label.lower())
    safe = safe if safe[:1].isalnum() or safe[:1] == "_" else f"_{safe}"
    room = _LONGEST_NAME - len(protocol) - 1
    if len(safe) > room:
        digest = hashlib.sha256(label.encode()).hexdigest()[:8]
        safe = f"{safe[: room - 9]}_{digest}"
    return f"{safe}_{protocol}"


def _quoted(text: str, start: int = 0) -> str:
    shown = text[start : start + _QUOTED]
    return repr(shown if len(text) <= start + _QUOTED else f"{shown}…")


def survey(places: Sequence[Place]) -> Survey:
    """All slots of a file and the ports behind them. `places` are in the order of the file."""
    return _Surveyor().survey(places)


class _Surveyor:
    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.problems: list[Problem] = []
        self.derived: dict[tuple[str, str], str] = {}
        self.taken: set[str] = set()
        self.protocols: dict[str, str] = {}

    def survey(self, places: Sequence[Place]) -> Survey:
        for place in places:
            if place.role == "node tag":
                self._port_tag(place)
        followed = self._unambiguous()
        for place in places:
            text = place.text
            if place.role != "node tag" and text in followed:
                self._slot(place, text.index(":") + 1, len(text), port=followed[text])
            for match in TOKEN.finditer(text):
                self._token(place, match)
        self.slots.sort(key=lambda slot: (slot.place.scalar.start, slot.start))
        return Survey(self._ports(), tuple(self.slots), tuple(self.problems))

    def _port_tag(self, place: Place) -> None:
        match = _PORT_TAG.fullmatch(place.text)
        if match is None or place.node is None:
            return
        if len(match[2]) > 5 or int(match[2]) > 65535:
            self._problem(place, f"{match[2]} is no port number", "give 0 to 65535; Lablet puts the real one there")
            return
        protocol = match[1].lower()
        key = (place.node, place.text.lower())
        if key not in self.derived:
            self.derived[key] = self._free(derived_name(place.node, protocol))
        name = self.derived[key]
        self.protocols.setdefault(name, protocol)
        self._slot(place, match.start(2), match.end(2), port=name)

    def _free(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            suffix = f"_{count}"
            name = f"{wanted[: _LONGEST_NAME - len(suffix)]}{suffix}"
        self.taken.add(name)
        return name

    def _unambiguous(self) -> dict[str, str]:
        """Tags as written that exactly one node has → the port."""
        nodes: dict[str, set[str | None]] = {}
        ports: dict[str, str] = {}
        for slot in self.slots:
            nodes.setdefault(slot.place.text, set()).add(slot.place.node)
            ports[slot.place.text] = slot.port or ""
        return {text: port for text, port in ports.items() if len(nodes[text]) == 1}

    def _token(self, place: Place, match: re.Match[str]) -> None:
        inner = match[1]
        if inner is None:
            shown = _quoted(place.text, match.start())
            self._problem(place, f"the token {shown} does not end", "write ${NAME}")
        elif inner.startswith("PORT_") and _PORT_NAME.fullmatch(name := inner[5:].lower()):
            before = _PROTOCOL_BEFORE.search(place.text[max(0, match.start() - _BEFORE) : match.start()])
            if before is not None:
                self._protocol(place, name, before[1].lower())
            self._slot(place, match.start(), match.end(), port=name)
        elif _TOKEN_NAME.fullmatch(inner) and not inner.startswith("PORT_"):
            self._slot(place, match.start(), match.end(), token=inner)
        else:
            self._problem(
                place, f"the token {match[0]} is not understood", "write ${PORT_<NAME>} or the name of a value"
            )

    def _protocol(self, place: Place, name: str, protocol: str) -> None:
        known = self.protocols.setdefault(name, protocol)
        if known != protocol:
            self._problem(
                place, f"the port {name} is {protocol} here and {known} elsewhere", "give the two ports different names"
            )

    def _slot(self, place: Place, start: int, end: int, *, port: str | None = None, token: str | None = None) -> None:
        if place.scalar.shared:
            self._problem(
                place,
                f"{_quoted(place.text)} is used more than once through an alias, so it can hold no port or token",
                "write it out in each place",
            )
            return
        self.slots.append(Slot(place, start, end, port, token))

    def _problem(self, place: Place, message: str, remedy: str) -> None:
        if len(self.problems) >= MOST_PROBLEMS:
            return
        scalar = place.scalar
        self.problems.append(Problem(message, remedy, place.field, place.node, scalar.line, scalar.column))

    def _ports(self) -> tuple[NamedPort, ...]:
        first: dict[str, Slot] = {}
        nodes: dict[str, str] = {}
        for slot in self.slots:
            if slot.port is None:
                continue
            first.setdefault(slot.port, slot)
            if slot.place.node is not None:
                nodes.setdefault(slot.port, slot.place.node)
        return tuple(
            NamedPort(name, self.protocols.get(name, "tcp"), nodes.get(name), slot.place.field)
            for name, slot in first.items()
        )
