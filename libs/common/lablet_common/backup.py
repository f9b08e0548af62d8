"""A backup: what etcd holds at one revision, which objects lie in the object store then, and how far the streams have come.

A logical snapshot, not etcd's file (ADR 0045). A folder with `store.jsonl.gz` (as `transfer` writes it), `objects.jsonl` (key
and size of each object, without its content), `streams.json` and, written last, `backup.json` with the digest of each of them
and, as of the revision, how far each kind's events had been told.

The store is read first, the others after it: whatever it refers to lies in the lists. An object has been put before; a
message that a bridge or a subscription names has been stored before, so its number is at most its stream's last (but for
what a killed NATS forgot, and for a stream that was made anew since). What came between is in the lists as well: objects that
nobody refers to, events of later revisions, which say so in their `sequence`. Keep the bucket itself by the object store's
own means; its objects are never changed, so that a copy made later will do. The key file of the secrets is no part of a
backup, on purpose.

Restoring checks the digests and that every listed object which is kept by its content or belongs to the archive is there,
and then imports into an empty store. It does not use the positions: the restored store's revisions begin anew, and so must
its streams. They are kept for those outside who go on from a number in the old stream or have a copy of it.
"""

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lablet_common.cursor import Cursor
from lablet_common.objects import ObjectStore
from lablet_common.resources.kinds import KINDS, cursor_key
from lablet_common.store.api import Store
from lablet_common.transfer import Entry, TransferError, export_lines, read_lines

FORMAT = "lablet-backup/1"
SUMMARY, STORE, OBJECTS, STREAMS = "backup.json", "store.jsonl.gz", "objects.jsonl", "streams.json"
_NEEDED = ("objects/", "archive/")
"""What is not there is missing; staged files come and go."""
_FAULTS_TOLD = 20


@dataclass(frozen=True, slots=True)
class Backup:
    """What a folder holds, checked."""

    revision: int
    at: datetime
    entries: Sequence[Entry]
    objects: Mapping[str, int]
    """Key → bytes."""
    streams: Mapping[str, Any]
    """Stream → numbers of its first and last message, read after the revision; empty where they were left out."""
    told: Mapping[str, Mapping[str, int]]
    """Kind → the `revision` up to which its changes had been told, by then, and the `message` of the stream of events that
    is the last of them (0: none). Kinds that no bridge has told of yet are left out."""


async def write_backup(
    folder: Path, store: Store, objects: ObjectStore, streams: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
) -> Mapping[str, Any]:
    """Writes the folder, which must be empty or not there, and returns its summary. `streams` reads the positions, once the
    store was read. Nothing is written before everything was read. Raises `FileExistsError`, `Compacted`, and what `streams`
    raises."""
    await asyncio.to_thread(_must_be_free, folder)
    lines = [line async for line in export_lines(store)]
    revision = int(json.loads(lines[0])["revision"])
    told = await _told(store, revision)
    contents = {
        STORE: gzip.compress(b"\n".join(lines), mtime=0),
        OBJECTS: b"\n".join([line async for line in _listed(objects)]),
        STREAMS: json.dumps(await streams() if streams is not None else {}, indent=1).encode(),
    }
    summary = {
        "format": FORMAT,
        "revision": revision,
        "at": datetime.now(UTC).isoformat(),
        "resources": len(lines) - 1,
        "told": told,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    await asyncio.to_thread(_write, folder, contents | {SUMMARY: json.dumps(summary, indent=1).encode()})
    return summary


def _must_be_free(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: a backup gets a folder of its own")


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """In this order; the summary is the last."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _must_be_free(folder)
    for name, data in contents.items():
        (folder / name).write_bytes(data)


async def _told(store: Store, revision: int) -> dict[str, dict[str, int]]:
    """What the bridges' cursors said at the revision."""
    found: dict[str, dict[str, int]] = {}
    for kind in KINDS.values():
        key = cursor_key(kind.name)
        page = await store.range(key, limit=1, revision=revision)
        for kv in page.items:
            if kv.key == key:
                last = Cursor.from_json(kv.value).marks[-1]
                found[kind.name] = {"revision": last.revision, "message": last.number}
    return found


async def _listed(objects: ObjectStore) -> AsyncIterator[bytes]:
    for info in await objects.list(""):
        yield json.dumps({"key": info.key, "bytes": info.bytes}).encode()


def read_backup(folder: Path) -> Backup:
    """Raises `TransferError` for what is no backup, not whole, or not as it was written."""
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
        if summary["format"] != FORMAT:
            raise TransferError([f"{folder / SUMMARY}: {summary['format']} is not {FORMAT}"])
        contents = {name: (folder / name).read_bytes() for name in (STORE, OBJECTS, STREAMS)}
        damaged = [
            f"{folder / name} is not as it was written: its digest differs"
            for name, data in contents.items()
            if hashlib.sha256(data).hexdigest() != summary["files"][name]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TransferError([f"{folder} is no whole backup: {error}"]) from error
    if damaged:
        raise TransferError(damaged)
    listed = [json.loads(line) for line in contents[OBJECTS].splitlines()]
    return Backup(
        revision=int(summary["revision"]),
        at=datetime.fromisoformat(summary["at"]),
        entries=read_lines(gzip.decompress(contents[STORE]).splitlines()),
        objects={str(one["key"]): int(one["bytes"]) for one in listed},
        streams=json.loads(contents[STREAMS]),
        told=summary.get("told", {}),
    )


async def check_objects(backup: Backup, objects: ObjectStore) -> None:
    """Raises `TransferError` naming what the object store has lost since."""
    present = {info.key: info.bytes for info in await objects.list("")}
    lost = [
        f"the object {key} ({size} bytes) is {'missing' if key not in present else 'of another size'}"
        for key, size in sorted(backup.objects.items())
        if key.startswith(_NEEDED) and present.get(key) != size
    ]
    if lost:
        more = [f"and {len(lost) - _FAULTS_TOLD} more"] if len(lost) > _FAULTS_TOLD else []
        raise TransferError(
            [*lost[:_FAULTS_TOLD], *more, "bring the bucket back first, or restore without its objects"]
        )
