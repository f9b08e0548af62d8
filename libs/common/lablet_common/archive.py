"""The archive's form: where resources lie that have left etcd, how a file of them reads, and how their removal is asked for.

A file holds resources of one kind, tenant and day (of their last move) as compressed JSON lines. An entry of the index
stands for each of them and names its file; its key carries the hour and the revision, so that nothing is ever written over
and the newest is the last, also where a restored store counts its revisions anew. The same resources make the same file under
the same key: a crash in between writes it twice.

The artifact-service writes; the owner of the kind deletes what an `Ask` names (see `removal`). Not guaranteed: that what
stands in the archive has left etcd already. Readers look there first.
"""

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from lablet_common.objects import ObjectMismatch, ObjectMissing, ObjectStore, digest_of
from lablet_common.resources import schema
from lablet_common.resources.kinds import Kind
from lablet_common.resources.model import Model, Resource

_T = TypeVar("_T")
FINALIZER = "archive"
MEDIA_TYPE = "application/x-ndjson+gzip"
_HOUR_DIGITS, _REVISION_DIGITS = 8, 12


class Named(Model):
    """One resource as it was archived."""

    id: str
    revision: int


class Ask(Model):
    """What its owner is asked to delete, each only as it was archived."""

    file: str
    items: tuple[Named, ...]


class IndexEntry(Model):
    """Where one resource lies."""

    file: str
    digest: str
    revision: int


def asks_prefix(kind: str) -> str:
    """etcd keys of what the owner of a kind is asked to delete."""
    return f"/archived/{kind}/"


def last_moved(resource: Resource[Any, Any]) -> datetime:
    """When it came into its present phase."""
    history = resource.status.history
    return history[-1].at if history else resource.metadata.created_at


def file_key(kind: Kind, resources: Sequence[Resource[Any, Any]]) -> str:
    """The place of a file of these resources, which are of one tenant and day."""
    names = json.dumps([[one.id, one.revision] for one in resources])
    first = resources[0]
    return f"{day_prefix(first.tenant, last_moved(first).date(), kind)}{uuid5(NAMESPACE_URL, names)}.jsonl.gz"


def day_prefix(tenant: str, day: date, kind: Kind) -> str:
    return f"archive/{tenant}/{day.isoformat()}/{kind.name}-"


def index_prefix(kind: Kind, resource_id: str, tenant: str) -> str:
    return f"archive/{tenant}/index/{kind.name}/{resource_id}/"


def index_key(kind: Kind, resource: Resource[Any, Any], at: datetime) -> str:
    """Of a resource that is archived at that lab time. Keys of earlier releases, twenty digits of the revision alone, come
    before."""
    hour = int(at.timestamp()) // 3600
    prefix = index_prefix(kind, resource.id, resource.tenant)
    return f"{prefix}{hour:0{_HOUR_DIGITS}}{resource.revision:0{_REVISION_DIGITS}}"


def pack(resources: Sequence[Resource[Any, Any]]) -> bytes:
    """JSON lines with their revisions, compressed; the same resources give the same bytes."""
    return gzip.compress(b"\n".join(schema.to_json(one) for one in resources), mtime=0)


def unpack(kind: Kind, data: bytes) -> list[Resource[Any, Any]]:
    """The resources of a file. Raises `ValueError` (also for lines that are not of the kind) and `OSError`, `EOFError`
    for damaged compression."""
    return list(_resources(kind, data))


def _resources(kind: Kind, data: bytes) -> Iterator[Resource[Any, Any]]:
    return (schema.read(kind.model, line) for line in gzip.decompress(data).splitlines())


async def find(objects: ObjectStore, kind: Kind, resource_id: str, tenant: str) -> Resource[Any, Any] | None:
    """The resource as it was archived last. Raises `ObjectMismatch` when its file is not what the index says."""
    entries = await objects.list(index_prefix(kind, resource_id, tenant))
    if not entries:
        return None
    entry = IndexEntry.model_validate_json(await objects.get(entries[-1].key))
    data = await objects.get(entry.file)
    if digest_of(data) != entry.digest:
        raise ObjectMismatch(f"{entry.file} has other content than the archive's index says")
    lines = (line for line in gzip.decompress(data).splitlines() if resource_id.encode() in line)
    found = (schema.read(kind.model, line) for line in lines)  # a file holds hundreds
    return next((r for r in found if r.id == resource_id and r.revision == entry.revision), None)


def _readable(kind: Kind, key: str, data: bytes) -> Iterator[Resource[Any, Any]]:
    """As `_resources`; a file that was damaged says so by its name."""
    try:
        yield from _resources(kind, data)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ObjectMismatch(f"{key} cannot be read as a file of the archive: {error}") from error


async def days(
    objects: ObjectStore, kind: Kind, tenant: str, first: date, last: date, of: Callable[[Any], _T]
) -> AsyncIterator[tuple[date, list[_T]]]:
    """Day by day (of the last move, both included) what was archived, by id, each once in its newest state; of each what
    `of` takes from it, so that one alone need be in memory as a whole. Raises `ObjectMismatch` naming a file that cannot be
    read."""
    day = first
    while day <= last:
        newest: dict[str, tuple[int, _T]] = {}
        for info in await objects.list(day_prefix(tenant, day, kind)):
            try:
                data = await objects.get(info.key)
            except ObjectMissing:
                continue  # between the two calls
            for resource in _readable(kind, info.key, data):
                known = newest.get(resource.id)
                if known is None or known[0] < resource.revision:
                    newest[resource.id] = resource.revision, of(resource)
        yield day, [newest[name][1] for name in sorted(newest)]
        day += timedelta(days=1)
