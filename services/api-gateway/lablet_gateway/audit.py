"""The audit: who changed what, when, from what to what. Read out of the published events, and kept nowhere else.

Every change is a request, and a request's outcome is published with the whole request in it: who asked, in which role, for
what, and what came of it. The owner writes the outcome in the transaction that writes the resource, so both carry one
`sequence`. The resource's event of that sequence is the state after, the one before it the state before.

Not told: changes that nobody asked for (the system's own moves stand in a resource's history), and what is older than
the event stream keeps. A body over 64 KiB is not in its event, so its before and after are not either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lablet_common.events import CloudEvent, InvalidEvent
from lablet_common.events.reading import data_of, sequence_of
from lablet_common.resources import schema
from lablet_common.resources.kinds import KINDS
from lablet_common.resources.model import Instant, Model
from lablet_common.resources.request import Request, RequestPhase
from lablet_gateway.eventlog import EventLog, Logged
from lablet_gateway.rights import FLEET_TENANT

_SCANNED = 20_000
"""Events that one page looks through at most."""
_BATCH = 500
_FEW = 4
"""Events that are read for each entry that is wanted, to begin with: of a request there are two or three."""
_NEAR = 1000
"""Numbers between which searching for a moment is no quicker than reading."""
_STORY = 10_000
_APART = frozenset({"lastFact", "history", "resourceVersion", "generation"})


class AuditEntry(Model):
    """One change, or one that was refused."""

    request: str
    at: Instant
    """When it was decided, lab time."""
    principal: str
    role: str | None = None
    action: str
    """What was asked: `reservation.cancel`, `worker.drain`, `key.create`."""
    subject: str
    """`<kind>/<id>`."""
    outcome: str
    """`done` or `refused`."""
    message: str | None = None
    data: dict[str, Any]
    """What was asked, and only that."""
    correlation_id: str | None = None
    sequence: int


class Difference(Model):
    """A field that the change made another. A side that is missing was not there."""

    path: str
    before: Any = None
    after: Any = None


class AuditRecord(Model):
    """An entry with what it changed."""

    entry: AuditEntry
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    changes: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries; empty fields ask for nothing."""

    principal: str = ""
    subject: str = ""
    action: str = ""
    outcome: str = ""
    begin: datetime | None = None
    end: datetime | None = None

    def takes(self, entry: AuditEntry) -> bool:
        return (
            self.principal in ("", entry.principal)
            and (self.subject in ("", entry.subject) or entry.subject.startswith(f"{self.subject}/"))
            and (self.action in ("", entry.action) or entry.action.startswith(f"{self.action}."))
            and self.outcome in ("", entry.outcome)
            and (self.begin is None or entry.at >= self.begin)
            and (self.end is None or entry.at < self.end)
        )


@dataclass(frozen=True, slots=True)
class AuditPage:
    items: tuple[AuditEntry, ...]
    after: int | None
    """Where the next page begins; None: this was the end. A page may be short, or empty, and not the last."""


async def page(log: EventLog, tenant: str, wanted: Wanted, after: int | None, limit: int) -> AuditPage:
    """Up to `limit` entries of the tenant, oldest first. Raises `EventLogUnavailable`."""
    position = after if after is not None else await _begin(log, tenant, wanted.begin)
    found: dict[str, AuditEntry] = {}
    scanned, size = 0, min(_FEW * limit, _BATCH)
    while scanned < _SCANNED:
        batch = await log.of_kind(tenant, "request", position, size)
        for logged in batch:
            position = logged.number
            entry = entry_of(logged.event)
            if entry is not None and wanted.takes(entry):
                found.setdefault(entry.request, entry)
            if len(found) == limit:
                return AuditPage(tuple(found.values()), position)
        if len(batch) < size:
            return AuditPage(tuple(found.values()), None)
        scanned, size = scanned + size, min(2 * size, _BATCH)
    return AuditPage(tuple(found.values()), position)


async def record(log: EventLog, tenant: str, request_id: str) -> AuditRecord | None:
    """One change with its before and after; None where no such request was decided. Raises `EventLogUnavailable`."""
    for logged in reversed(await log.story(tenant, "request", request_id, _STORY)):
        entry = entry_of(logged.event)
        if entry is None:
            continue
        request = _request_in(logged.event)
        assert request is not None
        if request.status.changed is not None:
            before, after = request.status.changed.before, request.status.changed.after
        else:
            before, after = await _around(log, tenant, entry)
        return AuditRecord(entry=entry, before=before, after=after, changes=tuple(differences(before, after)))
    return None


def entry_of(event: CloudEvent) -> AuditEntry | None:
    """The entry in the event of a request's outcome; None for other events."""
    request = _request_in(event)
    if request is None or request.status.phase is RequestPhase.ACCEPTED or request.status.answer is not None:
        return None  # undecided, or only a question
    refused = request.status.phase is RequestPhase.REFUSED
    spec, status = request.spec, request.status
    return AuditEntry(
        request=request.id,
        at=status.decided_at or spec.received_at,
        principal=spec.principal,
        role=spec.role,
        action=_action(spec.type),
        subject=spec.subject if refused else status.resource or spec.subject,
        outcome="refused" if refused else "done",
        message=status.message,
        data=spec.data,
        correlation_id=request.metadata.correlation_id,
        sequence=sequence_of(event),
    )


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, path: str = "") -> list[Difference]:
    """The fields that differ, by their paths; lists are compared as a whole, book-keeping is left out."""
    found: list[Difference] = []
    left, right = before or {}, after or {}
    for name in sorted({*left, *right} - _APART):
        old, new = left.get(name), right.get(name)
        place = f"{path}.{name}" if path else name
        if old == new:
            continue
        if isinstance(old, Mapping | None) and isinstance(new, Mapping | None) and (old or new):
            found += differences(old, new, place)
        else:
            found.append(Difference(path=place, before=old, after=new))
    return found


async def _around(log: EventLog, tenant: str, entry: AuditEntry) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The resource before and after the commit of the entry."""
    kind, _, name = entry.subject.partition("/")
    if kind not in KINDS or not name:
        return None, None
    told: list[Logged] = []
    for owner in dict.fromkeys((tenant, FLEET_TENANT)):
        told = [*await log.story(owner, kind, name, _STORY)]
        if told:
            break
    states = {sequence_of(logged.event): logged.event for logged in told if _is_state(logged.event, kind)}
    if entry.sequence not in states:
        return None, None
    earlier = max((number for number in states if number < entry.sequence), default=None)
    after = _resource(states[entry.sequence])
    before = _resource(states[earlier]) if earlier is not None else None
    if before and after and before["metadata"]["uid"] != after["metadata"]["uid"]:
        before = None  # another one of the same name, deleted since
    if states[entry.sequence].get_type().endswith(".deleted.v1"):
        before, after = after, None
    return before, after


def _action(intent_type: str) -> str:
    """`reservation.cancel`; a kind's plain `requested` asks for a new one."""
    words = intent_type.removeprefix("io.lablet.").removesuffix(".v1").removesuffix(".requested")
    return words if "." in words else f"{words}.create"


def _is_state(event: CloudEvent, kind: str) -> bool:
    return event.get_id().startswith(f"{kind}/")


def _resource(event: CloudEvent) -> dict[str, Any] | None:
    found = {name: value for name, value in data_of(event).items() if name != "previousPhase"}
    return found or None


def _request_in(event: CloudEvent) -> Request | None:
    try:
        data = _resource(event)
        return schema.of_document(Request, data) if data else None
    except (InvalidEvent, ValueError):
        return None  # not one of ours: nothing that the audit could say about it


async def _begin(log: EventLog, tenant: str, begin: datetime | None) -> int:
    """A number before everything that was decided from `begin` on, and not far before it."""
    bounds = await log.bounds()
    low, high = bounds.first - 1, bounds.last
    while begin is not None and high - low > _NEAR:
        middle = (low + high) // 2
        found = await log.of_kind(tenant, "request", middle, 1)
        time = found[0].event.get_time() if found else None
        if time is not None and time < begin:
            low = found[0].number
        else:
            high = middle
    return low
