"""Which ended instances may have left something in staging that nobody has taken over: asked once, not at each take-over.

An instance that has ended stages nothing more. So what has been looked through once stays so for the life of the process,
whoever owned the service in between, and of those that had ended before, one list of what lies in staging tells which to
look through at all. Not guaranteed: that another process does not look once more.
"""

from collections.abc import Collection, Iterable

from lablet_common.objects import ObjectStore
from lablet_common.resources.artifact import STAGING, staging_key
from lablet_common.resources.instance import Instance


class Leftovers:
    """One for each process."""

    def __init__(self) -> None:
        self._clear: set[str] = set()

    def may_be_left(self, instance: Instance) -> bool:
        """Nobody here has looked through what the instance, which has ended, may have staged."""
        return instance.id not in self._clear

    def looked_through(self, instance: Instance) -> None:
        """There is nothing left of it."""
        self._clear.add(instance.id)

    def keep_only(self, known: Collection[str]) -> None:
        """Forgets instances that are there no more."""
        self._clear.intersection_update(known)

    async def look(self, objects: ObjectStore, ended: Iterable[Instance]) -> None:
        """Finds out about those that had ended before; one call for each thousand objects, none where all are known. Raises
        `ObjectStoreError`."""
        unknown = [one for one in ended if self.may_be_left(one)]
        if not unknown:
            return
        staged = {_folder(info.key) for info in await objects.list(f"{STAGING}/")}
        self._clear.update(one.id for one in unknown if staging_key(one.tenant, one.id) not in staged)


def _folder(key: str) -> str:
    """`staging/<tenant>/<instance>`, of whatever lies below it."""
    return "/".join(key.split("/")[:3])
