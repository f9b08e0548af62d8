"""The drop rule: an event whose sequence is not above the last one seen for its subject tells nothing new.

Holds for state events, whose sequences are revisions of the store. An intent or an event without a sequence is never
dropped. Bounded: what has not been heard of for longest is forgotten first, and then taken as new once more.
"""

from collections import OrderedDict

from cloudevents.core.v1.event import CloudEvent

from lablet_common.events.reading import is_intent, sequence_of

_LIMIT = 100_000


class Seen:
    """What one consumer has dealt with. Ask `is_new` before, `note` after success: a failed event may come again."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()

    def is_new(self, event: CloudEvent) -> bool:
        sequence = sequence_of(event)
        return sequence == 0 or is_intent(event) or sequence > self._last.get(_key(event), 0)

    def note(self, event: CloudEvent) -> None:
        sequence = sequence_of(event)
        if sequence == 0 or is_intent(event):
            return
        key = _key(event)
        self._last[key] = max(sequence, self._last.get(key, 0))
        self._last.move_to_end(key)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)


def _key(event: CloudEvent) -> tuple[str, str]:
    """Subject and the kind in the type: a worker's commit may tell of the worker and of its scaling."""
    parts = event.get_type().split(".")
    return (event.get_subject() or "", parts[2] if len(parts) > 2 else "")
