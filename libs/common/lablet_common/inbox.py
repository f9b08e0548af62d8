"""The inboxes of a service, kept in memory by the watch that its caches follow anyway: what waits for each shard, in order,
without a question to the store.

An inbox is as new as the caches beside it, no newer. That is enough: who decides compares the pointer in the transaction,
and has waited until the caches hold what it wrote itself, so that nothing is decided twice. The stored requests are
overheard; one that was not (after a start, in a long line) is read.
"""

import json
import logging
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

from lablet_common.requests import Undecided
from lablet_common.resources.kinds import REQUEST, inbox_prefix
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.store.api import Get, KeyValue, Store
from lablet_common.store.changes import decode

_log = logging.getLogger(__name__)
_READS_AT_ONCE = 100
_REMEMBERED = 1000
"""Requests that are kept from hearing of them until their turn; what waits behind them is read."""
_HEARD = 200
"""Requests that are kept until their pointers come, which is in the same transaction."""


class _Waiting(NamedTuple):
    """A pointer; they compare as they are to be decided."""

    created: int
    place: int
    key: str
    pointer: KeyValue
    request: str
    """Key of the request."""


class FollowedInboxes:
    """All shards of one service: a sink for the pointers, and an ear for the requests."""

    def __init__(self, store: Store, service: str) -> None:
        self.prefix = f"/inbox/{service}/"
        self._store = store
        self._service = service
        self._waiting: dict[str, _Waiting] = {}
        self._lines: dict[str, list[_Waiting]] = {}
        """Shard's prefix → what waits there, in order."""
        self._requests: dict[str, KeyValue] = {}
        """Of those that wait."""
        self._heard: OrderedDict[str, KeyValue] = OrderedDict()
        self._listeners: dict[str, list[Callable[[], None]]] = {}

    def subscribe(self, shard: str, listener: Callable[[], None]) -> Callable[[], None]:
        """Tells when something new waits for the shard; returns a function that ends that."""
        listeners = self._listeners.setdefault(inbox_prefix(self._service, shard), [])
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    def depth(self, shard: str) -> int:
        """How many wait there."""
        return len(self._lines.get(inbox_prefix(self._service, shard), ()))

    async def pending(self, shard: str, limit: int = 100) -> list[Undecided]:
        """The longest waiting first, by the pointers' create revisions, those of one transaction by their places. A few more
        than `limit` where it would divide what one transaction brought. Raises `StoreUnavailable`, `Unreadable`."""
        line = self._lines.get(inbox_prefix(self._service, shard), [])
        end = min(limit, len(line))
        while 0 < end < len(line) and line[end].created == line[end - 1].created:
            end += 1
        waiting = line[:end]
        found = await self._requests_of(waiting)
        undecided = []
        for one in waiting:
            kv = found.get(one.request)
            if kv is None:
                _log.error("an inbox pointer leads nowhere", extra={"pointer": one.key, "request": one.request})
                continue
            request = cast("Request", decode(REQUEST, kv))
            if request.status.phase is RequestPhase.ACCEPTED:  # else it was decided between two reads
                undecided.append(Undecided(one.pointer, request))
        return undecided

    async def _requests_of(self, waiting: Iterable[_Waiting]) -> dict[str, KeyValue]:
        keys = [one.request for one in waiting]
        found = {key: kv for key in keys if (kv := self._requests.get(key)) is not None}
        missing = [key for key in keys if key not in found]
        for at in range(0, len(missing), _READS_AT_ONCE):
            read = await self._store.txn([], [Get(key) for key in missing[at : at + _READS_AT_ONCE]])
            found |= {kv.key: kv for kvs in read.reads for kv in kvs}
        return found

    # -- what the mirror tells -------------------------------------------------------------------------------------

    def put(self, kv: KeyValue) -> None:
        if kv.key in self._waiting:
            self.drop(kv.key, kv.mod_revision)
        try:
            named = json.loads(kv.value)
            request = REQUEST.key(named["request"], named["tenant"])
            place = int(named.get("place", 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("an inbox pointer cannot be read: passed over", extra={"pointer": kv.key, "cause": repr(error)})
            return
        one = _Waiting(kv.create_revision, place, kv.key, kv, request)
        self._waiting[kv.key] = one
        heard = self._heard.pop(request, None)
        if heard is not None and len(self._requests) < _REMEMBERED:
            self._requests[request] = heard
        shard = _shard(kv.key)
        insort(self._lines.setdefault(shard, []), one)
        for listener in tuple(self._listeners.get(shard, ())):
            listener()

    def drop(self, key: str, revision: int) -> None:  # noqa: ARG002 - a sink
        one = self._waiting.pop(key, None)
        if one is not None:
            line = self._lines[_shard(key)]
            del line[bisect_left(line, one)]
            self._requests.pop(one.request, None)

    def knows(self, kv: KeyValue) -> bool:
        one = self._waiting.get(kv.key)
        return one is not None and one.pointer.mod_revision == kv.mod_revision

    def keys(self) -> Iterable[str]:
        return self._waiting.keys()

    def hear(self, kv: KeyValue) -> None:
        """Of a request: what waits already is kept up to date, and the pointer of a new one comes next."""
        if kv.key in self._requests:
            self._requests[kv.key] = kv
        elif kv.version == 1:
            self._heard[kv.key] = kv
            if len(self._heard) > _HEARD:
                self._heard.popitem(last=False)


def _shard(key: str) -> str:
    """The prefix of the shard that a pointer is for."""
    return key[: key.rfind("/") + 1]
