"""Files that a lab leaves, on their way to the artifact-service: put into staging, with a manifest that names them.

The manifest's key is derived from instance, attempt and role, a file's also from its content. So doing it again after a crash
writes the same objects, or beside them; and a former owner of the pool that is late with one of its puts changes no file that
the manifest of its successor lists. What no manifest lists goes with its instance.
"""

import json
import re
from collections.abc import Mapping
from typing import Literal

from lablet_common.objects import ObjectStore, digest_of
from lablet_common.resources.artifact import manifest_key, staging_key
from lablet_common.resources.instance import Instance, Staged

_DIGITS = 16
"""Of a file's digest that stand in its key."""


async def stage(
    objects: ObjectStore, instance: Instance, role: Literal["collected", "exported"], files: Mapping[str, bytes]
) -> Staged:
    """Puts the files and their manifest: a JSON list of `{name, key, digest, bytes, mediaType}`."""
    attempt = instance.status.attempt
    folder = (instance.tenant, instance.id, attempt, role)
    entries = []
    for name, data in sorted(files.items()):
        digest, kind = digest_of(data), _media_type(name)
        key = staging_key(instance.tenant, instance.id, str(attempt), role, digest[:_DIGITS], safe_name(name))
        await objects.put(key, data, kind)
        entries.append({"name": name, "key": key, "digest": digest, "bytes": len(data), "mediaType": kind})
    manifest = manifest_key(*folder)
    await objects.put(manifest, json.dumps(entries).encode(), "application/json")
    return Staged(manifest=manifest, attempt=attempt, role=role)


async def staged_files(objects: ObjectStore, staged: Staged) -> set[tuple[str, str]]:
    """Name and digest of each file that a manifest lists. Raises `ObjectMissing` when it has been taken away already."""
    return {(str(entry["name"]), str(entry["digest"])) for entry in json.loads(await objects.get(staged.manifest))}


def safe_name(name: str) -> str:
    """A file name that is the same everywhere: what is not a letter, digit, dot or dash becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)


def _media_type(name: str) -> str:
    by_ending = {"yaml": "application/yaml", "json": "application/json"}
    return by_ending.get(name.rpartition(".")[2], "text/plain")
