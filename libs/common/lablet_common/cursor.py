"""How far a bridge has come, and by which messages in the stream this can be checked.

A stream that is flushed in the background acknowledges what a killed server, or a machine without power, loses: its last
messages, and only those. So the cursor says more than a revision. Each of its marks names a message of the stream as well:
as long as that one is there, so is everything that was acknowledged before it, and every change up to the mark's revision
has been told. Older marks are kept at growing distances, so that a bridge whose last mark fell with its message goes back
to the newest one that stands, and publishes again from there. Pure but for `standing`, which asks the stream.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from lablet_common.events import Outgoing

_DISTANCES = tuple(16 * 8**level for level in range(5))
"""In revisions, 16 to 65,536: for each of them a mark is kept that lies between once and twice as far back."""


class Present(NamedTuple):
    """A stream as it is."""

    epoch: str
    """Which one of its name: another, made later, has another."""
    first: int
    """Number of its oldest message, or of the next one where it is empty."""
    forgets: bool
    """It acknowledges what it has not written yet."""


class Latest(NamedTuple):
    """The last message under a subject; zeros where there is none."""

    number: int = 0
    sequence: int = 0
    """Revision of the change that it tells of."""


class EventLog(Protocol):
    """The stream of events, as its bridges see it."""

    @property
    def session(self) -> int:
        """Changes with each loss of the connection, and when the stream was made anew."""
        ...

    async def publish(self, outgoing: Outgoing, *, session: int | None = None) -> int:
        """Stores it and returns its number in the stream of events; a repeat has the number of the first, what goes into
        another stream 0. Nothing is sent in another `session` than the given one. Raises `BusUnavailable` and its kinds."""
        ...

    async def present(self) -> Present:
        """Raises `BusUnavailable`."""
        ...

    async def last(self, subject: str) -> Latest:
        """Raises `BusUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything up to `revision` was acknowledged before, or with, message `number`, which lies under `subject`."""

    revision: int
    number: int = 0
    """0: nothing had been published, so nothing can have been lost."""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Marks in the order of their revisions, at least one; the last is how far the bridge has come."""

    marks: tuple[Mark, ...]
    epoch: str = ""
    """Of the stream in which their messages lie."""
    safe: int = 0
    """Nobody will have to go back behind this revision: etcd may forget what came before."""
    again: int = 0
    """The bridge went back: what lies up to this revision may have been told before."""

    @property
    def revision(self) -> int:
        return self.marks[-1].revision

    def moved(self, mark: Mark, *, safe: int = 0, again: int = 0) -> Self:
        """With a newer mark; of the older ones those stay that are needed. Safe up to there, as far as a mark says so: one
        that was given up cannot be gone back to. (Of marks of one revision the older stays: its message is lost less easily.)
        """
        marks = self.marks if mark.revision == self.revision else (*self.marks, mark)
        sure = _newest(marks, safe)
        safe = max(self.safe, sure.revision if sure is not None else 0)
        return type(self)(thinned(marks, safe), self.epoch, safe, again)

    def probing(self, mark: Mark) -> Self:
        """To find out what stands of it: with all that was confirmed, and all marks."""
        return type(self)((*self.marks, mark), self.epoch, self.safe, self.again)

    def to_json(self) -> bytes:
        marks = [[mark.revision, mark.number, mark.subject] for mark in self.marks]
        said = {"revision": self.revision, "safe": self.safe, "again": self.again, "epoch": self.epoch, "marks": marks}
        return json.dumps(said).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Also one that holds a revision alone, as they were before there were marks."""
        read: dict[str, Any] = json.loads(text)
        marks = [Mark(*mark) for mark in read.get("marks", ())]
        revision = int(read["revision"])
        safe, again = read.get("safe", revision), read.get("again", 0)
        return cls(tuple(marks) or (Mark(revision),), read.get("epoch", ""), safe, again)

    async def standing(self, log: EventLog) -> Self:
        """As far as it can be relied upon: up to the newest mark whose message is there. Raises `BusUnavailable`.

        A message that was purged, or forgotten for its age, was there. So was everything in a stream that somebody deleted:
        in one made anew only what comes is told. Where no mark stands, the oldest says where to begin.
        """
        present = await log.present()
        if present.epoch != self.epoch:
            return type(self)((Mark(self.revision),), present.epoch, self.revision)
        if not present.forgets:
            return self
        for end in range(len(self.marks), 0, -1):
            mark = self.marks[end - 1]
            if not mark.number or mark.number < present.first or (await log.last(mark.subject)).number >= mark.number:
                return type(self)(self.marks[:end], self.epoch, min(self.safe, mark.revision), self.again)
        oldest = self.marks[0].revision
        return type(self)((Mark(oldest),), self.epoch, min(self.safe, oldest), self.again)


def thinned(marks: Sequence[Mark], safe: int = 0) -> tuple[Mark, ...]:
    """Of marks in the order of their revisions: the last two, the newest with another message than the last, and the newest
    up to the `safe` revision; for each distance the newest that is so far behind, and the first in the last's stretch of that
    length and in the one before, from which later ones of that distance come."""
    newest = marks[-1]
    other = next((mark for mark in reversed(marks) if mark.number != newest.number), None)
    wanted = [newest, other, _newest(marks, newest.revision - 1), _newest(marks, safe)]
    for distance in _DISTANCES:
        stretch = newest.revision // distance * distance
        wanted += [
            _newest(marks, newest.revision - distance),
            _first(marks, stretch - distance, stretch),
            _first(marks, stretch, stretch + distance),
        ]
    kept: dict[int, Mark] = {}
    for mark in wanted:
        if mark is not None:
            kept.setdefault(mark.revision, mark)
    return tuple(kept[revision] for revision in sorted(kept))


def _newest(marks: Sequence[Mark], revision: int) -> Mark | None:
    return next((mark for mark in reversed(marks) if mark.revision <= revision), None)


def _first(marks: Iterable[Mark], begin: int, end: int) -> Mark | None:
    return next((mark for mark in marks if begin <= mark.revision < end), None)
