"""Everything that Lablet holds, as JSON lines: out of one store at one revision, into another that is empty.

The first line says what the file is; each further line is a resource as the API shows it, or a setting beside the resources
(quotas, ledgers, artifacts' older references, the lab's clock). A file from elsewhere needs no more than that: the revision
of a resource is not read, and a request that has not been decided gets into its owner's inbox again. A resource that says its
`schemaVersion` is read as a stored value is: fields that a later release has added go with it. In one that says none (a
file from elsewhere) a field that nobody knows is a fault. Secrets are carried as they are stored: sealed, without the key.

What is read is checked as a whole before anything is written (its transactions too), and what is there already is never
written over. Not carried:
leases, owners and cursors, which services make anew, so that every resource is published again as a new one; the objects in
the object store; events. Not guaranteed: an import in one transaction. Broken off, it is run again with `skip_existing`;
until then a key stands that keeps services from owning anything.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lablet_common.quotas import LEDGERS, QUOTAS, Ledger, Quota
from lablet_common.references import REFERENCES, reference_key
from lablet_common.requests import pointer_of
from lablet_common.resources import schema
from lablet_common.resources.artifact import Artifact, Reference
from lablet_common.resources.kinds import ARTIFACT, CLOCK_KEY, IMPORTING_KEY, KINDS, SUBSCRIPTION, Kind
from lablet_common.resources.model import Model, Resource, format_time
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.store.api import Get, InvalidRequest, Put, Store
from lablet_common.store.changes import create_in, decode
from lablet_common.store.transaction import Transaction

FORMAT = "lablet-export/1"
_SETTING = "Setting"
_PAGE = 500
_BATCH = 40
"""Resources of one transaction; a request costs up to three operations."""
_BYTES = 1024 * 1024
"""Of one transaction, of the 1.5 MiB that etcd takes."""
_FAULTS_TOLD = 20
_SETTINGS: tuple[tuple[str, type[Model] | None], ...] = (
    (QUOTAS, Quota),
    (LEDGERS, Ledger),
    (REFERENCES, Reference),
    (CLOCK_KEY, None),
)
"""Prefix of keys beside the resources → what stands there; None: any JSON."""


class TransferError(Exception):
    """The file cannot be taken, or the store cannot take it; nothing has been written. `faults` says what is wrong, a line
    each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a resource, or a setting under its key."""

    key: str
    resource: Resource[Any, Any] | None = None
    value: bytes = b""
    belongs_to: str = ""
    """Key of the artifact that an older reference is counted by: it is written with that or not at all."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All that it will take up."""
        return (self.key, *(pointer.key for pointer in _pointers(self.resource)))


def _kinds() -> tuple[Kind, ...]:
    return (*KINDS.values(), SUBSCRIPTION)


async def export_lines(store: Store) -> AsyncIterator[bytes]:
    """The file's lines, all of one revision. Raises `Compacted` when that is compacted meanwhile (begin anew), and
    `Unreadable` naming what is not as its kind says."""
    # A member of etcd tells its status by itself, also one that was cut off an hour ago; a read asks for the leader's word.
    revision = (await store.range("/", limit=1, keys_only=True)).revision
    yield json.dumps({"format": FORMAT, "revision": revision}).encode()
    for kind in _kinds():
        async for kv in _all(store, kind.prefix, revision):
            yield schema.to_json(decode(kind, kv))
    for prefix, _ in _SETTINGS:
        async for kv in _all(store, prefix, revision):
            yield json.dumps({"kind": _SETTING, "key": kv.key, "value": json.loads(kv.value)}).encode()


async def _all(store: Store, prefix: str, revision: int) -> AsyncIterator[Any]:
    after = ""
    while True:
        page = await store.range(prefix, limit=_PAGE, start_after=after, revision=revision)
        for kv in page.items:
            yield kv
        if not page.more:
            return
        after = page.items[-1].key


def read_lines(lines: Iterable[bytes]) -> list[Entry]:
    """The entries of a file, in the order in which they are written. Raises `TransferError` naming each line at fault."""
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    faults: list[str] = []
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    if not numbered or not _is_head(numbered[0][1]):
        raise TransferError([f'line 1: a file begins with {{"format": "{FORMAT}"}}: is this an export of Lablet?'])
    for number, line in numbered[1:]:
        try:
            entry = _entry(line)
        except (ValueError, KeyError, TypeError) as error:
            faults.append(f"line {number}: {_said(error)}")
            continue
        if entry.key in seen:
            faults.append(f"line {number}: {entry.key} stands in line {seen[entry.key]} already")
        seen[entry.key] = number
        entries.append(entry)
    faults += _miscounted(entries)
    if faults:
        more = [f"and {len(faults) - _FAULTS_TOLD} more"] if len(faults) > _FAULTS_TOLD else []
        raise TransferError([*faults[:_FAULTS_TOLD], *more])
    return entries


async def import_entries(store: Store, entries: Sequence[Entry], *, skip_existing: bool = False) -> int:
    """Writes them; returns how many. Raises `TransferError` while services run and, unless `skip_existing`, where
    something is there already; `Conflict` when somebody writes meanwhile: run it again with `skip_existing`."""
    owners = await store.range("/ownership/", limit=1, keys_only=True)
    if owners.items:
        raise TransferError(
            [f"{owners.items[0].key} is held: services are running; stop them, so that nobody else writes"]
        )
    keys = dict.fromkeys(key for entry in entries for key in (*entry.keys, entry.belongs_to) if key)
    present = await _present(store, list(keys))
    if present and not skip_existing:
        told = [f"{key} exists already" for key in sorted(present)[:_FAULTS_TOLD]]
        raise TransferError([*told, "import into an empty store, or skip what exists"])
    wanted = sorted((entry for entry in entries if not present & {entry.key, entry.belongs_to}), key=_turn)
    try:
        batches = list(_batches(wanted))
    except InvalidRequest as error:
        raise TransferError([str(error)]) from error
    if len(batches) > 1:
        await store.put(IMPORTING_KEY, b"{}")
    for txn in batches:
        await txn.commit(store)
    await store.delete(IMPORTING_KEY)
    return len(wanted)


def _batches(entries: Sequence[Entry]) -> Iterator[Transaction]:
    """Transactions that write the entries in their order, each as much as etcd takes. Raises `InvalidRequest`."""
    txn, place, size = Transaction(), 0, 0
    for entry in entries:
        part = _written(entry, place)
        more = sum(len(one.value) for one in part.operations if isinstance(one, Put))
        if place == _BATCH or (place and size + more > _BYTES):
            yield txn
            txn, place, size = Transaction(), 0, 0
            part = _written(entry, place)
        txn.merge(part)
        place, size = place + 1, size + more
    if place:
        yield txn


def _turn(entry: Entry) -> tuple[int, str]:
    """Content behind the instances that refer to it: caches that keep only what living ones refer to may be filling already,
    where services wait for the end of an import that broke off. Older references before their artifact: broken off, that is
    not there, and with it none is missing. Requests last, in the order of their acceptance: owners decide them in the order
    in which they find them."""
    resource = entry.resource
    if isinstance(resource, Request):
        return 3, format_time(resource.spec.received_at)
    if isinstance(resource, Artifact):
        return 2, ""
    return 1 if entry.belongs_to else 0, ""


def _miscounted(entries: Sequence[Entry]) -> list[str]:
    """What is wrong between artifacts and their older references, which they count."""
    found = Counter(entry.belongs_to for entry in entries if entry.belongs_to)
    said = {
        entry.key: entry.resource.status.older_references
        for entry in entries
        if isinstance(entry.resource, Artifact) and (entry.resource.status.older_references or entry.key in found)
    }
    return [
        f"{key} counts {said.get(key, 'no')} older references, and the file has {found[key]}"
        for key in sorted(found.keys() | said.keys())
        if found[key] != said.get(key)
    ]


def _written(entry: Entry, place: int) -> Transaction:
    txn = Transaction()
    if entry.resource is None:
        return txn.require_absent(entry.key).put(entry.key, entry.value)
    create_in(txn, _at_home(entry.resource))
    for pointer in _pointers(entry.resource, place):
        txn.put(pointer.key, pointer.value)
    return txn


def _at_home(resource: Resource[Any, Any]) -> Resource[Any, Any]:
    """A request that waits is meant for its resource as it has come along: that has another revision here."""
    if not isinstance(resource, Request) or resource.status.phase is not RequestPhase.ACCEPTED:
        return resource
    return resource.model_copy(update={"spec": resource.spec.model_copy(update={"meant_for": None})})


async def _present(store: Store, keys: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for at in range(0, len(keys), 2 * _BATCH):
        part = keys[at : at + 2 * _BATCH]
        reads = (await store.txn([], [Get(key) for key in part])).reads
        found.update(key for key, read in zip(part, reads, strict=True) if read)
    return found


def _pointers(resource: Resource[Any, Any] | None, place: int = 0) -> tuple[Put, ...]:
    """What brings an undecided request to its owner."""
    waits = isinstance(resource, Request) and resource.status.phase is RequestPhase.ACCEPTED
    return (pointer_of(resource, place),) if isinstance(resource, Request) and waits else ()


def _is_head(line: bytes) -> bool:
    try:
        head = json.loads(line)
    except ValueError:
        return False
    return isinstance(head, dict) and head.get("format") == FORMAT


def _entry(line: bytes) -> Entry:
    document = json.loads(line)
    if not isinstance(document, dict) or "kind" not in document:
        raise ValueError("an object with a kind is wanted")
    if document["kind"] == _SETTING:
        return _setting(str(document["key"]), document["value"])
    kind = next((kind for kind in _kinds() if kind.model.model_fields["kind"].default == document["kind"]), None)
    if kind is None:
        known = ", ".join(sorted(str(one.model.model_fields["kind"].default) for one in _kinds()))
        raise ValueError(f"there is no kind {document['kind']!r}: known are {known}")
    if isinstance(metadata := document.get("metadata"), dict):
        metadata.pop("resourceVersion", None)
    if "schemaVersion" in document:
        resource = schema.read(kind.model, json.dumps(document).encode())
    else:
        resource = kind.model.model_validate(schema.migrated(kind.model, document))
    return Entry(kind.key_of(resource), resource)


def _setting(key: str, value: Any) -> Entry:
    for prefix, model in _SETTINGS:
        if key.startswith(prefix):
            read = model.model_validate(value) if model is not None else None
            owner = _artifact_of(key, read) if isinstance(read, Reference) else ""
            return Entry(key, None, json.dumps(value).encode(), owner)
    raise ValueError(f"{key} is no setting that can be imported")


def _artifact_of(key: str, reference: Reference) -> str:
    """Key of the artifact that the older reference under `key` belongs to. Raises `ValueError`."""
    tenant, digest, *_ = (*key.removeprefix(REFERENCES).split("/"), "", "")
    if key != reference_key(tenant, digest, reference):
        raise ValueError(f"{key} is not the key of the reference that stands there")
    return ARTIFACT.key(digest, tenant)


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"the field {error} is missing"
    return str(error)
