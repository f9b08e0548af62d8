"""The client: one object, one connection, one room for each kind.

    async with Client() as lablet:
        booking = await lablet.reservations.create(ReservationCreate(definition="ospf-basics", asap=True, …))
        await lablet.wait_for(booking, ReservationPhase.ACTIVE)

Safe for use by many tasks of one event loop; not by several threads (see `lablet_client.sync`).
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

import httpx

from lablet_client.artifacts import Artifacts, DeadLetters
from lablet_client.audit import Audit
from lablet_client.collection import Collection
from lablet_client.connection import Connection, find_connection
from lablet_client.definitions import Definitions
from lablet_client.errors import NotFound
from lablet_client.events import Event, Events, Filter
from lablet_client.fleet import Pools, Templates, Workers
from lablet_client.instances import Instances
from lablet_client.keys import Keys
from lablet_client.quotas import Quotas
from lablet_client.requests import Requests
from lablet_client.reservations import Reservations
from lablet_client.retry import Retry
from lablet_client.series import SeriesRoom
from lablet_client.subscriptions import Subscriptions
from lablet_client.transport import Transport
from lablet_client.waiting import wait_for
from lablet_common.resources.model import Resource, format_time

R = TypeVar("R", bound=Resource[Any, Any])


@dataclass(frozen=True, slots=True)
class LabTime:
    """What time it is in the lab, and how fast it passes (lab seconds per real second)."""

    now: datetime
    speed: float = 1.0

    def real(self, span: timedelta) -> timedelta:
        """How long a span of lab time takes."""
        return span / self.speed


class Client:
    """Lablet's API. Without arguments the connection is found as `find_connection` says (raises `NotConfigured`)."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        connection: Connection | None = None,
        retry: Retry | None = None,
        timeout: float = 30.0,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.connection = connection or find_connection(url, token)
        self.transport = Transport(self.connection, retry=retry, timeout=timeout, http=http)
        self.reservations = Reservations(self.transport)
        self.series = SeriesRoom(self.transport)
        self.definitions = Definitions(self.transport)
        self.instances = Instances(self.transport)
        self.workers = Workers(self.transport)
        self.pools = Pools(self.transport)
        self.templates = Templates(self.transport)
        self.quotas = Quotas(self.transport)
        self.requests = Requests(self.transport)
        self.artifacts = Artifacts(self.transport)
        self.dead_letters = DeadLetters(self.transport)
        self.keys = Keys(self.transport)
        self.subscriptions = Subscriptions(self.transport)
        self.audit = Audit(self.transport)
        self.events = Events(self.transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.transport.close()

    @property
    def collections(self) -> Mapping[str, Collection[Any]]:
        """The rooms of the kinds that can be listed, by the kind's word."""
        return {
            "reservation": self.reservations,
            "series": self.series,
            "instance": self.instances,
            "definition": self.definitions,
            "worker": self.workers,
            "pool": self.pools,
            "template": self.templates,
            "key": self.keys,
            "subscription": self.subscriptions,
        }

    def watch(
        self,
        *,
        kind: str | None = None,
        id: str | None = None,  # noqa: A002 - the word that the API uses
        correlation: str | None = None,
        label: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Event]:
        """Events as they happen, for ever, over lost connections. See `Events.watch`."""
        return self.events.watch(Filter(kind, id, correlation, label), after=after)

    async def wait_for(
        self,
        resource: R,
        *phases: str,
        timeout: float = 300.0,
        on_change: Callable[[R], None] | None = None,
    ) -> R:
        """The resource once it has reached one of `phases`. `timeout` is in real seconds. Raises `OutOfReach` as soon as
        none of them can come any more, `TimedOut`."""
        room = next((room for room in self.collections.values() if room.model is type(resource)), None)
        if room is None:
            raise TypeError(f"{resource.kind} cannot be waited for")
        return await wait_for(room, resource.id, phases, events=self.events, timeout=timeout, on_change=on_change)

    async def lab_time(self) -> LabTime:
        """The mesh's own clock; the machine's where the server does not tell."""
        try:
            body = (await self.transport.call("GET", "/clock")).json()
        except NotFound:
            return LabTime(datetime.now(UTC))
        return LabTime(datetime.fromisoformat(body["now"]), float(body.get("speed", 1.0)))

    async def version(self) -> Mapping[str, Any]:
        """Which version the server is."""
        found: Mapping[str, Any] = (await self.transport.call("GET", "/version")).json()
        return found

    async def usage(self, start: datetime | None = None, end: datetime | None = None) -> Mapping[str, Any]:
        """Seats, hours and cost between two instants of lab time (the last 30 days), by definition."""
        found: Mapping[str, Any] = (await self.transport.call("GET", "/usage", params=_span(start, end))).json()
        return found

    async def usage_csv(self, start: datetime | None = None, end: datetime | None = None) -> str:
        """The same, comma-separated."""
        params = {**_span(start, end), "format": "csv"}
        answer = await self.transport.call("GET", "/usage", params=params, headers={"Accept": "text/csv"})
        return answer.content.decode()

    async def whoami(self) -> Mapping[str, Any]:
        """Whom the server takes us for: name, role, tenant."""
        found: Mapping[str, Any] = (await self.transport.call("GET", "/whoami")).json()
        return found


def _span(start: datetime | None, end: datetime | None) -> dict[str, str | None]:
    return {"from": format_time(start) if start else None, "to": format_time(end) if end else None}
