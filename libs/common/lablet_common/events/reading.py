"""What a consumer reads off an event: its data, its resource, its place in the order."""

import json
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from lablet_common.events.binding import InvalidEvent
from lablet_common.events.catalogue import EVENTS
from lablet_common.resources.model import Resource

SEQUENCE_DIGITS = 20
_MOST_DIGITS = 100
"""Of a stranger's sequence; from 4300 on, Python reads no number."""


def data_of(event: CloudEvent) -> dict[str, Any]:
    """The data as an object, whether it still lies there as JSON text or not; empty where there is none. Raises
    `InvalidEvent` for anything else."""
    data: Any = event.get_data()
    if data is None:
        return {}
    if isinstance(data, bytes | str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidEvent(f"the data of {event.get_id()} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidEvent(f"the data of {event.get_id()} is not an object")
    return data


def resource_of(event: CloudEvent) -> Resource[Any, Any] | None:
    """The resource that a state event carries; None where the event carries none (an intent, a scaling note, or a body
    that was left to `dataref`). Raises `InvalidEvent` for data that does not fit the type."""
    known = EVENTS.get(event.get_type())
    if known is None or not issubclass(known.data, Resource) or event.get_data() is None:
        return None
    data = {key: value for key, value in data_of(event).items() if key != "previousPhase"}
    try:
        return known.data.model_validate(data)
    except ValueError as error:
        raise InvalidEvent(f"the data of {event.get_id()} is no {known.kind}: {error}") from error


def kind_and_id(event: CloudEvent) -> tuple[str, str]:
    """`<kind>/<id>` of the event's subject, taken apart; empty texts where there is none."""
    kind, _, resource_id = (event.get_subject() or "").partition("/")
    return kind, resource_id


def sequence_of(event: CloudEvent) -> int:
    """The revision of the commit that the event tells of; 0 where it says none. Raises `InvalidEvent` for nonsense."""
    sequence = event.get_extension("sequence")
    if sequence is None:
        return 0
    digits = str(sequence)
    if not digits.isdecimal():
        raise InvalidEvent(f"the sequence {sequence!r} is not a number")
    if len(digits) > _MOST_DIGITS:
        raise InvalidEvent(f"the sequence has {len(digits)} digits; the most is {_MOST_DIGITS}")
    return int(digits)


def is_intent(event: CloudEvent) -> bool:
    known = EVENTS.get(event.get_type())
    return known is not None and known.intent
