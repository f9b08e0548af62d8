"""The port to the authoritative store: etcd's semantics as plain values.

Every service reads and writes through this protocol; `EtcdStore` speaks it to a real server and `MemoryStore`
is its twin for tests. Both pass one contract suite.

What is promised: reads are linearizable unless `serializable=True`; a transaction is atomic and strictly ordered by
revision; a watch delivers every change after its start revision, in order, whole revisions at a time, or raises
`Compacted`. What is *not* promised: that a watch has seen what a read has seen, or that a call that ended in
`OutcomeUnknown` did not happen (read the compared keys again before deciding anything else).

Keys are relative to the store's prefix (`ETCD_PREFIX`) and begin with a slash.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

MAX_OPERATIONS = 128
"""Operations (and, separately, comparisons) that one etcd transaction takes."""
MAX_VALUE_BYTES = 512 * 1024
"""Largest value that Lablet stores under one key; etcd itself refuses requests over 1.5 MiB."""


class StoreError(Exception):
    """Something the store refused or could not do."""


class StoreUnavailable(StoreError):
    """No endpoint answered: nothing was changed. Try again later; answer 503 naming etcd."""


class OutcomeUnknown(StoreUnavailable):
    """A write was sent and no answer came: it may or may not have happened."""


class Compacted(StoreError):
    """The wanted revision has been compacted: list again and go on from there. `compact_revision` is the oldest one that
    can be read; 0 where the server did not say."""

    def __init__(self, compact_revision: int) -> None:
        oldest = f"; the oldest one readable is {compact_revision}" if compact_revision else ""
        super().__init__(f"the revision has been compacted{oldest}")
        self.compact_revision = compact_revision


class Behind(StoreError, TimeoutError):
    """A copy of what is in the store has not come up to a revision in time. Whoever works from it begins anew."""


class LeaseLost(StoreError):
    """The lease has expired or was revoked."""


class InvalidRequest(StoreError):
    """The request can never succeed as it stands (too many operations, value too large, duplicate key in one
    transaction, future revision, no permission)."""


class KeyValue(NamedTuple):
    """One key at one revision. (A tuple, as lists and watches make thousands of them.)"""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    version: int = 1
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in key order, all read at `revision`; `more` says that the limit cut the list."""

    items: tuple[KeyValue, ...]
    revision: int
    more: bool = False
    count: int = 0
    """How many keys the range holds in all, from `start_after` on, whatever the limit."""


class EventType(StrEnum):
    PUT = "put"
    DELETE = "delete"


class WatchEvent(NamedTuple):
    """One change. For a deletion `kv` carries the key, an empty value and the deletion's revision."""

    type: EventType
    kv: KeyValue
    previous: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """All changes under the watched prefix of one or more whole revisions, in order. `events` is empty for a progress
    notice: everything up to `revision` has been delivered."""

    revision: int
    events: tuple[WatchEvent, ...] = ()


class Target(StrEnum):
    MOD = "mod"
    CREATE = "create"
    VERSION = "version"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition of a transaction. `mod`/`create`/`version` 0 means: the key is absent."""

    key: str
    target: Target
    operator: str
    """`=`, `!=`, `<` or `>`."""
    operand: int | bytes


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    """A read inside a transaction (one key, or everything below a prefix)."""

    key: str
    prefix: bool = False


Operation = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What a transaction did. `reads` holds one entry per `Get` of the branch that ran, in order."""

    succeeded: bool
    revision: int
    reads: tuple[tuple[KeyValue, ...], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class StoreStatus:
    version: str
    """Of the server, such as `3.5.16`; the twin says `memory`."""
    revision: int
    db_bytes: int
    leader: bool
    """True when the cluster has a leader."""


class Store(Protocol):
    """An asyncio client of etcd (or its twin). Every call raises `StoreUnavailable` when no endpoint answers in time and
    `InvalidRequest` for a request that can never succeed."""

    async def get(self, key: str, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        """The key's value, at an old revision if one is named. Raises `Compacted`."""
        ...

    async def range(
        self,
        prefix: str,
        *,
        limit: int = 0,
        start_after: str = "",
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        order_by_create: bool = False,
    ) -> Page:
        """Keys that begin with `prefix`, in key order (or by create revision). Page on with the last key as
        `start_after` and the first page's revision (in key order only). Raises `Compacted`."""
        ...

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        """Writes unconditionally and returns the revision. Raises `LeaseLost`, `OutcomeUnknown`."""
        ...

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        """Deletes one key, or all below a prefix; returns how many were there."""
        ...

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        """Runs `success` if every comparison holds, else `failure`, atomically. Raises `LeaseLost`, `OutcomeUnknown`."""
        ...

    def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchBatch]]:
        """Changes below `prefix` from `start_revision` on (0: from now). Resumes by itself over reconnects and endpoint
        changes without loss or repetition; raises `Compacted` when that is impossible, as it is from the oldest readable
        revision itself: only behind it every change is whole. With `previous` each change comes with what stood before it,
        and `Compacted` is raised where that went before a slow reader had come so far. Sends progress notices."""
        ...

    async def lease_grant(self, ttl_seconds: float) -> int:
        """A new lease's id. etcd rounds to whole seconds and knows a smallest TTL of about 2 s."""
        ...

    async def lease_keep_alive(self, lease: int) -> float:
        """Renews once and returns the seconds left. Raises `LeaseLost`."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """Ends the lease and deletes its keys; a lease that is already gone is no error."""
        ...

    async def compact(self, revision: int) -> None:
        """Forgets the history before `revision`. Raises `Compacted` if that has happened already."""
        ...

    async def status(self) -> StoreStatus: ...

    async def close(self) -> None: ...
