"""How the mesh stands, as etcd tells it: replicas alive, who owns which shard, what waits in inboxes, how far
the bridges are.

Read at one revision, and small: a key for each replica and shard, and the inbox pointers, which are deleted as they
are decided.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable

from lablet_common.resources.kinds import KINDS, Service, cursor_key, inbox_prefix, member_key, ownership_key
from lablet_common.resources.model import Model
from lablet_common.store import Get, KeyValue
from lablet_gateway.parts import Parts


class Inbox(Model):
    """Requests that have been accepted and wait to be decided."""

    shard: str
    waiting: int


class ServiceState(Model):
    service: str
    replicas: tuple[str, ...]
    inbox: tuple[Inbox, ...]
    """Of the shards in which something waits."""


class Owner(Model):
    """A replica that acts alone for a shard; every write of it carries the token."""

    service: str
    shard: str
    replica: str
    token: int


class BridgeState(Model):
    """How far a kind's changes have been published as events."""

    kind: str
    revision: int
    behind: int | None = None
    """Resources changed since and not yet published; None for kinds that this gateway does not cache."""


class MeshState(Model):
    revision: int
    services: tuple[ServiceState, ...]
    owners: tuple[Owner, ...]
    bridges: tuple[BridgeState, ...]


async def read(parts: Parts) -> MeshState:
    """Linearizable, all of it at one revision."""
    services = [str(service) for service in Service]
    members, owners, inbox = member_key("", "")[:-1], ownership_key("", "")[:-1], inbox_prefix("", "")[:-2]
    cursors = [Get(cursor_key(name)) for name in KINDS]
    result = await parts.store.txn([], [Get(members, True), Get(owners, True), Get(inbox, True), *cursors])
    alive, held, waiting, *stored = result.reads
    replicas: dict[str, list[str]] = defaultdict(list)
    for kv in alive:
        service, replica = _last_two(kv.key)
        replicas[service].append(replica)
    depth: dict[str, Counter[str]] = defaultdict(Counter)
    for kv in waiting:
        _, _, service, shard, _ = kv.key.split("/", 4)
        depth[service][shard] += 1
    return MeshState(
        revision=result.revision,
        services=tuple(
            ServiceState(
                service=service,
                replicas=tuple(sorted(replicas[service])),
                inbox=tuple(Inbox(shard=shard, waiting=count) for shard, count in sorted(depth[service].items())),
            )
            for service in services
        ),
        owners=tuple(sorted(_owners(held), key=lambda owner: (owner.service, owner.shard))),
        bridges=tuple(_bridge(parts, name, found) for name, found in zip(KINDS, stored, strict=True) if found),
    )


def _last_two(key: str) -> tuple[str, str]:
    _, _, first, second = key.split("/", 3)
    return first, second


def _owners(held: Iterable[KeyValue]) -> Iterable[Owner]:
    for kv in held:
        service, shard = _last_two(kv.key)
        yield Owner(service=service, shard=shard, replica=kv.value.decode(), token=kv.create_revision)


def _bridge(parts: Parts, kind: str, found: Iterable[KeyValue]) -> BridgeState:
    (kv,) = found
    revision = int(json.loads(kv.value)["revision"])
    behind = None
    if KINDS[kind] in parts.caches:
        items = parts.caches[KINDS[kind]].items()
        behind = sum(int(one.metadata.resource_version or 0) > revision for one in items)
    return BridgeState(kind=kind, revision=revision, behind=behind)
