"""Changes of resources as pure additions to a transaction, and the stored form of a resource.

A decision that touches several resources is one `Transaction`, put together from these and committed once. Every
function compares what the decision rests on; none of them does I/O. A comparison that fails at commit raises
`Conflict`: read again and decide anew.
"""

import json
from collections import OrderedDict
from typing import Any, TypeVar, cast

from lablet_common.resources import schema
from lablet_common.resources.kinds import Kind, kind_of
from lablet_common.resources.model import Resource
from lablet_common.store.api import InvalidRequest, KeyValue, Put, StoreError
from lablet_common.store.transaction import Transaction

R = TypeVar("R", bound=Resource[Any, Any])
_REMEMBERED = 1024
_REMEMBERED_BYTES = 8 * 1024 * 1024
"""Of values. What they stand for takes about eight times as much; a thousand of the largest would be gigabytes."""
_METADATA = b'"metadata":{'
_BEGINNING = 96
"""Bytes of a stored value in which its metadata begin."""
_WITHOUT_VERSION = {"metadata": {"resource_version"}}


class Unreadable(StoreError):
    """A stored value that is not what its kind says: a foreign writer, or a newer Lablet."""

    def __init__(self, key: str, cause: str) -> None:
        super().__init__(f"the value of {key} cannot be read: {cause}")
        self.key = key


def encode(resource: Resource[Any, Any]) -> bytes:
    """The value to store: JSON without the revision, which etcd itself knows. Whoever reads that value next in this process
    (a cache, a bridge) gets this resource instead of decoding it. Raises `InvalidRequest` for what no JSON can hold."""
    try:
        value = _encoded(resource)
    except ValueError as error:
        raise InvalidRequest(f"{resource.kind} {resource.id} cannot be stored: {error}") from error
    _latest.keep(value, resource)
    return value


def decode(kind: Kind, kv: KeyValue, *, passing: bool = False) -> Resource[Any, Any]:
    """The resource as read at `kv.mod_revision`; read in `passing`, as one of many, it is not remembered. Raises
    `Unreadable`."""
    try:
        return _at(kind.model, kv.value, kv.mod_revision, keep=not passing)
    except ValueError as error:
        raise Unreadable(kv.key, str(error)) from error


def committed(resource: Resource[Any, Any], value: bytes, revision: int) -> Resource[Any, Any]:
    """The resource as it stands since `value`, which `encode` has made of it, was written at `revision`; the very one that
    whoever reads it gets."""
    return _at(type(resource), value, revision)


def committed_in(txn: Transaction, resource: R, revision: int) -> R:
    """The same of a resource that `txn` has put."""
    key = kind_of(resource).key_of(resource)
    value = next(part.value for part in txn.operations if isinstance(part, Put) and part.key == key)
    return cast("R", committed(resource, value, revision))


def _encoded(resource: Resource[Any, Any]) -> bytes:
    if resource.model_extra is not None:  # read with fields of a later release
        document = schema.with_unknown(resource)
        document["metadata"].pop("resourceVersion", None)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    if resource.metadata.resource_version is None:
        return resource.to_json()
    return resource.model_dump_json(by_alias=True, exclude_none=True, exclude=_WITHOUT_VERSION).encode()


class _Latest:
    """The latest values that this process has written or read, up to a number and a size. The same value at the same revision
    is the same resource: caches and bridges read each change in turn, and resources never change. Not those of lists, which
    would push out what somebody is about to read."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[type[Resource[Any, Any]], bytes], Resource[Any, Any]] = OrderedDict()
        self._bytes = 0

    def get(self, model: type[Resource[Any, Any]], value: bytes) -> Resource[Any, Any] | None:
        return self._known.get((model, value))

    def keep(self, value: bytes, resource: Resource[Any, Any]) -> None:
        key = type(resource), value
        if key not in self._known:
            self._bytes += len(value)
        self._known[key] = resource
        while len(self._known) > _REMEMBERED or self._bytes > _REMEMBERED_BYTES:
            (_, forgotten), _ = self._known.popitem(last=False)
            self._bytes -= len(forgotten)


_latest = _Latest()


def _at(model: type[Resource[Any, Any]], value: bytes, revision: int, *, keep: bool = True) -> Resource[Any, Any]:
    known = _latest.get(model, value)
    if known is not None and known.revision == revision:
        return known
    found = _decoded(model, value, revision) if known is None else known.at_revision(revision)
    if keep:
        _latest.keep(value, found)
    return found


def _decoded(model: type[Resource[Any, Any]], value: bytes, revision: int) -> Resource[Any, Any]:
    """The revision is written into the JSON before it is parsed, which is cheaper than to put it into what came of it."""
    resource = schema.read(model, with_revision(value, revision))
    return resource if resource.revision == revision else resource.at_revision(revision)


def with_revision(value: bytes, revision: int) -> bytes:
    """A stored value as it is shown: with the revision in its metadata. One that another hand has written, with its fields
    in another order, stays as it is."""
    at = value.find(_METADATA, 0, _BEGINNING)
    if at < 0:
        return value
    at += len(_METADATA)
    return b'%b"resourceVersion":"%d",%b' % (value[:at], revision, value[at:])


def create_in(txn: Transaction, resource: Resource[Any, Any]) -> None:
    """Writes a new resource; its key must be absent."""
    key = kind_of(resource).key_of(resource)
    txn.require_absent(key)
    txn.put(key, encode(resource))


def update_in(txn: Transaction, resource: Resource[Any, Any]) -> None:
    """Writes a new state over the one that was read at `resource.revision`."""
    key = kind_of(resource).key_of(resource)
    txn.require(key, mod_revision=_read_revision(resource))
    txn.put(key, encode(resource))


def delete_in(txn: Transaction, resource: Resource[Any, Any]) -> None:
    """Deletes the resource as it was read. Raises `InvalidRequest` while a finalizer stands; the owner that removes the
    last one passes `resource.without_finalizer(…)`."""
    if resource.metadata.finalizers:
        left = ", ".join(resource.metadata.finalizers)
        raise InvalidRequest(f"{resource.kind} {resource.id} still has the finalizers {left} and cannot be deleted yet")
    key = kind_of(resource).key_of(resource)
    txn.require(key, mod_revision=_read_revision(resource))
    txn.delete(key)


def unchanged_in(txn: Transaction, resource: Resource[Any, Any]) -> None:
    """Only compares: the decision holds while this resource is as it was read."""
    txn.require(kind_of(resource).key_of(resource), mod_revision=_read_revision(resource))


def absent_in(txn: Transaction, kind: Kind, resource_id: str, tenant: str = "default") -> None:
    """Only compares: the decision holds while no such resource exists."""
    txn.require_absent(kind.key(resource_id, tenant))


def _read_revision(resource: Resource[Any, Any]) -> int:
    if not resource.revision:
        raise InvalidRequest(f"{resource.kind} {resource.id} has not been read from the store: it has no revision")
    return resource.revision
