"""Lab files that a definition needs without referring to them.

The first meshes published definitions that refer to nothing: their file has no artifact, or only that of labs which have
left the same content, and whoever deleted their work deleted the file. So each look of the sweeper makes such a definition
refer to its file, as publishing does since. Content that is on its way out already takes no reference: its artifact goes,
the object stays, and the definition refers to it anew.

Not guaranteed: a file that is not there any more does not come back; nothing refers to it.
"""

from collections.abc import Container, Iterable

from lablet_artifacts.references import BeingDeleted, References, topology_of
from lablet_common.clock import Clock
from lablet_common.resources.artifact import Artifact, object_key
from lablet_common.resources.definition import Definition


class LabFiles:
    """As one sweeper knows them."""

    def __init__(self, references: References, clock: Clock) -> None:
        self._references = references
        self._clock = clock
        self.are_known = False
        """Before that nothing may be deleted."""
        self._bare: dict[str, list[Definition]] = {}
        """Definitions whose artifact does not carry their reference, by the key of the object."""

    def note(self, definitions: Iterable[Definition], artifacts: Iterable[Artifact]) -> None:
        """What is alive, and what is stored."""
        carried = {
            (artifact.tenant, artifact.id, reference.subject)
            for artifact in artifacts
            for reference in artifact.status.references
        }
        self._bare.clear()
        self.are_known = True
        for definition in definitions:
            spec, reference = topology_of(definition)
            if (definition.tenant, spec.digest, reference.subject) not in carried:
                self._bare.setdefault(object_key(definition.tenant, spec.digest), []).append(definition)

    def need(self, key: str) -> bool:
        """A definition may need this object without referring to it."""
        return key in self._bare

    async def refer(self, stored: Container[str]) -> None:
        """Makes them refer to what is stored. Raises `NotOwner`."""
        for key, definitions in list(self._bare.items()):
            if key in stored and await self._refer(definitions):
                del self._bare[key]

    async def _refer(self, definitions: Iterable[Definition]) -> bool:
        for definition in definitions:
            spec, reference = topology_of(definition)
            try:
                await self._references.add(definition.tenant, spec, reference, self._clock.now())
            except BeingDeleted:
                return False
        return True
