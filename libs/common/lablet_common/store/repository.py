"""Typed reading and writing of one kind: create where absent, update and delete by compare-and-swap, selected lists.

For writes that touch one resource. A decision over several resources is one `Transaction` (see `changes`). Lists are
read at one revision, which the cursor carries on, so that pages neither repeat nor miss a resource; a cursor whose
revision has been compacted ends in `Compacted`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast

from lablet_common import strangers
from lablet_common.resources.kinds import Kind
from lablet_common.resources.model import Resource
from lablet_common.store.api import InvalidRequest, KeyValue, Store, StoreError
from lablet_common.store.changes import create_in, decode, delete_in, update_in
from lablet_common.store.selectors import FieldSelector, LabelSelector
from lablet_common.store.transaction import Conflict, Transaction

R = TypeVar("R", bound=Resource[Any, Any])
_PAGE = 500
_LAST_REVISION = 2**63 - 1


class NotFound(StoreError):
    """No such resource."""

    def __init__(self, kind: str, resource_id: str) -> None:
        super().__init__(f"there is no {kind} {resource_id}")
        self.kind = kind
        self.id = resource_id


class AlreadyExists(StoreError):
    """A resource of that kind, tenant and id is there already; nothing was changed."""

    def __init__(self, kind: str, resource_id: str) -> None:
        super().__init__(f"{kind} {resource_id} exists already")
        self.kind = kind
        self.id = resource_id


class InvalidCursor(InvalidRequest):
    """A cursor that did not come from this list."""


@dataclass(frozen=True, slots=True)
class ResourcePage(Generic[R]):
    """Resources in key order, all read at `revision`; `next_cursor` is None on the last page."""

    items: tuple[R, ...]
    revision: int
    next_cursor: str | None = None


class Repository(Generic[R]):
    """The resources of `kind`. Every call raises `StoreUnavailable` when etcd does not answer, and writes raise
    `OutcomeUnknown` when the answer was lost: read again before deciding anything else."""

    def __init__(self, store: Store, kind: Kind, known: Callable[[KeyValue], R | None] | None = None) -> None:
        """`known` may have a value's resource at hand already (see `Cache.known`), which spares decoding it."""
        self._store = store
        self._kind = kind
        self._known = known

    async def get(
        self, resource_id: str, tenant: str = "default", revision: int = 0, *, serializable: bool = False
    ) -> R | None:
        """The resource now, or as it was at `revision` (raises `Compacted`)."""
        key = self._kind.key(resource_id, tenant)
        found = await self._store.get(key, revision=revision, serializable=serializable)
        return None if found is None else self._decoded(found)

    async def require(self, resource_id: str, tenant: str = "default", revision: int = 0) -> R:
        """Like `get`; raises `NotFound`."""
        found = await self.get(resource_id, tenant, revision)
        if found is None:
            raise NotFound(self._kind.name, resource_id)
        return found

    async def list(
        self,
        tenant: str | None = None,
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
        limit: int = 0,
        cursor: str | None = None,
    ) -> ResourcePage[R]:
        """Up to `limit` matching resources (0: all) after the cursor. Raises `InvalidCursor`, `Compacted`."""
        prefix = f"{self._kind.prefix}{tenant}/" if self._kind.tenanted and tenant is not None else self._kind.prefix
        revision, after = read_cursor(cursor, prefix) if cursor else (0, "")
        items: list[R] = []
        last_key = ""
        size = min(2 * limit, _PAGE) or _PAGE
        while True:
            page = await self._store.range(prefix, limit=size, start_after=after, revision=revision)
            size = min(2 * size, _PAGE)
            revision = revision or page.revision
            for kv in page.items:
                resource = self._decoded(kv, passing=True)
                if tenant is not None and resource.tenant != tenant:
                    continue
                if (labels is None or labels.matches(resource)) and (fields is None or fields.matches(resource)):
                    if limit and len(items) == limit:
                        return ResourcePage(tuple(items), revision, write_cursor(revision, last_key))
                    items.append(resource)
                    last_key = kv.key
            if not page.more:
                return ResourcePage(tuple(items), revision)
            after = page.items[-1].key

    def _decoded(self, kv: KeyValue, *, passing: bool = False) -> R:
        resource = self._known(kv) if self._known is not None else None
        return resource if resource is not None else cast("R", decode(self._kind, kv, passing=passing))

    async def create(self, resource: R) -> R:
        """Writes a new resource and returns it as stored. Raises `AlreadyExists`."""
        txn = Transaction()
        create_in(txn, resource)
        try:
            done = await txn.commit(self._store)
        except Conflict:
            raise AlreadyExists(self._kind.name, resource.id) from None
        return resource.at_revision(done.revision)

    async def update(self, resource: R) -> R:
        """Writes over the state that was read and returns it as stored. Raises `Conflict` when it has changed since."""
        txn = Transaction()
        update_in(txn, resource)
        done = await txn.commit(self._store)
        return resource.at_revision(done.revision)

    async def delete(self, resource: R, *, at: datetime | None = None) -> None:
        """Deletes the resource as it was read; one with finalizers is marked (at lab time `at`) and goes when the last
        finalizer does. Raises `Conflict`."""
        txn = Transaction()
        if not resource.metadata.finalizers:
            delete_in(txn, resource)
        elif resource.metadata.deletion_timestamp is None:
            update_in(txn, resource.marked_for_deletion(at or datetime.now(UTC)))
        else:
            return
        await txn.commit(self._store)


def write_cursor(revision: int, key: str) -> str:
    """The cursor that goes on after `key`, at the list's revision."""
    return strangers.write_cursor(revision, key)


def read_cursor(cursor: str, prefix: str) -> tuple[int, str]:
    """Revision and key after which a list of `prefix` goes on. Raises `InvalidCursor`."""
    try:
        revision, key = strangers.read_cursor(cursor)
    except (ValueError, TypeError):
        raise InvalidCursor("the cursor is damaged: take it from nextCursor as it stands") from None
    known = isinstance(revision, int) and 1 <= revision <= _LAST_REVISION
    if not known or not isinstance(key, str) or not key.startswith(prefix):
        raise InvalidCursor("the cursor belongs to another list: begin without one")
    return revision, key
