"""Rendering the lab file of one seat: its ports and values put in, off the event loop.

What is rendered depends only on the definition's file, the seat's ports and values, so doing it again after a crash gives
the same object under the same key.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from lablet_artifacts import manifests
from lablet_artifacts.topology.rendering import Template, fill, prepare
from lablet_common.objects import ObjectStore, get_content
from lablet_common.process_lab import ProcessLab
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance

SEAT_VALUES = ("SEAT", "NAME", "HOST")
"""Tokens that every seat has a value for: its number, who sits there, and its worker."""


MOST_BYTES = 32 * 1024 * 1024
"""Of lab files that are kept at hand; read, each takes about as much again."""


@dataclass(slots=True)
class _File:
    data: bytes
    read: Template | ProcessLab | None = None
    """It as a CML lab or a manifest, once a seat of it was rendered: reading is most of the work."""


class Renderer:
    """Renders with the last few lab files kept at hand: at most `cached`, and of several at most `most_bytes`."""

    def __init__(
        self, objects: ObjectStore, *, concurrency: int = 4, cached: int = 64, most_bytes: int = MOST_BYTES
    ) -> None:
        self._objects = objects
        self._gate = asyncio.Semaphore(concurrency)
        self._cached = cached
        self._most_bytes = most_bytes
        self._bytes = 0
        self._files: OrderedDict[tuple[str, str], _File] = OrderedDict()

    async def render(self, definition: Definition, instance: Instance) -> bytes:
        """The seat's own lab file. Raises `topology.LabFileError` where tokens and ports do not fit together."""
        file = await self._file(definition)
        is_manifest = definition.spec.topology.format == manifests.FORMAT
        async with self._gate:
            return await asyncio.to_thread(_filled, file, instance, is_manifest=is_manifest)

    async def _file(self, definition: Definition) -> _File:
        key = (definition.tenant, definition.spec.topology.digest)
        file = self._files.get(key)
        if file is None:
            data = await get_content(self._objects, *key)
            file = self._files.get(key)  # of two that have asked together the first has it by now
        if file is None:
            file = self._files[key] = _File(data)
            self._bytes += len(data)
            while len(self._files) > self._cached or (self._bytes > self._most_bytes and len(self._files) > 1):
                _, forgotten = self._files.popitem(last=False)
                self._bytes -= len(forgotten.data)
        self._files.move_to_end(key)
        return file


def _filled(file: _File, instance: Instance, *, is_manifest: bool) -> bytes:
    """In a thread. Two that begin together read the file twice, and that is all."""
    if file.read is None:
        file.read = manifests.read_manifest(file.data) if is_manifest else prepare(file.data)
    seat, user, worker = instance.spec.seat, instance.metadata.owner or "", instance.spec.worker
    ports = dict(instance.spec.ports)
    if isinstance(file.read, ProcessLab):
        return manifests.fill(file.read, ports, seat=seat, user=user, worker=worker)
    return fill(file.read, ports, {"SEAT": str(seat), "NAME": user, "HOST": worker})
