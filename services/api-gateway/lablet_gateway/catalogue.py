"""Definitions by name: the caller's own before public ones, the newest that is not deprecated where no version is named.

A definition that is not there is refused with the names that come nearest.
"""

from collections.abc import Iterable
from typing import cast

from lablet_common.resources.definition import Definition, DefinitionPhase
from lablet_common.resources.kinds import DEFINITION
from lablet_common.store import Get, KeyValue
from lablet_common.store.changes import decode
from lablet_gateway.parts import Parts
from lablet_gateway.rights import PUBLIC_TENANT


def version_key(version: str) -> tuple[int, ...]:
    """Versions in their order: 1.10.0 after 1.9.0."""
    return tuple(int(part) for part in version.split("."))


def reads_of(tenant: str, wanted: str) -> list[Get]:
    """What has to be read to find `name` or `name@version`: the tenant's own, then the public ones."""
    name, _, version = wanted.partition("@")
    tenants = dict.fromkeys((tenant, PUBLIC_TENANT))
    if version:
        return [Get(DEFINITION.key(f"{name}@{version}", owner)) for owner in tenants]
    return [Get(f"{DEFINITION.prefix}{owner}/{name}/", prefix=True) for owner in tenants]


def choose(parts: Parts, wanted: str, found: Iterable[Iterable[KeyValue]]) -> Definition | None:
    """The definition meant by `wanted` among what was read: a named version unless it is archived, else the newest
    published one."""
    named = "@" in wanted
    cache = parts.caches[DEFINITION]
    for group in found:
        candidates = [cast("Definition", cache.known(kv) or decode(DEFINITION, kv)) for kv in group]
        usable = [
            candidate
            for candidate in candidates
            if candidate.status.phase is DefinitionPhase.PUBLISHED
            or (named and candidate.status.phase is DefinitionPhase.DEPRECATED)
        ]
        if usable:
            return max(usable, key=lambda definition: version_key(definition.spec.version))
    return None


def known(parts: Parts, tenant: str, wanted: str) -> Definition | None:
    """A published version of the tenant's own that is named exactly, from memory; None where only the store can tell."""
    if "@" not in wanted:
        return None
    definition = cast("Definition | None", parts.caches[DEFINITION].get(wanted, tenant))
    published = definition is not None and definition.status.phase is DefinitionPhase.PUBLISHED
    return definition if published else None


async def find(parts: Parts, tenant: str, wanted: str) -> Definition | None:
    """As `choose`, read linearizably."""
    return choose(parts, wanted, await parts.lookups.ask(tuple(reads_of(tenant, wanted))))


async def names(parts: Parts, tenant: str) -> set[str]:
    """Names and `name@version`s that the tenant may use, for suggestions."""
    known = set()
    for owner in dict.fromkeys((tenant, PUBLIC_TENANT)):
        prefix = f"{DEFINITION.prefix}{owner}/"
        found = await parts.store.range(prefix, keys_only=True, limit=5000)
        for kv in found.items:
            name, _, version = kv.key.removeprefix(prefix).partition("/")
            known |= {name, f"{name}@{version}"}
    return known
