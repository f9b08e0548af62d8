"""What all kinds have in common over the API: get one, list a page, walk all.

Answers are read leniently: a field that a newer server adds is passed over, so that an older client goes on working.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic, TypeVar

from lablet_client.paging import Page, walk
from lablet_client.transport import Transport
from lablet_common.resources.model import Resource

R = TypeVar("R", bound=Resource[Any, Any])


class Collection(Generic[R]):
    """One kind's resources. Subclasses name `path` and `model` and add what else can be done."""

    path: str
    model: type[R]

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def one(self, resource_id: str) -> str:
        """The path of one resource."""
        return f"{self.path}/{resource_id}"

    def parse(self, document: Any) -> R:
        """The resource in a JSON document."""
        return self.model.model_validate(document, extra="ignore")

    async def get(self, resource_id: str) -> R:
        """The resource as it stands now (a linearizable read). Raises `NotFound`."""
        return self.parse(await self.document(resource_id))

    async def document(self, resource_id: str) -> Mapping[str, Any]:
        """The resource as the server wrote it."""
        answer = await self._transport.call("GET", self.one(resource_id))
        found: Mapping[str, Any] = answer.json()
        return found

    async def page(
        self,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[R]:
        """One page. `labels` and `fields` are selectors (`course=ccna-1`, `status.phase=Scheduled`)."""
        documents = await self.documents(labels=labels, fields=fields, limit=limit, cursor=cursor)
        return Page(tuple(self.parse(item) for item in documents.items), documents.revision, documents.next_cursor)

    async def documents(
        self,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[Mapping[str, Any]]:
        """One page as the server wrote it."""
        params = {"labelSelector": labels, "fieldSelector": fields, "limit": limit, "cursor": cursor}
        body = (await self._transport.call("GET", self.path, params=params)).json()
        return Page(tuple(body["items"]), int(body.get("resourceVersion") or 0), body.get("nextCursor"))

    def list(
        self, *, labels: str | None = None, fields: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[R]:
        """All of them, fetched as they are asked for and all of one revision. Raises `Gone` when that revision is
        compacted away meanwhile."""

        async def fetch(cursor: str | None) -> Page[R]:
            return await self.page(labels=labels, fields=fields, limit=page_size, cursor=cursor)

        return walk(fetch)
