"""etcd's data model in memory: every key with all its versions since the last compaction, and the log of changes.

Pure: no clock, no tasks, no leases. `MemoryStore` puts those around it. A write takes the next revision; everything that
one transaction changes carries the same one.
"""

import bisect
from collections.abc import Sequence

from lablet_common.store.api import (
    Compacted,
    Compare,
    Delete,
    EventType,
    Get,
    InvalidRequest,
    KeyValue,
    Operation,
    Put,
    Target,
    WatchBatch,
    WatchEvent,
)

_Version = KeyValue | int
"""A state of a key, or the revision of its deletion."""


class History:
    """Keys and their past. Revision 1 is the empty store, as in etcd."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        """Everything before this revision is forgotten; 0: nothing is."""
        self._keys: list[str] = []
        self._versions: dict[str, list[_Version]] = {}
        self._log: list[WatchBatch] = []

    def readable(self, revision: int) -> int:
        """The revision that a read at `revision` (0: now) sees. Raises `Compacted`, and `InvalidRequest` for the future."""
        if revision and revision < self.compacted:
            raise Compacted(self.compacted)
        if revision > self.revision:
            raise InvalidRequest(f"revision {revision} is in the future; the newest is {self.revision}")
        return revision or self.revision

    def get(self, key: str, revision: int | None = None) -> KeyValue | None:
        versions = self._versions.get(key, ())
        if revision is None:
            newest = versions[-1] if versions else None
            return newest if isinstance(newest, KeyValue) else None
        for version in reversed(versions):
            if _revision_of(version) <= revision:
                return version if isinstance(version, KeyValue) else None
        return None

    def below(self, prefix: str, revision: int | None = None) -> list[KeyValue]:
        """All keys that begin with `prefix`, in key order."""
        return [kv for key in self._names(prefix) if (kv := self.get(key, revision)) is not None]

    def since(self, revision: int) -> list[WatchBatch]:
        """What changed from `revision` on, one batch per revision, with the values before."""
        first = bisect.bisect_left(self._log, revision, key=lambda batch: batch.revision)
        return self._log[first:]

    def holds(self, compare: Compare) -> bool:
        kv = self.get(compare.key)
        actual: int | bytes
        match compare.target:
            case Target.MOD:
                actual = kv.mod_revision if kv else 0
            case Target.CREATE:
                actual = kv.create_revision if kv else 0
            case Target.VERSION:
                actual = kv.version if kv else 0
            case Target.VALUE:
                if kv is None:
                    return False  # whatever the operator: so does etcd
                actual = kv.value
        return _ordered(actual, compare.operator, compare.operand)

    def apply(self, operations: Sequence[Operation]) -> tuple[list[tuple[KeyValue, ...]], WatchBatch | None]:
        """Runs the operations at the next revision: what the reads among them saw (a read sees what stood before it in
        the list), and the change if there was one."""
        revision = self.revision + 1
        reads: list[tuple[KeyValue, ...]] = []
        events: list[WatchEvent] = []
        for operation in operations:
            match operation:
                case Put():
                    events.append(self._put(operation, revision))
                case Delete(key, prefix):
                    doomed = self.below(key) if prefix else [kv for kv in (self.get(key),) if kv]
                    events += [self._delete(kv, revision) for kv in doomed]
                case Get(key, prefix):
                    reads.append(tuple(self.below(key) if prefix else [kv for kv in (self.get(key),) if kv]))
        if not events:
            return reads, None
        self.revision = revision
        change = WatchBatch(revision, tuple(events))
        self._log.append(change)
        return reads, change

    def compact(self, revision: int) -> None:
        """Forgets what was before `revision`. Raises `Compacted` if that is forgotten already."""
        if revision <= self.compacted:
            raise Compacted(self.compacted)
        self.readable(revision)
        self.compacted = revision
        self._log = self.since(revision)
        for key in list(self._keys):
            versions = self._versions[key]
            keep = bisect.bisect_right(versions, revision, key=_revision_of)
            if keep and isinstance(versions[keep - 1], KeyValue):
                keep -= 1
            del versions[:keep]
            if not versions:
                del self._versions[key]
        self._keys = [key for key in self._keys if key in self._versions]

    def _names(self, prefix: str) -> list[str]:
        begin = bisect.bisect_left(self._keys, prefix)
        end = begin
        while end < len(self._keys) and self._keys[end].startswith(prefix):
            end += 1
        return self._keys[begin:end]

    def _put(self, put: Put, revision: int) -> WatchEvent:
        before = self.get(put.key)
        created, version = (before.create_revision, before.version + 1) if before else (revision, 1)
        after = KeyValue(put.key, put.value, revision, created, version, put.lease)
        if put.key not in self._versions:
            bisect.insort(self._keys, put.key)
            self._versions[put.key] = []
        self._versions[put.key].append(after)
        return WatchEvent(EventType.PUT, after, before)

    def _delete(self, before: KeyValue, revision: int) -> WatchEvent:
        self._versions[before.key].append(revision)
        return WatchEvent(EventType.DELETE, KeyValue(before.key, b"", revision, 0, 0), before)


def _revision_of(version: _Version) -> int:
    return version if isinstance(version, int) else version.mod_revision


def _ordered(actual: int | bytes, operator: str, operand: int | bytes) -> bool:
    if operator == "=":
        return actual == operand
    if operator == "!=":
        return actual != operand
    if isinstance(actual, bytes) and isinstance(operand, bytes):
        return actual < operand if operator == "<" else actual > operand
    if isinstance(actual, int) and isinstance(operand, int):
        return actual < operand if operator == "<" else actual > operand
    raise InvalidRequest(f"{actual!r} cannot be compared with {operand!r}")
