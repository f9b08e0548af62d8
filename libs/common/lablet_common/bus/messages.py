"""Messages as they lie in NATS: what is published, what is received, what is given up on.

A dead letter keeps the original payload and headers as they were, so it can be replayed to the byte (and is still a
CloudEvent); what is known about its end stands in headers `Lablet-Dead-*`. Ends of lines inside of a header, which a server
lets pass and which would become further headers, are percent-encoded. Where all that is too large for a message, the letter
is kept without its payload, or without its headers too, and says so: then it cannot be replayed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Self

from cloudevents.core.v1.event import CloudEvent

from lablet_common.events.binding import decode, decode_value, encode, encode_value
from lablet_common.events.derive import Outgoing
from lablet_common.events.reading import kind_and_id, sequence_of

MESSAGE_ID = "Nats-Msg-Id"
TRACE_PARENT = "traceparent"
"""The hop's trace context; the origin's stands in the event's extension of the same name."""

_DEAD = "Lablet-Dead-"
_REASON_LIMIT = 2000
_ID_LIMIT = 256
_SAYING_WHAT_IT_WAS = ("ce-id", "ce-type", "ce-source", "ce-subject")


class Received(NamedTuple):
    """An event as a handler gets it. (A tuple, which is made in a third of the time.)"""

    event: CloudEvent
    kind: str
    """Of the event's subject, `<kind>/<id>`."""
    id: str
    sequence: int
    """Revision of the commit that it tells of; 0 where the event says none."""
    subject: str
    """The NATS subject."""
    deliveries: int = 1
    """This one included."""
    stream_sequence: int = 0
    trace_parent: str | None = None
    """Of the hop."""

    @property
    def key(self) -> str:
        """What is handled one at a time."""
        return self.event.get_subject() or self.subject


def publishable(outgoing: Outgoing, trace_parent: str | None) -> tuple[dict[str, str], bytes]:
    """Headers and payload of an outgoing event. Raises `InvalidEvent`."""
    headers, payload = encode(outgoing.event)
    headers[MESSAGE_ID] = outgoing.msg_id
    if trace_parent is not None:
        headers[TRACE_PARENT] = encode_value(trace_parent)  # it may be one that somebody has imported
    return headers, payload


def received(
    subject: str,
    headers: Mapping[str, str] | None,
    payload: bytes,
    *,
    deliveries: int = 1,
    stream_sequence: int = 0,
    raw: bool = False,
) -> Received:
    """The event in a message; `raw`: its data as they came. Raises `InvalidEvent`."""
    event = decode(headers, payload, raw=raw)
    kind, resource_id = kind_and_id(event)
    return Received(
        event=event,
        kind=kind,
        id=resource_id,
        sequence=sequence_of(event),
        subject=subject,
        deliveries=deliveries,
        stream_sequence=stream_sequence,
        trace_parent=(headers or {}).get(TRACE_PARENT),
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up on, and why."""

    subject: str
    """Where it had been published."""
    headers: Mapping[str, str]
    payload: bytes
    stream: str
    stream_sequence: int
    consumer: str
    reason: str
    attempts: int
    at: datetime
    without: str = ""
    """What of the original it was kept without; empty: it is whole and can be replayed."""

    @property
    def id(self) -> str:
        """The same however often it is written."""
        return hashlib.sha256(f"{self.stream}\0{self.consumer}\0{self.stream_sequence}".encode()).hexdigest()[:40]

    def message(self) -> tuple[dict[str, str], bytes]:
        """Headers and payload for the dead letter queue."""
        told = {
            "Subject": self.subject,
            "Stream": self.stream,
            "Sequence": str(self.stream_sequence),
            "Consumer": self.consumer,
            "Reason": self.reason[:_REASON_LIMIT],
            "Attempts": str(self.attempts),
            "At": self.at.isoformat(),
        } | ({"Without": self.without} if self.without else {})
        headers = {
            _on_one_line(name): _on_one_line(value)
            for name, value in self.headers.items()
            if not name.lower().startswith("nats-")
        }
        headers |= {f"{_DEAD}{name}": encode_value(value) for name, value in told.items()}
        headers[MESSAGE_ID] = self.id
        return headers, self.payload

    def lighter(self) -> "tuple[DeadLetter, DeadLetter]":
        """The letter without its payload, and without its headers too but for the beginnings of those that say what it was:
        for where the whole leaves no room."""
        size = len(self.payload)
        few = {name: value[:_ID_LIMIT] for name, value in self.headers.items() if name.lower() in _SAYING_WHAT_IT_WAS}
        told = f"{sum(map(len, self.headers.values()))} characters of headers and {size} bytes of payload"
        return (
            self._without("payload", f"without its {size} bytes of payload", self.headers),
            self._without("headers and payload", f"without its {told}", few),
        )

    def _without(self, what: str, told: str, headers: Mapping[str, str]) -> "DeadLetter":
        reason = f"({told}, which leave no room for this) {self.reason}"
        return replace(self, headers=headers, payload=b"", reason=reason, without=what)

    def original(self) -> tuple[str, dict[str, str], bytes]:
        """Subject, headers and payload for a replay. It gets no message id: the broker must not take it for a repeat."""
        return self.subject, dict(self.headers), self.payload

    @classmethod
    def parse(cls, headers: Mapping[str, str], payload: bytes | None) -> Self:
        """The dead letter in a message of the queue (nats-py has None for no payload). Raises `KeyError` or `ValueError` for
        one that is none."""
        told = {name[len(_DEAD) :]: decode_value(value) for name, value in headers.items() if name.startswith(_DEAD)}
        kept = {
            name: value
            for name, value in headers.items()
            if not name.startswith(_DEAD) and not name.lower().startswith("nats-")
        }
        return cls(
            subject=told["Subject"],
            headers=kept,
            payload=payload or b"",
            stream=told["Stream"],
            stream_sequence=int(told["Sequence"]),
            consumer=told["Consumer"],
            reason=told["Reason"],
            attempts=int(told["Attempts"]),
            at=datetime.fromisoformat(told["At"]),
            without=told.get("Without", ""),
        )


def _on_one_line(text: str) -> str:
    return text.replace("\r", "%0D").replace("\n", "%0A")
