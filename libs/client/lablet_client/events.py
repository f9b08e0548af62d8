"""CloudEvents over the API: follow what happens, look up what happened, and send.

`watch` goes on for ever: a broken connection is made again and resumes after the last event that was seen, so that
nothing is missing and nothing comes twice. Only when the server no longer has that place it says so (`Gone`).
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lablet_client.errors import Gone, Invalid, TooManyRequests, Unavailable, Unreachable
from lablet_client.sse import Parser
from lablet_client.transport import Transport

_STANDARD = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"}
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
BATCH = "application/cloudevents-batch+json"


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent. `extensions` holds `sequence`, `correlationid`, `traceparent` and the like, all as text."""

    id: str
    source: str
    type: str
    subject: str = ""
    time: datetime | None = None
    data: Any = None
    extensions: Mapping[str, str] = field(default_factory=dict)
    position: str | None = field(default=None, compare=False)
    """Its place in the stream, for resuming after it."""

    @property
    def fact(self) -> str:
        """`io.lablet.reservation.scheduled.v1` → `reservation.scheduled`."""
        return self.type.removeprefix("io.lablet.").removesuffix(".v1")

    @classmethod
    def parse(cls, document: Mapping[str, Any], position: str | None = None) -> "Event":
        """From the structured form. Raises `KeyError` where id, source or type is missing."""
        moment = document.get("time")
        return cls(
            id=str(document["id"]),
            source=str(document["source"]),
            type=str(document["type"]),
            subject=str(document.get("subject") or ""),
            time=datetime.fromisoformat(moment) if moment else None,
            data=document.get("data"),
            extensions={name: str(value) for name, value in document.items() if name not in _STANDARD},
            position=position,
        )

    def document(self) -> dict[str, Any]:
        """The structured form."""
        body: dict[str, Any] = {"specversion": "1.0", "id": self.id, "source": self.source, "type": self.type}
        if self.subject:
            body["subject"] = self.subject
        if self.time is not None:
            body["time"] = self.time.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if self.data is not None:
            body |= {"datacontenttype": "application/json", "data": self.data}
        return body | dict(self.extensions)


def new_event(
    kind: str, subject: str, data: Any, *, source: str = "/lablet/client", event_id: str | None = None
) -> Event:
    """An event to send; `kind` is its full type or what stands between `io.lablet.` and `.v1`."""
    full = kind if kind.count(".") > 2 and kind.endswith(".v1") else f"io.lablet.{kind}.v1"
    return Event(event_id or str(uuid.uuid4()), source, full, subject, datetime.now(UTC), data)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events: all that is given must match."""

    kind: str | None = None
    id: str | None = None
    correlation: str | None = None
    label: str | None = None

    def params(self) -> dict[str, str | None]:
        return {"kind": self.kind, "id": self.id, "correlation": self.correlation, "label": self.label}


class _Latest:
    """Drops what is not above the last sequence of its subject: after a reconnection a bridge may have sent it again."""

    def __init__(self, remembered: int = 20_000) -> None:
        self._last: dict[tuple[str, str], int] = {}
        self._remembered = remembered

    def is_news(self, event: Event) -> bool:
        sequence = int(event.extensions.get("sequence") or 0)
        if not sequence:
            return True
        subject = (event.fact.partition(".")[0], event.subject)
        if sequence <= self._last.get(subject, 0):
            return False
        self._last.pop(subject, None)
        self._last[subject] = sequence
        if len(self._last) > self._remembered:
            del self._last[next(iter(self._last))]
        return True


class Events:
    """`/events` and `/events/stream`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def watch(
        self,
        filter: Filter | None = None,  # noqa: A002 - the word that the API uses
        *,
        after: str | None = None,
        on_state: Callable[[bool], None] | None = None,
        on_reset: Callable[[], None] | None = None,
    ) -> AsyncIterator[Event]:
        """Events as they happen, for ever; `after` resumes behind a position. `on_state` is told whenever the stream is
        connected (True) or lost (False), `on_reset` when the server has lost the place to resume from, so that events
        may be missing (without it that is raised, as `Gone`). Raises `Unauthorized`, `Forbidden`, `Invalid`."""
        params = (filter or Filter()).params()
        pause = _FIRST_PAUSE
        latest = _Latest()
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
            try:
                async with self._transport.stream("/events/stream", params=params, headers=headers) as response:
                    if on_state is not None:
                        on_state(True)
                    parser = Parser(last_id=after)
                    async for line in response.aiter_lines():
                        pause = _FIRST_PAUSE
                        for message in parser.feed(line.rstrip("\r\n")):
                            after = message.id
                            if message.event == "reset":
                                if on_reset is None:
                                    raise Gone(410, {"detail": "the stream has begun anew: events may be missing"})
                                latest = _Latest()
                                on_reset()
                                continue
                            event = Event.parse(json.loads(message.data), message.id)
                            if latest.is_news(event):
                                yield event
                        if not line:
                            after = parser.last_id  # heartbeats name the place too, where there is nothing to hear
            except (Unreachable, Unavailable, TooManyRequests):
                pass  # a stream is made again for ever; the caller sees it by on_state
            if on_state is not None:
                on_state(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def history(self, subject: str, *, limit: int = 10_000) -> tuple[Event, ...]:
        """The events of one resource (`reservation/rsv-…`) in order, each once."""
        params = {"subject": subject, "limit": limit}
        body = (await self._transport.call("GET", "/events", params=params)).json()
        return tuple(Event.parse(item) for item in body)

    async def publish(self, *events: Event) -> Sequence[Mapping[str, Any]]:
        """Sends events as one batch; for each its result: the request and resource it opened, or its `problem`. Source
        and id of an event are its idempotency key. Raises only when the batch as a whole was refused."""
        documents = [event.document() for event in events]
        content = json.dumps(documents).encode()
        try:
            body = (await self._transport.call("POST", "/events", content=content, media_type=BATCH)).json()
        except Invalid as error:
            refused = error.extension("results")
            if not isinstance(refused, list):
                raise
            return refused
        results: Sequence[Mapping[str, Any]] = body["results"]
        return results
