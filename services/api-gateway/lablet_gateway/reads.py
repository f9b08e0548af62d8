"""Reading resources: straight from etcd, or from this replica's caches where the caller says so.

A list is read at one revision, which its cursor carries on. Its first page comes from the cache as soon as that has reached
the revision which the store names, so it is as linearizable as a read from the store and moves no resources; it goes on in
etcd at the cache's revision, so that paging is consistent either way. What the caller may not see is filtered before the
limit counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from lablet_common.resources.kinds import Kind
from lablet_common.resources.model import Resource
from lablet_common.store import Get, KeyValue
from lablet_common.store.changes import decode
from lablet_common.store.repository import Repository, ResourcePage, write_cursor
from lablet_common.store.selectors import FieldSelector, LabelSelector, SelectorError
from lablet_gateway import problems
from lablet_gateway.parts import Parts
from lablet_gateway.written import json_of, json_once

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")
Consistency = Literal["linearizable", "cache"]
MAX_LIMIT = 1000
_CATCH_UP_SECONDS = 0.02
"""How long a list waits for the cache before it is read from the store: less than the cache waits before it lists anew,
as it would in a store that others write to as well."""

WithConsistency = Annotated[
    Consistency,
    Query(description="`cache` answers from memory and may be a moment behind; the answer carries its revision"),
]


class ListOf(BaseModel, Generic[T]):
    """One page. `nextCursor` leads to the next one, at the same revision; null on the last."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    items: list[T]
    next_cursor: str | None = None
    resource_version: str


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What every list takes."""

    limit: int
    cursor: str | None
    labels: LabelSelector
    fields: str
    """The field selector as it was sent; which fields there are depends on the kind."""
    consistency: Consistency


async def _query(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page")] = 100,
    cursor: Annotated[str | None, Query(description="`nextCursor` of the page before")] = None,
    label_selector: Annotated[
        str, Query(alias="labelSelector", description="All must hold", examples=["course=ccna-1,group in (a,b)"])
    ] = "",
    field_selector: Annotated[
        str,
        Query(
            alias="fieldSelector",
            description="Paths of the resource and their values; all must hold",
            examples=["status.phase=Scheduled"],
        ),
    ] = "",
    consistency: WithConsistency = "linearizable",
) -> ListQuery:
    try:
        labels = LabelSelector.parse(label_selector)
    except SelectorError as error:
        raise problems.invalid("labelSelector", str(error)) from error
    return ListQuery(limit, cursor, labels, field_selector, consistency)


WithListQuery = Annotated[ListQuery, Depends(_query)]


Visible = Callable[[Any], bool]
Shown = Callable[[Any], Any]
"""What the caller sees of a resource that they may see."""


def _anything(_: Resource[Any, Any]) -> bool:
    return True


def whole(resource: Any) -> Any:
    """Everything of it."""
    return resource


@dataclass(frozen=True, slots=True)
class _Seen(LabelSelector):
    """A label selector that also asks whether the caller may see the resource."""

    visible: Callable[[Any], bool] = field(default=_anything)

    def matches(self, resource: Resource[Any, Any]) -> bool:
        return self.visible(resource) and self.matches_labels(resource.metadata.labels)


@dataclass(frozen=True, slots=True)
class _ShownFields(FieldSelector):
    """A field selector that looks only at what the caller sees: it cannot be used to find out about the rest."""

    shown: Shown = field(default=whole)

    def matches(self, resource: Resource[Any, Any]) -> bool:
        return self.holds(self.shown(resource))


async def get(
    parts: Parts, kind: Kind, resource_id: str, tenant: str = "default", consistency: Consistency = "linearizable"
) -> Resource[Any, Any] | None:
    """The resource, or None."""
    if consistency == "cache":
        return cast("Resource[Any, Any] | None", parts.caches[kind].get(resource_id, tenant))
    (found,) = await parts.lookups.ask((Get(kind.key(resource_id, tenant)),))
    if not found:
        return None
    known = known_to(parts, kind)
    resource: Resource[Any, Any] | None = known(found[0]) if known is not None else None
    return resource if resource is not None else decode(kind, found[0])


async def names(parts: Parts, kind: Kind) -> set[str]:
    """Of all resources of a kind that no tenant has to itself."""
    found = await parts.store.range(kind.prefix, keys_only=True)
    return {kv.key.removeprefix(kind.prefix) for kv in found.items}


def known_to(parts: Parts, kind: Kind) -> Callable[[KeyValue], Any] | None:
    """What is in memory at the very revision that was read need not be decoded again."""
    return parts.caches[kind].known if kind in parts.caches else None


async def page(
    parts: Parts,
    kind: Kind,
    query: ListQuery,
    visible: Callable[[R], bool],
    *,
    tenant: str | None = None,
    shown: Shown = whole,
) -> ResourcePage[R]:
    """One page of what the caller may see, as they see it. `tenant` narrows what is read. Raises `Compacted`,
    `InvalidCursor`."""
    try:
        fields = _ShownFields(FieldSelector.parse(query.fields, kind.model).comparisons, shown)
    except SelectorError as error:
        raise problems.invalid("fieldSelector", str(error)) from error
    labels = _Seen(query.labels.requirements, visible)
    in_memory = query.cursor is None and (query.consistency == "cache" or await caught_up(parts, kind))
    if in_memory:
        found: ResourcePage[R] = _cached_page(parts, kind, query.limit, labels, fields, tenant)
    else:
        repository: Repository[R] = Repository(parts.store, kind, known_to(parts, kind))
        found = await repository.list(tenant, labels, fields, query.limit, query.cursor)
    return found if shown is whole else replace(found, items=tuple(shown(one) for one in found.items))


def _cached_page(
    parts: Parts, kind: Kind, limit: int, labels: LabelSelector, fields: FieldSelector, tenant: str | None
) -> ResourcePage[R]:
    cache = parts.caches[kind]
    wanted = (
        resource
        for resource in cache.in_order()
        if (tenant is None or resource.tenant == tenant) and labels.matches(resource) and fields.matches(resource)
    )
    chosen = tuple(islice(wanted, limit))
    more = next(wanted, None) is not None
    cursor = write_cursor(cache.revision, kind.key_of(chosen[-1])) if more else None
    return ResourcePage(chosen, cache.revision, cursor)


async def caught_up(parts: Parts, kind: Kind) -> bool:
    """Whether the cache holds everything that stood in the store when this was asked: then an answer from it is as good
    as one from the store. False for what is not cached, and where the cache does not come up at once. Raises
    `StoreUnavailable`."""
    if kind not in parts.caches:
        return False
    revision = await parts.heads.ask(None)
    try:
        await parts.caches.reached(revision, _CATCH_UP_SECONDS)
    except TimeoutError:
        return False
    return True


async def everything(parts: Parts, kind: Kind, visible: Callable[[R], bool], *, tenant: str | None = None) -> list[R]:
    """All that the caller may see, read linearizably: for computations over a kind."""
    if await caught_up(parts, kind):
        known = parts.caches[kind].in_order()
        return [one for one in known if (tenant is None or one.tenant == tenant) and visible(one)]
    repository: Repository[R] = Repository(parts.store, kind, known_to(parts, kind))
    found = await repository.list(tenant, _Seen(visible=visible))
    return list(found.items)


def list_response(found: ResourcePage[Any], *, archived: bool = False) -> Response:
    """The page as JSON. What is `archived` is read anew each time, and nothing of it is kept."""
    items = b",".join(map(json_once if archived else json_of, found.items))
    cursor = b"null" if found.next_cursor is None else f'"{found.next_cursor}"'.encode()
    body = b'{"items":[%b],"nextCursor":%b,"resourceVersion":"%d"}' % (items, cursor, found.revision)
    return Response(body, media_type="application/json")
