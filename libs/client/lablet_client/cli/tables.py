"""What a table shows of each kind: its columns, as functions of the resource. Pure.

`wide` columns stand in `-o wide` only. Colours are names of styles and mean the same everywhere: green is well, yellow
needs patience, red went wrong, dim is over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lablet_client.cli.times import show_age, show_slot, show_span

Document = Mapping[str, Any]
STYLES: Mapping[str, str] = {
    **dict.fromkeys(("Active", "Running", "Ready", "Published", "Decided", "Placed"), "green"),
    **dict.fromkeys(("Scheduled", "Held", "Stored"), "cyan"),
    **dict.fromkeys(("Pending", "Waitlisted", "Provisioning", "Starting", "Licensing", "Instantiating"), "yellow"),
    **dict.fromkeys(
        ("Completed", "Cancelled", "Revoked", "Terminated", "Exported", "Stopped", "Offline", "Archived"), "dim"
    ),
    **dict.fromkeys(("Collecting", "Grading", "Stopping", "Draining", "Accepted", "Terminating", "Paused"), "yellow"),
    **dict.fromkeys(("Failed", "Rejected", "Refused", "Expired", "Failing"), "red"),
    "Deprecated": "dim",
}


NOTICES = frozenset({"StartingSoon", "EndingSoon"})
"""Conditions that only say that an event went out."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and the style it is shown in."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    value: Callable[[Document, datetime], Cell | str]
    wide: bool = False
    right: bool = False


def at(document: Document, path: str, default: Any = None) -> Any:
    """The value at a dotted path; `default` where a part is missing."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return default if value is None else value


def moment(document: Document, path: str) -> datetime | None:
    text = at(document, path)
    return datetime.fromisoformat(text) if text else None


def phase(document: Document, now: datetime) -> Cell:  # noqa: ARG001 - columns are called alike
    """The phase, with the conditions that hold."""
    name = str(at(document, "status.phase", ""))
    held = [c["type"] for c in at(document, "status.conditions", []) if c.get("status", True)]
    extra = [word for word in held if word not in NOTICES]
    return Cell(", ".join([name, *extra]), "yellow" if extra else STYLES.get(name, ""))


def slot_of(document: Document) -> tuple[datetime, datetime] | None:
    """The slot a reservation or instance has, or asks for."""
    for place in ("status.slot", "spec"):
        start, end = moment(document, f"{place}.start"), moment(document, f"{place}.end")
        if start and end:
            return start, end
    return None


def _slot(document: Document, now: datetime) -> str:
    slot = slot_of(document)
    if slot is None:
        minutes = at(document, "spec.durationMinutes", 0)
        return f"as soon as possible, {show_span(timedelta(minutes=minutes))}"
    return show_slot(*slot, now)


def _text(path: str) -> Callable[[Document, datetime], str]:
    def value(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
        found = at(document, path, "")
        return f"{found:g}" if isinstance(found, float) else str(found)

    return value


def _age(document: Document, now: datetime) -> str:
    made = moment(document, "metadata.createdAt")
    return show_age(made, now) if made else ""


def _real(path: str) -> Callable[[Document, datetime], str]:
    """A moment of real time, told from the machine's own clock."""

    def value(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
        found = moment(document, path)
        return show_age(found, datetime.now(UTC)) if found else ""

    return value


def _labels(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
    return " ".join(f"{key}={value}" for key, value in at(document, "metadata.labels", {}).items())


def _workers(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
    names = sorted({seat["worker"] for seat in at(document, "status.placement", [])})
    return ", ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "")


def _amounts(place: str) -> Callable[[Document, datetime], str]:
    def value(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
        cpu, memory = at(document, f"{place}.cpuCores", 0), at(document, f"{place}.memoryGb", 0)
        return f"{cpu:g} cpu, {memory:g} GB"

    return value


def _worker_phase(document: Document, now: datetime) -> Cell:
    cell = phase(document, now)
    return Cell(f"{cell.text}, cordoned", "yellow") if at(document, "spec.unschedulable") else cell


def _nodes(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
    """What its shape says, or less where its licence allows less."""
    shape = at(document, "spec.maxNodes", 0)
    known = at(document, "status.license") or at(document, "status.lastLicense") or {}
    return str(min(shape, known.get("nodeQuota") or shape))


def _lab(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
    nodes = at(document, "status.nodes", [])
    up = sum(1 for node in nodes if node.get("state") == "BOOTED")
    return f"{up}/{len(nodes)}" if nodes else ""


def _dates(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
    """Placed ones of all."""
    states = [one.get("state") for one in at(document, "status.occurrences", [])]
    return f"{states.count('placed')}/{len(states)}" if states else ""


def _next_date(document: Document, now: datetime) -> str:
    spans = [
        (datetime.fromisoformat(one["start"]), datetime.fromisoformat(one["end"]))
        for one in at(document, "status.occurrences", [])
        if one.get("state") == "placed"
    ]
    return next((show_slot(*span, now) for span in sorted(spans) if span[1] > now), "")


def _reason(document: Document, now: datetime) -> str:  # noqa: ARG001 - columns are called alike
    return str(at(document, "status.message") or at(document, "status.reason", ""))


ID = Column("ID", _text("metadata.id"))
NAME = Column("NAME", _text("metadata.id"))
PHASE = Column("PHASE", phase)
AGE = Column("AGE", _age)
LABELS = Column("LABELS", _labels, wide=True)
REASON = Column("REASON", _reason, wide=True)

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "reservation": (
        ID,
        Column("DEFINITION", _text("spec.definition")),
        Column("SEATS", _text("spec.seats"), right=True),
        Column("SLOT", _slot),
        PHASE,
        Column("POOL", _text("status.pool")),
        Column("OWNER", _text("metadata.owner"), wide=True),
        Column("WORKERS", _workers, wide=True),
        REASON,
        LABELS,
    ),
    "series": (
        ID,
        Column("DEFINITION", _text("spec.template.definition")),
        Column("SEATS", _text("spec.template.seats"), right=True),
        Column("RULE", _text("spec.rule")),
        Column("DATES", _dates, right=True),
        Column("NEXT", _next_date),
        PHASE,
        Column("ZONE", _text("spec.timezone"), wide=True),
        Column("OWNER", _text("metadata.owner"), wide=True),
        REASON,
        LABELS,
    ),
    "instance": (
        ID,
        Column("DEFINITION", _text("spec.definition")),
        Column("SEAT", _text("spec.seat"), right=True),
        Column("SLOT", _slot),
        PHASE,
        Column("WORKER", _text("spec.worker")),
        Column("NODES", _lab, right=True),
        Column("HOST", _text("status.host"), wide=True),
        Column("ATTEMPT", _text("status.attempt"), wide=True, right=True),
        REASON,
    ),
    "definition": (
        NAME,
        PHASE,
        Column("NODES", _text("spec.requirements.nodeCount"), right=True),
        Column("NEEDS", _amounts("spec.requirements")),
        Column("PORTS", lambda document, _: str(len(at(document, "spec.ports", []))), right=True),
        AGE,
        Column("TITLE", _text("spec.title"), wide=True),
        Column("LICENCES", lambda document, _: ", ".join(at(document, "spec.licenses", [])), wide=True),
        LABELS,
    ),
    "worker": (
        NAME,
        Column("POOL", _text("spec.pool")),
        Column("PHASE", _worker_phase),
        Column("CAPACITY", _amounts("spec.capacity")),
        Column("NODES", _nodes, right=True),
        Column("LICENCE", _text("spec.license")),
        Column("ADDRESS", _text("status.address")),
        Column("MACHINE", _text("status.machine.id"), wide=True),
        Column("VERSION", _text("status.version"), wide=True),
        Column("SCALING", _text("status.scaling.rule"), wide=True),
        REASON,
    ),
    "pool": (
        NAME,
        Column("TEMPLATE", _text("spec.template")),
        Column("MIN", _text("spec.min"), right=True),
        Column("MAX", _text("spec.max"), right=True),
        Column("WARM", _text("spec.warm"), right=True),
        Column("POLICY", _text("spec.policy")),
        AGE,
        LABELS,
    ),
    "template": (
        NAME,
        Column("PROVIDER", _text("spec.provider")),
        Column("TYPE", _text("spec.instanceType")),
        Column("CAPACITY", _amounts("spec.capacity")),
        Column("NODES", _text("spec.maxNodes"), right=True),
        Column("LICENCE", _text("spec.license")),
        Column("BOOT", lambda document, _: f"{at(document, 'spec.bootMinutes', 0)} min", right=True),
        Column("USD/H", _text("spec.costPerHourUsd"), right=True),
        Column("DESCRIPTION", _text("spec.description"), wide=True),
    ),
    "key": (
        ID,
        Column("NAME", _text("spec.name")),
        Column("ROLE", _text("spec.role")),
        PHASE,
        Column("EXPIRES", _real("spec.expiresAt")),
        Column("LAST USED", _real("status.lastUsedAt")),
        Column("SCOPES", lambda document, _: " ".join(at(document, "spec.scopes", [])) or "all of the role"),
        Column("MADE BY", _text("metadata.owner"), wide=True),
        REASON,
    ),
    "request": (
        ID,
        Column(
            "ASKED", lambda document, _: at(document, "spec.type", "").removeprefix("io.lablet.").removesuffix(".v1")
        ),
        Column("SUBJECT", _text("spec.subject")),
        PHASE,
        Column("PRINCIPAL", _text("spec.principal")),
        REASON,
    ),
    "artifact": (
        Column("NAME", _text("name")),
        Column("ROLE", _text("role")),
        Column("BYTES", _text("bytes"), right=True),
        Column("DIGEST", lambda document, _: at(document, "digest", "")[:12]),
        Column("ATTEMPT", _text("attempt"), wide=True, right=True),
        Column("TYPE", _text("mediaType"), wide=True),
    ),
    "subscription": (
        NAME,
        Column("SINK", _text("spec.sink")),
        PHASE,
        Column("DELIVERED", _text("status.delivered"), right=True),
        Column("DEAD", _text("status.deadLettered"), right=True, wide=True),
        Column("TYPES", lambda document, _: ", ".join(at(document, "spec.types", [])), wide=True),
        Column("ERROR", _text("status.lastError.message")),
        AGE,
    ),
}
ALIASES: Mapping[str, str] = {
    "rsv": "reservation",
    "ser": "series",
    "ins": "instance",
    "def": "definition",
    "lab": "instance",
    "tpl": "template",
    "req": "request",
}
KINDS = tuple(COLUMNS)


def kind_word(text: str) -> str | None:
    """The kind that a word stands for (`reservations`, `rsv`); None for no kind."""
    word = text.lower()
    for candidate in (word, word.removesuffix("s"), ALIASES.get(word, ""), ALIASES.get(word.removesuffix("s"), "")):
        if candidate in COLUMNS:
            return candidate
    return None
