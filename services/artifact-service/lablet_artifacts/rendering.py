"""Rendering the lab file of one seat: its ports and values put in, off the event loop.

What is rendered depends only on the definition's file, the seat's ports and values, so doing it again after a crash gives
the same object under the same key.
"""

import asyncio
from collections import OrderedDict

from lablet_artifacts import manifests
from lablet_artifacts.topology.rendering import Template, fill, prepare
from lablet_common.objects import ObjectStore, get_content
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance

SEAT_VALUES = ("SEAT", "NAME", "HOST")
"""Tokens that every seat has a value for: its number, who sits there, and its worker."""


class Renderer:
    """Renders with the last few lab files kept at hand."""

    def __init__(self, objects: ObjectStore, *, concurrency: int = 4, cached: int = 64) -> None:
        self._objects = objects
        self._gate = asyncio.Semaphore(concurrency)
        self._cached = cached
        self._files: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._templates: dict[tuple[str, str], Template] = {}

    async def render(self, definition: Definition, instance: Instance) -> bytes:
        """The seat's own lab file. Raises `topology.LabFileError` where tokens and ports do not fit together."""
        source = await self._source(definition)
        values = {
            "SEAT": str(instance.spec.seat),
            "NAME": instance.metadata.owner or "",
            "HOST": instance.spec.worker,
        }
        if definition.spec.topology.format == manifests.FORMAT:
            return manifests.render(
                source,
                instance.spec.ports,
                seat=instance.spec.seat,
                user=instance.metadata.owner or "",
                worker=instance.spec.worker,
            )
        async with self._gate:
            key = definition.tenant, definition.spec.topology.digest
            return await asyncio.to_thread(self._fill, key, source, dict(instance.spec.ports), values)

    def _fill(self, key: tuple[str, str], source: bytes, ports: dict[str, int], values: dict[str, str]) -> bytes:
        """In a thread. Two that begin together read the file twice, and that is all."""
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = prepare(source)
        return fill(template, ports, values)

    async def _source(self, definition: Definition) -> bytes:
        key = (definition.tenant, definition.spec.topology.digest)
        data = self._files.get(key)
        if data is None:
            data = await get_content(self._objects, *key)
            self._files[key] = data
            while len(self._files) > self._cached:
                forgotten, _ = self._files.popitem(last=False)
                self._templates.pop(forgotten, None)
        self._files.move_to_end(key)
        return data
