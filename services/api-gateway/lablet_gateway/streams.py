"""Server-sent events: one reader of the log for all clients of this replica, each event encoded once.

The hub keeps the latest events in a ring. A client is nothing but a place in the log: what the ring still holds it gets
from there, what is older from the log itself, so that a slow or returning client neither misses nor repeats an event
and costs no memory of its own. An id is `<epoch>-<number>`; one of another epoch, or older than the log reaches, is
answered with a `reset` event: what follows begins anew, and the client lists again. A client is told its place also where
there is nothing for it, with an id alone: else one that hears little would come back with an old id, read all that others
have heard since, and lose its place when the log has forgotten that. While nobody listens, the log is not
followed: to read four events of each reservation for nobody would be a sixth of what the gateway does for it.
"""

import asyncio
import json
import logging
import re
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from lablet_common.bus.seen import Place as LastSeen
from lablet_common.bus.seen import Seen, place_of
from lablet_common.events import CloudEvent, InvalidEvent, kind_and_id
from lablet_common.events.binding import encode_structured
from lablet_common.store.selectors import LabelSelector
from lablet_common.tasks import together
from lablet_gateway.eventlog import Bounds, EventLog, EventLogUnavailable, Logged

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0
"""Real seconds between two looks whether the stream is still the same, and whether anybody listens."""
_RETRY_SECONDS = 0.5
_CATCH_UP = 500
_REMEMBERED = 1_000
"""Subjects of each kind of which one client remembers the last sequence: more than a bridge publishes again after a crash,
and little enough for hundreds of clients."""
_PAUSE_FOR_EACH = 0.0003
"""Real seconds that news waits for each client: about what sending it to one costs, so that a burst cannot fill the core."""
_PAUSE_WORTH_IT = 0.005
_DATA = b"\ndata: "
_NUMBER = re.compile(r"[0-9]{1,19}")
"""Of a stream: 64 bits."""
HEARTBEAT = b": still here\n\n"
"""For who has no place yet, or cannot come on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the log, ready to be sent, with what filters look at."""

    number: int
    frame: bytes
    """Attributes and data, where they take a tenth of the memory that they would take parsed."""
    origin: tuple[str, str]
    """Source and id of the event: the same event twice has the same."""
    place: LastSeen
    kind: str
    id: str
    tenant: str
    correlation: str

    @property
    def body(self) -> bytes:
        """The event in the JSON format."""
        return self.frame.partition(_DATA)[2].rstrip()

    @property
    def data(self) -> dict[str, Any]:
        return data_in(self.frame)

    @property
    def labels(self) -> dict[str, str]:
        metadata = self.data.get("metadata")
        labels = metadata.get("labels") if isinstance(metadata, dict) else None
        return labels if isinstance(labels, dict) else {}

    def telling(self, data: dict[str, Any]) -> "Entry":
        """The same event with other data."""
        head, _, body = self.frame.partition(_DATA)
        told = json.dumps(json.loads(body) | {"data": data}, ensure_ascii=False).encode()
        return replace(self, frame=b"%b%b%b\n\n" % (head, _DATA, told))


@lru_cache(maxsize=256)
def data_in(frame: bytes) -> dict[str, Any]:
    """What an event tells; the same for all clients that look at it in turn."""
    data = json.loads(frame.partition(_DATA)[2]).get("data")
    return data if isinstance(data, dict) else {}


def entry_of(logged: Logged, epoch: str) -> Entry | None:
    """None for what cannot be read as an event of Lablet's; it is logged."""
    event = logged.event
    try:
        _, body = encode_structured(event)
        kind, resource_id = kind_and_id(event)
        return Entry(
            number=logged.number,
            frame=b"id: %s-%d%b%b\n\n" % (epoch.encode(), logged.number, _DATA, body),
            origin=(event.get_source(), event.get_id()),
            place=place_of(event),
            kind=sys.intern(_kind_of(event) or kind),
            id=resource_id,
            tenant=sys.intern(str(event.get_extension("tenant") or "")),
            correlation=str(event.get_extension("correlationid") or ""),
        )
    except InvalidEvent as error:
        _log.warning("an event cannot be passed on", extra={"number": logged.number, "cause": str(error)})
        return None


def _kind_of(event: CloudEvent) -> str:
    """From the type: a scaling note's subject is its worker."""
    parts = event.get_type().split(".")
    return parts[2] if event.get_type().startswith("io.lablet.") and len(parts) > 3 else ""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a client wants to hear; whatever is empty does not narrow."""

    kinds: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    correlation: str = ""
    labels: LabelSelector = field(default_factory=LabelSelector)

    def wants(self, entry: Entry) -> bool:
        return (
            (not self.kinds or entry.kind in self.kinds)
            and (not self.ids or entry.id in self.ids)
            and (not self.correlation or entry.correlation == self.correlation)
            and (not self.labels.requirements or self.labels.matches_labels(entry.labels))
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log; `lost` where what the client asked to go on from cannot be had any more."""

    epoch: str
    number: int
    lost: bool = False

    @property
    def mark(self) -> bytes:
        """A sign of life that also says how far the client has come: by the standard of the format, an id without data."""
        return b": still here\nid: %s-%d\n\n" % (self.epoch.encode(), self.number)

    @property
    def reset(self) -> bytes:
        """Tells a client to begin anew from here."""
        return b"event: reset\nid: %s-%d\ndata: {}\n\n" % (self.epoch.encode(), self.number)


def read_id(event_id: str) -> tuple[str, int | None]:
    """Epoch and number of an event's id; no number in whatever is no id."""
    epoch, _, digits = event_id.rpartition("-")
    return epoch, int(digits) if _NUMBER.fullmatch(digits) else None


Sight = Callable[[Entry], Entry | None]
"""What one client sees of an event; None: nothing."""


class Hub:
    """The one reader, and its ring of the latest events (`size` of them at least, and a quarter more at most)."""

    def __init__(self, log: EventLog, size: int) -> None:
        self._log = log
        self._size = size
        self._ring: list[Entry] = []
        self._epoch = ""
        self._position = 0
        self._floor = 0
        """Everything above it is in the ring."""
        self._news = asyncio.Event()
        self._started = asyncio.Event()
        self._wanted = asyncio.Event()
        """Somebody listens or is about to, or did since the last look."""
        self._closed = False
        self._telling: asyncio.TimerHandle | None = None
        self.clients = 0
        self._arriving = 0
        """Clients between their question and their first frame."""

    @property
    def epoch(self) -> str:
        return self._epoch

    async def run(self) -> None:
        """Follows the log whenever somebody listens, for ever; while NATS is away, the clients hear heartbeats only."""
        while True:
            await self._wanted.wait()
            await self._begin()
            await together(self._log.follow(self._position, self._take), self._watch_while_wanted())

    async def _begin(self) -> None:
        pause = 0.05
        while not self._started.is_set():
            try:
                self._settle(await self._log.bounds())
            except EventLogUnavailable as error:
                _log.info("the event log cannot be read yet", extra={"cause": str(error)})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_SECONDS)

    async def _watch_while_wanted(self) -> None:
        """Notices a stream that was made anew, also when its numbers have overtaken the old ones: then it ends, to have the
        new one followed from its end, and not from where the old one was. Ends, too, when nobody has listened between two
        looks."""
        while self._wanted.is_set():
            if not self.clients:
                self._wanted.clear()
            await asyncio.sleep(_LOOK_SECONDS)
            if await self._check_epoch() and self._wanted.is_set():
                return
        self._started.clear()
        self._ring.clear()
        self._floor = self._position

    async def _check_epoch(self) -> bool:
        """Whether the stream was made anew; then everybody begins anew."""
        try:
            bounds = await self._log.bounds()
        except EventLogUnavailable as error:
            _log.debug("the event log does not answer", extra={"cause": str(error)})
            return False
        if bounds.epoch == self._epoch:
            return False
        self._settle(bounds)
        return True

    def _settle(self, bounds: Bounds) -> None:
        """Begins at the end of the log as it is."""
        self._ring.clear()
        self._epoch = bounds.epoch
        self._position = self._floor = bounds.last
        self._started.set()
        self._tell()

    async def _take(self, logged: Logged) -> None:
        if logged.number <= self._position:
            await self._check_epoch()  # numbers that go back: the stream was made anew
            if logged.number <= self._position:
                return
        self._position = logged.number
        entry = entry_of(logged, self._epoch)
        if entry is not None:
            self._ring.append(entry)
        if len(self._ring) > self._size + self._size // 4:
            old = len(self._ring) - self._size
            self._floor = self._ring[old - 1].number
            del self._ring[:old]
        self._tell_soon()

    def _tell_soon(self) -> None:
        """At once to a few clients; to many a moment later, so that what comes meanwhile goes out to each in one piece."""
        pause = self.clients * _PAUSE_FOR_EACH
        if pause < _PAUSE_WORTH_IT:
            self._tell()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(pause, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Ends every stream, so that the server can stop."""
        self._closed = True
        self._tell()

    @property
    def crowd(self) -> int:
        """Who listens, and who is about to."""
        return self.clients + self._arriving

    async def arrive(self, last_id: str | None, patience: float) -> Place:
        """Where a client begins. Whoever names an id of the log as it was seen last is let in also while NATS is away; others
        wait up to `patience` real seconds for the first sight of the log. Raises `EventLogUnavailable`."""
        self._arriving += 1
        try:
            self._wanted.set()
            if not self._knows(last_id):
                await self.ready(patience)
            return await self.place(last_id)
        finally:
            self._arriving -= 1

    def _knows(self, last_id: str | None) -> bool:
        epoch, number = read_id(last_id or "")
        return bool(epoch) and epoch == self._epoch and number is not None

    async def ready(self, timeout: float) -> None:
        """Has the log followed, and waits for the first sight of it. Raises `EventLogUnavailable`: without it there is no
        "from now on"."""
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout):
                await self._started.wait()
        except TimeoutError:
            raise EventLogUnavailable("the event log cannot be reached") from None

    async def place(self, last_id: str | None) -> Place:
        """Where a client begins: after the id it names, else from now on."""
        now = Place(self._epoch, self._position)
        if not last_id:
            return now
        epoch, number = read_id(last_id)
        if epoch != now.epoch or number is None:
            return replace(now, lost=True)
        try:
            bounds = await self._log.bounds()
        except EventLogUnavailable:
            return Place(epoch, number)
        if number > bounds.last:
            return replace(now, lost=True)
        return Place(epoch, number, lost=number + 1 < bounds.first)

    async def frames(
        self, place: Place, wanted: Filter, sight: Sight, heartbeat_seconds: float
    ) -> AsyncIterator[bytes]:
        """What one client is sent from `place` on, until it goes or the hub closes; several events in one piece where there
        are several."""
        self.clients += 1
        self._wanted.set()  # it may have been a while since `ready`
        try:
            yield HEARTBEAT if place.lost else place.mark
            async for frame in self._frames(place, wanted, sight, heartbeat_seconds):
                yield frame
        finally:
            self.clients -= 1

    async def _frames(
        self, place: Place, wanted: Filter, sight: Sight, heartbeat_seconds: float
    ) -> AsyncIterator[bytes]:
        seen = Seen(_REMEMBERED)
        if place.lost:
            yield place.reset
        epoch, position = place.epoch, place.number
        while not self._closed:
            if epoch != self._epoch:
                epoch, position = self._epoch, self._floor
                yield Place(epoch, position).reset
            news = self._news
            if position >= self._position:
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await news.wait()
                except TimeoutError:
                    yield Place(epoch, position).mark
                continue
            catches_up = position < self._floor
            try:
                entries, position = await self._after(epoch, position)
            except EventLogUnavailable as error:
                _log.warning("a client cannot catch up just now", extra={"cause": str(error)})
                yield HEARTBEAT
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            frames = []
            for entry in entries:
                if wanted.wants(entry) and seen.is_above(entry.place) and (shown := sight(entry)) is not None:
                    seen.note_place(entry.place)
                    frames.append(shown.frame)
            if frames:
                yield b"".join(frames)
            elif catches_up:
                yield Place(epoch, position).mark

    async def _after(self, epoch: str, position: int) -> tuple[list[Entry], int]:
        """The next entries, from the ring or the log, and how far they reach. Raises `EventLogUnavailable`."""
        if position >= self._floor:
            first = bisect_right(self._ring, position, key=lambda entry: entry.number)
            entries = self._ring[first : first + _CATCH_UP]
            reached = entries[-1].number if len(entries) == _CATCH_UP else self._position
            return entries, reached
        floor = self._floor
        found = await self._log.read(position, _CATCH_UP)
        if not found:
            return [], floor  # the log has forgotten what lay in between
        entries = [entry for logged in found if (entry := entry_of(logged, epoch)) is not None]
        return entries, found[-1].number
