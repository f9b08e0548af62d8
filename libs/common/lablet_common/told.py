"""What a bridge has told, and whether that is still so: beside the bridge's reading and publishing, its looking back.

In a new connection nothing may be published before `look` has found what was confirmed in the one before, or it would come
before something older that was lost. What must be told again is asked for once, so that it does not come behind newer
events of its resource: the stream knows a repeat for two minutes only.
"""

import asyncio
from collections import deque

from lablet_common.cursor import Cursor, EventLog, Mark
from lablet_common.events import Outgoing, sequence_of

_EVENTS = "lablet.event."
_SAFE_SECONDS = 60.0
"""After which a stream has written what it acknowledged, and an operating system its pages."""
_LOOK_SECONDS = 30.0
"""How often is looked without a reason: the stream may have been made anew by somebody else."""


class Forgotten(Exception):
    """The stream does not hold any more what it had acknowledged; `cursor` is as far as it does."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(f"nothing can be relied upon after revision {cursor.revision}")
        self.cursor = cursor


class Told:
    """Of one bridge. `stream` is where its events go."""

    def __init__(self, stream: EventLog) -> None:
        self._stream = stream
        self.cursor = Cursor((Mark(0),))
        """As it is stored, or as far as it stands."""
        self._number, self._subject = 0, ""
        """Of the message that lies furthest back in the stream of all that were confirmed."""
        self._again = 0
        """What lies up to this revision may have been told before the bridge went back."""
        self._session: int | None = None
        """The connection in which everything confirmed is known to be there."""
        self._known = asyncio.Event()
        self._next_look = 0.0
        self._young: deque[tuple[float, int]] = deque()
        """When which revision was told, for as long as it may have to be told again."""
        self._safe = 0
        self._is_new = False
        """It is another stream than the stored cursor says."""

    def begin(self, cursor: Cursor) -> None:
        """As if nothing had been told after it, or, up to its `again`, perhaps."""
        self.cursor = cursor
        self._number, self._subject = cursor.marks[-1].number, cursor.marks[-1].subject
        self._again = cursor.again
        self._young.clear()
        self._safe = cursor.safe

    @property
    def session(self) -> int | None:
        """For what is published now."""
        return self._session

    @property
    def is_known(self) -> bool:
        """Whether what was confirmed is known to be there, in the connection that there is."""
        return self._session == self._stream.session

    async def wait_known(self) -> None:
        self._known.clear()
        await self._known.wait()

    async def tell(self, outgoing: Outgoing) -> None:
        """Publishes, once the stream has it; not what it has already. Raises what `EventLog.publish` raises."""
        if self._again and await self._is_there(outgoing):
            return
        self._lies_at(await self._stream.publish(outgoing, session=self._session), outgoing.subject)

    async def _is_there(self, outgoing: Outgoing) -> bool:
        sequence = sequence_of(outgoing.event)
        if sequence > self._again or not outgoing.subject.startswith(_EVENTS):
            return False
        last = await self._stream.last(outgoing.subject)
        if last.sequence < sequence:
            return False
        self._lies_at(last.number, outgoing.subject)  # or a mark of before it would say that it was told
        return True

    def _lies_at(self, number: int, subject: str) -> None:
        if number > self._number:
            self._number, self._subject = number, subject

    def up_to(self, revision: int) -> Cursor:
        """The cursor to be stored when everything up to there has been told."""
        if revision >= self._again:
            self._again = 0
        now = asyncio.get_running_loop().time()
        self._note(now, revision)
        self._age(now)
        mark = Mark(revision, self._number, self._subject)
        return self.cursor.moved(mark, safe=self._safe, again=self._again)

    def stored(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._is_new = False

    @property
    def wants_storing(self) -> bool:
        """Whether the cursor should be stored although nothing more was told: the stream is another one, or all that is
        stored as told has been so for long."""
        self._age(asyncio.get_running_loop().time())
        return self._is_new or self._safe >= self.cursor.revision > self.cursor.safe

    def _note(self, now: float, revision: int) -> None:
        if not self._young or revision > self._young[-1][1]:
            self._young.append((now, revision))

    def _age(self, now: float) -> None:
        while self._young and now - self._young[0][0] >= _SAFE_SECONDS:
            self._safe = self._young.popleft()[1]

    async def look(self, revision: int) -> None:
        """In a new connection, and now and then: everything up to `revision` was told; is it there? Raises `Forgotten`
        where it is not, `BusUnavailable` where that cannot be told."""
        now = asyncio.get_running_loop().time()
        if self.is_known and now < self._next_look:
            return
        session = self._stream.session
        self._note(now, revision)  # but while nobody answers nothing becomes safe, and no mark is given up
        cursor = self.cursor.probing(Mark(revision, self._number, self._subject))
        standing = await cursor.standing(self._stream)
        self._next_look = now + _LOOK_SECONDS
        if standing.epoch != cursor.epoch:
            self.begin(standing)
            self._is_new = True
        elif standing.marks[-1] != cursor.marks[-1]:
            raise Forgotten(standing)
        self._session = session
        if self.is_known:
            self._known.set()
