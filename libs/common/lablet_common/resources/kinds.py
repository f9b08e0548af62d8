"""The kinds, who owns each, and where it lies in etcd: one table that everything else reads.

Keys are relative to `ETCD_PREFIX`. Values are the resources' JSON without their revision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lablet_common.resources.artifact import Artifact
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.key import ApiKey
from lablet_common.resources.model import Resource
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.series import Series
from lablet_common.resources.subscription import Subscription
from lablet_common.resources.worker import Worker, WorkerPool, WorkerTemplate


class Service(StrEnum):
    """The four services; their names stand in subjects, keys and `source`."""

    GATEWAY = "api-gateway"
    SCHEDULER = "scheduler"
    WORKERS = "worker-controller"
    ARTIFACTS = "artifact-service"


BRIDGE_SHARD = "bridge-"
"""Shards of bridges begin so, with the name of the kind behind it; pools do not."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource. `name` is its word in events, subjects and paths."""

    name: str
    model: type[Resource[Any, Any]]
    owner: Service
    prefix: str
    """Keys of the kind begin with it."""
    tenanted: bool = False
    """The tenant stands in the key."""

    def key(self, resource_id: str, tenant: str = "default") -> str:
        """The etcd key. `name@version` becomes two segments."""
        tail = resource_id.replace("@", "/")
        return f"{self.prefix}{tenant}/{tail}" if self.tenanted else f"{self.prefix}{tail}"

    def key_of(self, resource: Resource[Any, Any]) -> str:
        return self.key(resource.metadata.id, resource.metadata.tenant)


REQUEST = Kind("request", Request, Service.GATEWAY, "/requests/", tenanted=True)
KEY = Kind("key", ApiKey, Service.GATEWAY, "/keys/", tenanted=True)
DEFINITION = Kind("definition", Definition, Service.ARTIFACTS, "/definitions/", tenanted=True)
ARTIFACT = Kind("artifact", Artifact, Service.ARTIFACTS, "/artifacts/", tenanted=True)
SERIES = Kind("series", Series, Service.SCHEDULER, "/series/")
RESERVATION = Kind("reservation", Reservation, Service.SCHEDULER, "/reservations/")
INSTANCE = Kind("instance", Instance, Service.WORKERS, "/instances/")
WORKER = Kind("worker", Worker, Service.WORKERS, "/workers/")
POOL = Kind("pool", WorkerPool, Service.WORKERS, "/pools/")
TEMPLATE = Kind("template", WorkerTemplate, Service.WORKERS, "/templates/")

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (REQUEST, KEY, DEFINITION, ARTIFACT, SERIES, RESERVATION, INSTANCE, WORKER, POOL, TEMPLATE)
}


SUBSCRIPTION = Kind("subscription", Subscription, Service.GATEWAY, "/subscriptions/")
"""Not in the table: no bridge tells of it, or delivering an event would make another one."""
_OF_MODEL: Mapping[type, Kind] = {kind.model: kind for kind in (*KINDS.values(), SUBSCRIPTION)}


def kind_of(resource: Resource[Any, Any]) -> Kind:
    """The row for a resource."""
    return _OF_MODEL[type(resource)]


def owned_by(service: Service) -> tuple[Kind, ...]:
    """The kinds that a service alone writes."""
    return tuple(kind for kind in KINDS.values() if kind.owner is service)


CLOCK_KEY = "/clock"


IMPORTING_KEY = "/importing"
"""Stands while an import is under way, or has broken off: what is there is half of something, and nobody acts on it."""


GATES = "/gates/"


def gate_key(pool: str) -> str:
    """Put by the worker-controller when a worker's eligibility or capacity changes; compared by every placement."""
    return f"{GATES}{pool}"


def inbox_prefix(service: str, shard: str) -> str:
    return f"/inbox/{service}/{shard}/"


def inbox_key(service: str, shard: str, request_id: str) -> str:
    return f"{inbox_prefix(service, shard)}{request_id}"


def ownership_key(service: str, shard: str) -> str:
    return f"/ownership/{service}/{shard}"


def member_key(service: str, replica: str) -> str:
    return f"/members/{service}/{replica}"


def cursor_key(kind: str) -> str:
    return f"/bridge/{kind}/cursor"


def worker_lease_key(worker: str) -> str:
    """Leased: there while the worker was heard of lately, by its agent's heartbeats or by answered probes."""
    return f"/worker-leases/{worker}"


def worker_load_key(worker: str) -> str:
    """Leased: what its machine uses (`lablet_common.loads`)."""
    return f"/worker-loads/{worker}"


def ledger_key(tenant: str) -> str:
    return f"/ledgers/{tenant}"


def quota_key(tenant: str) -> str:
    return f"/quotas/{tenant}"


def key_use_key(tenant: str, key_id: str) -> str:
    """When an API key was last used."""
    return f"/key-uses/{tenant}/{key_id}"
