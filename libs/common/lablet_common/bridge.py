"""The watch-to-event bridge: every committed change of a kind becomes its events, published at least once.

The owner of a kind runs one bridge for it, fenced. From a stored cursor it follows the etcd watch, derives each change's
events, publishes them with one in flight per resource and many resources at once, and moves the cursor behind what the
broker has confirmed. After a crash it begins at the cursor again: nothing is missing, and what comes twice carries the
same ids. A killed NATS may have lost the last of what it confirmed (see `cursor`): in a new connection nothing is published
before that has been looked at, and what is not there is published again. When the history after the cursor was compacted by
somebody else, the present state of everything newer than the cursor is published instead, marked `replayed`.

Not guaranteed: an order between resources, and (after such a compaction) an event for every change in between or for
deletions; consumers find those in their own caches. An earlier owner that stood still meanwhile may still tell one of those
behind the state that stands for them: `sequence` says so. A publisher's failure is hardly ever final: it is tried again for
ever, holds back its own resource and the cursor, and shows in the lag. Only what NATS can never take is left out, told in the
log and counted (`lablet_events_left_out_total`): `derive` sees to it that there is no such event.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from lablet_common.bus.connection import BusUnavailable, TooLarge
from lablet_common.cursor import Cursor, EventLog, Mark
from lablet_common.events import Outgoing, derive
from lablet_common.events.binding import InvalidEvent
from lablet_common.ownership import Fence, NotOwner
from lablet_common.resources.kinds import Kind, cursor_key
from lablet_common.resources.model import Resource
from lablet_common.store.api import Compacted, EventType, KeyValue, Store, StoreUnavailable, WatchEvent
from lablet_common.store.changes import decode
from lablet_common.store.transaction import Conflict, Transaction
from lablet_common.tasks import together
from lablet_common.telemetry.metrics import BRIDGE_LAG_REVISIONS, BRIDGE_LAG_SECONDS, EVENTS_LEFT_OUT
from lablet_common.told import Forgotten, Told

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_IN_FLIGHT = 128
"""Resources that are published at the same time."""
_AT_ONCE = 200
"""Changes read in one go, before everybody else in the process has a turn."""
_BACKLOG = 10_000
"""Changes read but not yet confirmed, at which reading waits."""
_CURSOR_SECONDS = 0.2
_CURSOR_EVENTS = 500
_IDLE_REVISIONS = 1000
"""How far the store may go on without this kind before the cursor follows: other bridges' cursors move it too."""
_REMEMBERED = 4096
"""Resources whose last state is kept, so that it need not be read again as the `before` of the next change."""
_PAUSE_SECONDS = 0.05
_PAUSE_MAXIMUM = 1.0
_PAGE = 500


@dataclass(slots=True)
class _Change:
    """A change on its way to the broker; `events` shrinks as they are confirmed."""

    revision: int
    seen_at: float
    events: deque[Outgoing]


class Bridge:
    """Publishes the changes of one kind into `log` for as long as `fence` stands. `source` is the `source` of its events."""

    def __init__(self, store: Store, kind: Kind, fence: Fence, log: EventLog, *, source: str) -> None:
        self._store = store
        self._kind = kind
        self._fence = fence
        self._told = Told(log)
        self._source = source
        self._remembered: OrderedDict[str, Resource[Any, Any]] = OrderedDict()
        self._open: deque[_Change] = deque()  # in the order of revisions; the confirmed ones go when they come first
        self._lines: dict[str, deque[_Change]] = {}  # per resource, the first one being published
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._wanted = asyncio.Event()
        self._unsaved = 0
        self._seen = 0
        self._done = 0
        self._failing = ""
        """What keeps events from being published just now."""

    @property
    def lag_revisions(self) -> int:
        """Revisions between what has been read and what has been confirmed; 0 when all is out."""
        return self._seen - self._done if self._open else 0

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest change that has been read and not confirmed, in real seconds."""
        return asyncio.get_running_loop().time() - self._open[0].seen_at if self._open else 0.0

    @property
    def cursor(self) -> int:
        """Everything up to this revision has been confirmed, as it is stored."""
        return self._told.cursor.revision

    async def run(self) -> None:
        """Publishes until cancelled. Raises `NotOwner` when the fence has fallen, and `Unreadable`."""
        EVENTS_LEFT_OUT.labels(self._kind.name)  # from zero on: an increase can be seen of what was there before
        self._begin_at(await self._patiently(self._read_cursor))
        try:
            while True:
                try:
                    publishers = (self._publish_for_ever() for _ in range(_IN_FLIGHT))
                    await together(self._follow(), self._keep_cursor(), *publishers)
                except Forgotten as error:
                    _log.warning(
                        "NATS has lost events that it had acknowledged: they are published again",
                        extra={"kind": self._kind.name, "after": error.cursor.revision, "told": self._done},
                    )
                    cursor = replace(error.cursor, again=max(self._seen, error.cursor.again))
                    self._begin_at(cursor)
                    await self._patiently(partial(self._put, cursor))
        finally:
            BRIDGE_LAG_REVISIONS.labels(self._kind.name).set(0)
            BRIDGE_LAG_SECONDS.labels(self._kind.name).set(0)

    def _begin_at(self, cursor: Cursor) -> None:
        """As if nothing had been read or published after it."""
        self._told.begin(cursor)
        self._seen = self._done = cursor.revision
        self._open.clear()
        self._lines.clear()
        self._ready = asyncio.Queue()
        self._room.set()
        self._unsaved = 0

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                async with self._store.watch(
                    self._kind.prefix, start_revision=self._seen + 1, previous=True
                ) as batches:
                    async for batch in batches:
                        for first in range(0, len(batch.events), _AT_ONCE):
                            self._take(batch.events[first : first + _AT_ONCE])
                            if first + _AT_ONCE < len(batch.events):
                                await asyncio.sleep(0)  # a long history comes in one piece
                        last = batch.events[-1].kv.mod_revision if batch.events else batch.revision
                        self._saw(last)
                        if len(self._open) > _BACKLOG:
                            self._room.clear()
                            await self._room.wait()
            except Compacted as error:
                _log.warning(
                    "changes were compacted before they were published: publishing the present state",
                    extra={"kind": self._kind.name, "cursor": self._seen, "oldest": error.compact_revision},
                )
                await self._patiently(self._replay)
            except StoreUnavailable as error:
                _log.warning("the bridge cannot follow etcd", extra={"kind": self._kind.name, "cause": str(error)})
                await asyncio.sleep(_PAUSE_MAXIMUM)

    def _take(self, events: Iterable[WatchEvent]) -> None:
        for event in events:
            key, revision = event.kv.key, event.kv.mod_revision
            if revision <= self._seen:
                continue
            before = self._read(event.previous) if event.previous is not None else None
            after = self._read(event.kv) if event.type is EventType.PUT else None
            if after is None or after.is_final:
                self._remembered.pop(key, None)  # hardly anything comes after that
            self._hand_out(key, revision, self._events(before, after, event.kv))

    def _read(self, kv: KeyValue) -> Resource[Any, Any]:
        """The resource, decoded once: what it was before a change is what the change before made it."""
        known = self._remembered.get(kv.key)
        if known is not None and known.revision == kv.mod_revision:
            return known
        resource = self._remembered[kv.key] = decode(self._kind, kv)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return resource

    def _events(
        self, before: Resource[Any, Any] | None, after: Resource[Any, Any] | None, kv: KeyValue, replayed: bool = False
    ) -> list[Outgoing]:
        """Of the change that left `kv`."""
        try:
            return derive(self._kind, before, after, kv.mod_revision, source=self._source, replayed=replayed)
        except ValueError as error:  # `InvalidEvent` among them, and a name that makes no subject
            self._leave_out(f"{kv.key} at {kv.mod_revision}", error)
            return []

    def _leave_out(self, event: str, error: Exception) -> None:
        """Waiting for it would hold back everything behind it for ever; consumers find its commit by themselves."""
        EVENTS_LEFT_OUT.labels(self._kind.name).inc()
        words = {"kind": self._kind.name, "event": event, "cause": str(error)}
        _log.error("an event can never be published and is left out", extra=words)

    async def _replay(self) -> None:
        """Publishes the present state of everything newer than what has been seen."""
        newer: list[KeyValue] = []
        revision, after = 0, ""
        while True:
            page = await self._store.range(self._kind.prefix, limit=_PAGE, start_after=after, revision=revision)
            revision = revision or page.revision
            newer += [kv for kv in page.items if kv.mod_revision > self._seen]
            if not page.more:
                break
            after = page.items[-1].key
        for kv in sorted(newer, key=lambda kv: kv.mod_revision):
            self._hand_out(kv.key, kv.mod_revision, self._events(None, self._read(kv), kv, replayed=True))
        self._saw(revision)

    # -- publishing ------------------------------------------------------------------------------------------------

    def _hand_out(self, key: str, revision: int, events: list[Outgoing]) -> None:
        if not events:
            return
        change = _Change(revision, asyncio.get_running_loop().time(), deque(events))
        self._open.append(change)
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = deque((change,))
            self._ready.put_nowait(key)
        else:
            line.append(change)

    async def _publish_for_ever(self) -> None:
        while True:
            await self._publish_next(await self._ready.get())

    async def _publish_next(self, key: str) -> None:
        """The first change of a resource's line."""
        line = self._lines[key]
        change = line[0]
        while change.events:
            await self._publish_surely(change.events[0])
            change.events.popleft()
        line.popleft()
        if line:
            self._ready.put_nowait(key)
        else:
            del self._lines[key]
        self._advance()

    async def _publish_surely(self, outgoing: Outgoing) -> None:
        pause = _PAUSE_SECONDS
        while True:
            while not self._told.is_known:
                self._wanted.set()
                await self._told.wait_known()
            try:
                await self._told.tell(outgoing)
            except (TooLarge, InvalidEvent) as error:
                self._leave_out(str(outgoing.event.get_id()), error)
                return
            except Exception as error:  # noqa: BLE001 - whatever the publisher raises, the event must not be lost
                self._complain("publish", outgoing.subject, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_MAXIMUM)
            else:
                if self._failing:
                    self._failing = ""
                    _log.info("events are published again", extra={"kind": self._kind.name})
                return

    def _complain(self, reason: str, event: str, error: Exception) -> None:
        """Once for each reason."""
        if reason == self._failing:
            return
        self._failing = reason
        words = {"kind": self._kind.name, "event": event, "cause": repr(error)}
        _log.warning("events cannot be published; trying for ever", extra=words)

    # -- the cursor ------------------------------------------------------------------------------------------------

    def _saw(self, revision: int) -> None:
        self._seen = max(self._seen, revision)
        self._advance()

    def _advance(self) -> None:
        """Moves `done` behind the confirmed changes that stand first."""
        changes = self._open
        while changes and not changes[0].events:
            self._unsaved += 1
            changes.popleft()
        # Several changes may share a revision, so the one of the first open change is not done.
        self._done = max(self._done, changes[0].revision - 1 if changes else self._seen)
        if len(changes) <= _BACKLOG // 2:
            self._room.set()
        if self._unsaved >= _CURSOR_EVENTS:
            self._wanted.set()

    async def _keep_cursor(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_CURSOR_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass  # also fewer events move the cursor now and then
            self._wanted.clear()
            BRIDGE_LAG_REVISIONS.labels(self._kind.name).set(self.lag_revisions)
            BRIDGE_LAG_SECONDS.labels(self._kind.name).set(self.lag_seconds)
            try:
                await self._told.look(self._done)
            except BusUnavailable as error:
                if self._open:
                    self._complain(str(error), "", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            moved = self._done - self.cursor
            if (self._unsaved and moved) or moved >= _IDLE_REVISIONS:
                unsaved = self._unsaved
                if await self._save(self._told.up_to(self._done)):
                    self._unsaved -= unsaved
            elif self._told.wants_storing:
                await self._save(self._told.up_to(self.cursor))

    async def _save(self, cursor: Cursor) -> bool:
        """Raises `NotOwner`; False: etcd does not answer, the next one will be stored."""
        try:
            await self._put(cursor)
        except StoreUnavailable as error:
            _log.warning("the cursor could not be stored", extra={"kind": self._kind.name, "cause": str(error)})
            return False
        return True

    async def _put(self, cursor: Cursor) -> None:
        """Raises `NotOwner`, and `StoreUnavailable`."""
        txn = Transaction().put(cursor_key(self._kind.name), cursor.to_json())
        self._fence.guard(txn)
        try:
            await txn.commit(self._store)
        except Conflict:
            raise NotOwner(f"the bridge of {self._kind.name} is no longer this replica's") from None
        self._told.stored(cursor)

    async def _read_cursor(self) -> Cursor:
        """The stored cursor; revision 0 where there is none, which begins with the whole history."""
        found = await self._store.get(cursor_key(self._kind.name))
        return Cursor.from_json(found.value) if found is not None else Cursor((Mark(0),))

    async def _patiently(self, what: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            try:
                return await what()
            except StoreUnavailable as error:
                _log.warning("the bridge waits for etcd", extra={"kind": self._kind.name, "cause": str(error)})
                await asyncio.sleep(_PAUSE_MAXIMUM)
