"""The same client for programs without an event loop: every call blocks until it is done.

An event loop runs in a thread of its own; each method hands its coroutine over and waits. Signatures are those of the
asynchronous client, and stay so by construction. May be used by several threads at once.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx

from lablet_client import (
    artifacts,
    audit,
    client,
    collection,
    definitions,
    events,
    fleet,
    instances,
    keys,
    quotas,
    requests,
    reservations,
    series,
    subscriptions,
)
from lablet_client.connection import Connection
from lablet_client.paging import Page
from lablet_client.retry import Retry
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.key import ApiKey
from lablet_common.resources.model import Resource
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.series import Series
from lablet_common.resources.subscription import Subscription
from lablet_common.resources.worker import Worker, WorkerPool, WorkerTemplate

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Resource[Any, Any])


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lablet-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, CancelledError):
            future.cancel()
            raise

    def iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self.run(_next(iterator))
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.is_closed():
                self.run(_close(iterator))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(iterator: AsyncIterator[T]) -> T:
    return await iterator.__anext__()


async def _close(iterator: AsyncIterator[Any]) -> None:
    closing = getattr(iterator, "aclose", None)
    if closing is not None:
        await closing()


class _Room(Generic[A]):
    """The blocking face of an asynchronous room."""

    def __init__(self, room: A, loop: _Loop) -> None:
        self._room = room
        self._loop = loop


def _like(call: Callable[Concatenate[Any, P], T], method: Callable[..., Any]) -> Callable[Concatenate[Any, P], T]:
    """The call with the method's name, words and parameters, for whoever asks for help."""
    call.__doc__, call.__name__, call.__qualname__ = method.__doc__, method.__name__, method.__qualname__
    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]  # what `inspect.signature` looks for
    return call


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    def call(self: _Room[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._room, *args, **kwargs))

    return _like(call, method)


def _iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    def call(self: _Room[Any], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._loop.iterate(method(self._room, *args, **kwargs))

    return _like(call, method)


class _Collection(_Room[collection.Collection[R]], Generic[R]):
    """What all kinds have in common; see `lablet_client.collection`."""

    def get(self, resource_id: str) -> R:
        """The resource as it stands now. Raises `NotFound`."""
        return self._loop.run(self._room.get(resource_id))

    def list(
        self, *, labels: str | None = None, fields: str | None = None, page_size: int | None = None
    ) -> Iterator[R]:
        """All of them, of one revision."""
        return self._loop.iterate(self._room.list(labels=labels, fields=fields, page_size=page_size))

    def page(
        self,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[R]:
        """One page."""
        return self._loop.run(self._room.page(labels=labels, fields=fields, limit=limit, cursor=cursor))

    document = _blocking(collection.Collection.document)
    documents = _blocking(collection.Collection.documents)


class Reservations(_Collection[Reservation]):
    create = _blocking(reservations.Reservations.create)
    simulate = _blocking(reservations.Reservations.simulate)
    submit = _blocking(reservations.Reservations.submit)
    change = _blocking(reservations.Reservations.change)
    cancel = _blocking(reservations.Reservations.cancel)
    confirm = _blocking(reservations.Reservations.confirm)
    open_claims = _blocking(reservations.Reservations.open_claims)
    withdraw_claims = _blocking(reservations.Reservations.withdraw_claims)
    claim = _blocking(reservations.Reservations.claim)
    explanation = _blocking(reservations.Reservations.explanation)
    trace = _blocking(reservations.Reservations.trace)


class SeriesRoom(_Collection[Series]):
    rehearse = _blocking(series.SeriesRoom.rehearse)
    create = _blocking(series.SeriesRoom.create)
    change = _blocking(series.SeriesRoom.change)
    cancel = _blocking(series.SeriesRoom.cancel)
    dates = _blocking(series.SeriesRoom.dates)


class Definitions(_Collection[Definition]):
    publish = _blocking(definitions.Definitions.publish)
    topology = _blocking(definitions.Definitions.topology)
    approve = _blocking(definitions.Definitions.approve)
    deprecate = _blocking(definitions.Definitions.deprecate)
    archive = _blocking(definitions.Definitions.archive)


class Instances(_Collection[Instance]):
    start = _blocking(instances.Instances.start)
    stop = _blocking(instances.Instances.stop)
    collect = _blocking(instances.Instances.collect)
    retry = _blocking(instances.Instances.retry)
    access = _blocking(instances.Instances.access)
    artifacts = _blocking(instances.Instances.artifacts)
    output = _blocking(instances.Instances.output)


class Workers(_Collection[Worker]):
    drain = _blocking(fleet.Workers.drain)
    drain_plan = _blocking(fleet.Workers.drain_plan)
    cancel_drain = _blocking(fleet.Workers.cancel_drain)
    cordon = _blocking(fleet.Workers.cordon)
    uncordon = _blocking(fleet.Workers.uncordon)
    replace = _blocking(fleet.Workers.replace)
    calendar = _blocking(fleet.Workers.calendar)
    load = _blocking(fleet.Workers.load)


class Pools(_Collection[WorkerPool]):
    apply = _blocking(fleet.Pools.apply)
    replace = _blocking(fleet.Pools.replace)
    cancel_replace = _blocking(fleet.Pools.cancel_replace)
    delete = _blocking(fleet.Pools.delete)
    optimise = _blocking(fleet.Pools.optimise)
    calendar = _blocking(fleet.Pools.calendar)


class Templates(_Collection[WorkerTemplate]):
    apply = _blocking(fleet.Templates.apply)
    delete = _blocking(fleet.Templates.delete)


class Keys(_Collection[ApiKey]):
    create = _blocking(keys.Keys.create)
    revoke = _blocking(keys.Keys.revoke)


class Subscriptions(_Collection[Subscription]):
    create = _blocking(subscriptions.Subscriptions.create)
    change = _blocking(subscriptions.Subscriptions.change)
    delete = _blocking(subscriptions.Subscriptions.delete)
    rotate_secret = _blocking(subscriptions.Subscriptions.rotate_secret)
    redeliver = _blocking(subscriptions.Subscriptions.redeliver)


class Audit(_Room[audit.Audit]):
    list = _iterating(audit.Audit.list)
    get = _blocking(audit.Audit.get)


class Quotas(_Room[quotas.Quotas]):
    get = _blocking(quotas.Quotas.get)
    set = _blocking(quotas.Quotas.set)


class Requests(_Room[requests.Requests]):
    get = _blocking(requests.Requests.get)
    settled = _blocking(requests.Requests.settled)


class Artifacts(_Room[artifacts.Artifacts]):
    list = _iterating(artifacts.Artifacts.list)
    download = _blocking(artifacts.Artifacts.download)
    link = _blocking(artifacts.Artifacts.link)
    delete = _blocking(artifacts.Artifacts.delete)
    delete_of = _blocking(artifacts.Artifacts.delete_of)


class DeadLetters(_Room[artifacts.DeadLetters]):
    list = _blocking(artifacts.DeadLetters.list)
    get = _blocking(artifacts.DeadLetters.get)
    replay = _blocking(artifacts.DeadLetters.replay)
    forget = _blocking(artifacts.DeadLetters.forget)
    purge = _blocking(artifacts.DeadLetters.purge)


class Events(_Room[events.Events]):
    watch = _iterating(events.Events.watch)
    history = _blocking(events.Events.history)
    publish = _blocking(events.Events.publish)


class Client:
    """As `lablet_client.Client`; use it in a `with` block, or `close` it."""

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
        inner = client.Client(url, token, connection=connection, retry=retry, timeout=timeout, http=http)
        self._client = inner
        self._loop = _Loop()
        self.connection = inner.connection
        self.reservations = Reservations(inner.reservations, self._loop)
        self.series = SeriesRoom(inner.series, self._loop)
        self.definitions = Definitions(inner.definitions, self._loop)
        self.instances = Instances(inner.instances, self._loop)
        self.workers = Workers(inner.workers, self._loop)
        self.pools = Pools(inner.pools, self._loop)
        self.templates = Templates(inner.templates, self._loop)
        self.quotas = Quotas(inner.quotas, self._loop)
        self.requests = Requests(inner.requests, self._loop)
        self.artifacts = Artifacts(inner.artifacts, self._loop)
        self.dead_letters = DeadLetters(inner.dead_letters, self._loop)
        self.keys = Keys(inner.keys, self._loop)
        self.subscriptions = Subscriptions(inner.subscriptions, self._loop)
        self.audit = Audit(inner.audit, self._loop)
        self.events = Events(inner.events, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._loop.run(self._client.close())
        self._loop.close()

    def watch(
        self,
        *,
        kind: str | None = None,
        id: str | None = None,  # noqa: A002 - the word that the API uses
        correlation: str | None = None,
        label: str | None = None,
        after: str | None = None,
    ) -> Iterator[events.Event]:
        """Events as they happen, for ever, over lost connections."""
        wanted = self._client.watch(kind=kind, id=id, correlation=correlation, label=label, after=after)
        return self._loop.iterate(wanted)

    def wait_for(
        self, resource: R, *phases: str, timeout: float = 300.0, on_change: Callable[[R], None] | None = None
    ) -> R:
        """The resource once it has reached one of `phases`; `on_change` is called in the client's own thread."""
        return self._loop.run(self._client.wait_for(resource, *phases, timeout=timeout, on_change=on_change))

    def lab_time(self) -> client.LabTime:
        return self._loop.run(self._client.lab_time())

    def version(self) -> Mapping[str, Any]:
        return self._loop.run(self._client.version())

    def usage(self, start: datetime | None = None, end: datetime | None = None) -> Mapping[str, Any]:
        return self._loop.run(self._client.usage(start, end))

    def usage_csv(self, start: datetime | None = None, end: datetime | None = None) -> str:
        return self._loop.run(self._client.usage_csv(start, end))

    def whoami(self) -> Mapping[str, Any]:
        return self._loop.run(self._client.whoami())
