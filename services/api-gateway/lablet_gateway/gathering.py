"""Work that is done for many at the price of one: what comes while a round is under way shares the next.

Nobody waits for company: alone, an item is taken at once. So the burden on etcd grows with its own slowness and not with
the number of callers. A round that fails as a whole fails for all in it; an outcome that is an exception, for its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from lablet_common.acceptance import accept_all
from lablet_common.requests import Accepted, accept
from lablet_common.resources.request import Request
from lablet_common.store import Get, InvalidRequest, KeyValue, Store
from lablet_common.telemetry.metrics import SHED
from lablet_gateway.admission import DEEPEST, Admission

T = TypeVar("T")
U = TypeVar("U")
_Asked = tuple[Sequence[T], asyncio.Future[Sequence[U | Exception]]]
MANY = 5000
"""Calls that wait together unless the settings say otherwise."""
_ANYTHING = "/clock"
"""A prefix with few keys: only the revision of the answer counts."""
_GETS = 128
"""Keys that one transaction reads."""

Lookup = tuple[Get, ...]
"""What one caller wants to know, as of one revision."""
Found = tuple[tuple[KeyValue, ...], ...]
"""What was found, an entry for each `Get`."""


class Overloaded(Exception):
    """More wait already than shall: coming later is better than waiting longer."""


class Gathering(Generic[T, U]):
    """`work` takes the items of a round and returns as many outcomes. At most `most` wait for the next round."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[U | Exception]]], most: int = MANY) -> None:
        self._work = work
        self._most = most
        self._waiting: list[_Asked[T, U]] = []
        self._count = 0
        """Items in `_waiting`."""
        self._rounds: asyncio.Task[None] | None = None

    async def ask(self, item: T) -> U:
        """The outcome of the item. Raises the error that stands for it, or that the whole round met, and `Overloaded`
        at once when too many wait."""
        (outcome,) = await self.ask_all((item,))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def ask_all(self, items: Sequence[T]) -> Sequence[U | Exception]:
        """As `ask` for several that belong together: their outcomes, the errors that stand for single ones among them. They
        get in where one would."""
        if not items:
            return ()
        if self._count >= self._most:
            SHED.labels("etcd").inc()
            raise Overloaded(f"{self._most} calls wait for an answer already")
        future: asyncio.Future[Sequence[U | Exception]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        self._count += len(items)
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._run(), name="gathering")
        try:
            return await future
        finally:
            del future  # it holds the error that is being raised, which holds this frame

    async def _run(self) -> None:
        taken: list[_Asked[T, U]] = []
        try:
            while self._waiting:
                taken, self._waiting, self._count = self._waiting, [], 0
                await self._round(taken)
        finally:
            self._rounds = None
            for _, future in taken:  # none is left open, unless the round was cancelled
                future.cancel()

    async def _round(self, taken: Sequence[_Asked[T, U]]) -> None:
        try:
            outcomes = iter(await self._work([item for items, _ in taken for item in items]))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who asked are told
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            del taken, future  # they hold the error, which holds this frame
            return
        for items, future in taken:
            own = list(islice(outcomes, len(items)))
            if not future.done():  # else whoever asked has gone
                future.set_result(own)


def acceptance(store: Store, most: int = MANY, deepest: int = DEEPEST) -> Gathering[Request, Accepted]:
    """Accepts requests, those of a round together; `Crowded` for those whose inbox is full (see `admission`)."""
    admission = Admission(store, deepest)

    async def work(requests: Sequence[Request]) -> Sequence[Accepted | Exception]:
        judged = await admission.judge(requests)
        accepted = iter(await _accepted(store, [one for one, no in zip(requests, judged, strict=True) if no is None]))
        return [next(accepted) if no is None else no for no in judged]

    return Gathering(work, most)


async def _accepted(store: Store, requests: Sequence[Request]) -> Sequence[Accepted | Exception]:
    try:
        return await accept_all(store, requests)
    except InvalidRequest:
        return [await _alone(store, request) for request in requests]  # only the one at fault is to hear of it


async def _alone(store: Store, request: Request) -> Accepted | Exception:
    try:
        return await accept(store, request)
    except Exception as error:  # noqa: BLE001 - it is raised by whoever asked
        return error


def lookups(store: Store, most: int = MANY) -> Gathering[Lookup, Found]:
    """Reads keys linearizably, those of a round together, and what several want once."""

    async def work(wanted: Sequence[Lookup]) -> Sequence[Found]:
        found: list[Found] = []
        group: list[Lookup] = []
        keys: set[Get] = set()
        for lookup in wanted:
            if group and len(keys.union(lookup)) > _GETS:
                found += await _read(store, group)
                group, keys = [], set()
            group.append(lookup)
            keys.update(lookup)
        return found + await _read(store, group)

    return Gathering(work, most)


def heads(store: Store, most: int = MANY) -> Gathering[None, int]:
    """Reads the revision at which the store is, linearizably, once for all of a round."""

    async def work(asked: Sequence[None]) -> Sequence[int]:
        page = await store.range(_ANYTHING, limit=1, keys_only=True)
        return [page.revision] * len(asked)

    return Gathering(work, most)


async def _read(store: Store, group: Sequence[Lookup]) -> list[Found]:
    gets = list(dict.fromkeys(get for lookup in group for get in lookup))
    done = await store.txn([], gets)
    known = dict(zip(gets, done.reads, strict=True))
    return [tuple(known[get] for get in lookup) for lookup in group]
