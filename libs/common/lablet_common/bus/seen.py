"""The drop rule: an event whose sequence is not above the last one seen for its subject tells nothing new.

Holds for state events, whose sequences are revisions of the store. An intent or an event without a sequence is never
dropped. Bounded: what has not been heard of for longest is forgotten first, and then taken as new once more.
"""

import sys
from collections import OrderedDict

from cloudevents.core.v1.event import CloudEvent

from lablet_common.events.reading import is_intent, sequence_of

_LIMIT = 10_000
"""Subjects of a kind that one consumer remembers: what the kind's bridge may at most publish again (its backlog), at 250
bytes each."""
Place = tuple[tuple[str, str], int]


class Seen:
    """What one consumer has dealt with: `limit` subjects of each kind, as each kind has a bridge of its own. Ask `is_new`
    before, `note` after success: a failed event may come again."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._last: dict[str, OrderedDict[str, int]] = {}

    def is_new(self, event: CloudEvent) -> bool:
        return self.is_above(place_of(event))

    def note(self, event: CloudEvent) -> None:
        self.note_place(place_of(event))

    def is_above(self, place: Place) -> bool:
        """As `is_new`, of an event whose place is known."""
        (subject, kind), sequence = place
        if sequence == 0:
            return True
        last = self._last.get(kind)
        return last is None or sequence > last.get(subject, 0)

    def note_place(self, place: Place) -> None:
        """As `note`, of an event whose place is known."""
        (subject, kind), sequence = place
        if sequence == 0:
            return
        last = self._last.setdefault(kind, OrderedDict())
        last[subject] = max(sequence, last.get(subject, 0))
        last.move_to_end(subject)
        if len(last) > self._limit:
            last.popitem(last=False)


def place_of(event: CloudEvent) -> Place:
    """What is followed, by subject and the kind in the type (a worker's commit may tell of the worker and of its scaling),
    and the event's sequence in it; 0 for one that is never dropped. Raises `InvalidEvent` for a sequence that is none."""
    sequence = sequence_of(event)
    parts = event.get_type().split(".")
    key = event.get_subject() or "", sys.intern(parts[2]) if len(parts) > 2 else ""
    return key, 0 if is_intent(event) else sequence
