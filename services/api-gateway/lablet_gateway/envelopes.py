"""CloudEvents over HTTP, coming in: binary, structured and batch, by the HTTP binding of CloudEvents 1.0.

The reading itself is done by the codec of the NATS binding, whose two modes differ from HTTP's only in where
`datacontenttype` stands. Each event of a batch is read by itself, so that a bad one does not spoil the others.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lablet_common.events import CloudEvent, InvalidEvent
from lablet_common.events.binding import CONTENT_TYPE, PREFIX, STRUCTURED_JSON, decode, from_document
from lablet_gateway import problems
from lablet_gateway.problems import Refused, field_error

BATCH = "application/cloudevents-batch+json"
MAX_BATCH = 1000
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""JSON's way to write halves of surrogate pairs, which need not stand together."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """One event as it came: read, or with what is wrong with it."""

    event: CloudEvent | None
    refused: Refused | None = None
    id: str | None = None
    source: str | None = None


def read(headers: Mapping[str, str], body: bytes) -> tuple[list[Inbound], bool]:
    """The events of a request, and whether it is a batch. Raises 415 and 422 when nothing of it can be read."""
    lowered = {name.lower(): value for name, value in headers.items()}
    content_type = lowered.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == BATCH:
        halves = _HALF.search(body) is not None
        return [_unwritable(item) if halves and not _is_unicode(item) else _one(item) for item in _items(body)], True
    if media_type == STRUCTURED_JSON:
        return [_decoded({CONTENT_TYPE: content_type}, body)], False
    attributes = {name: value for name, value in lowered.items() if name.startswith(PREFIX)}
    if not attributes:
        raise problems.UNSUPPORTED_MEDIA(
            f"send a CloudEvent: ce- headers, {STRUCTURED_JSON} or {BATCH}",
            errors=[field_error("Content-Type", f"{media_type or 'nothing'} carries no CloudEvent")],
        )
    if content_type:
        attributes["ce-datacontenttype"] = content_type
    return [_decoded(attributes, body)], False


def _items(body: bytes) -> list[Any]:
    try:
        items = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise problems.invalid("body", f"the batch is not JSON: {error}") from error
    if not isinstance(items, list):
        raise problems.invalid("body", "a batch is a JSON array of events")
    if len(items) > MAX_BATCH:
        raise problems.TOO_LARGE(f"{len(items)} events; the most in one batch is {MAX_BATCH}")
    return items


def _one(item: Any) -> Inbound:
    if not isinstance(item, dict):
        return Inbound(None, problems.invalid("body", "an event is a JSON object"))
    event_id, source = item.get("id"), item.get("source")
    inbound = _read_as(lambda: from_document(item))
    return Inbound(
        inbound.event,
        inbound.refused,
        event_id if isinstance(event_id, str) else None,
        source if isinstance(source, str) else None,
    )


def _is_unicode(item: Any) -> bool:
    try:
        return bool(json.dumps(item, ensure_ascii=False).encode())
    except (UnicodeEncodeError, RecursionError):
        return False


def _unwritable(item: Any) -> Inbound:
    """Its answer names what can be written of it."""
    refused = problems.invalid("body", "the event holds text that is not valid Unicode")
    named = {name: item.get(name) for name in ("id", "source")} if isinstance(item, dict) else {}
    sound = {name: value for name, value in named.items() if isinstance(value, str) and _is_unicode(value)}
    return Inbound(None, refused, **sound)


def _decoded(headers: Mapping[str, str], body: bytes) -> Inbound:
    return _read_as(lambda: decode(headers, body))


def _read_as(read: Callable[[], CloudEvent]) -> Inbound:
    try:
        event = read()
    except InvalidEvent as error:
        return Inbound(None, problems.invalid("body", str(error)))
    return Inbound(event, None, event.get_id(), event.get_source())
