"""Dead letters keep the original; streams and subjects belong together."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from lablet_common.bus import BusUnavailable, DeadLetter, MemoryBus
from lablet_common.bus.messages import publishable, received
from lablet_common.bus.streams import INTENTS, stream_of, used_by
from lablet_common.events import Outgoing, data_of
from lablet_common.events.subjects import matches
from lablet_common.resources import Service

Make = Callable[..., Outgoing]


def test_a_dead_letter_comes_back_as_it_was_written(make: Make) -> None:
    out = make()
    headers, payload = publishable(out, "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    letter = DeadLetter(
        out.subject,
        headers,
        payload,
        "INTENTS_SCHEDULER",
        7,
        "scheduler-east",
        "ValueError: é\n2",
        6,
        datetime.now(UTC),
    )
    written, body = letter.message()
    assert all(value.isascii() and "\n" not in value for value in written.values())
    again = DeadLetter.parse(written, body)
    assert again.reason == letter.reason
    assert (again.attempts, again.stream_sequence, again.at) == (6, 7, letter.at)
    subject, kept, data = again.original()
    assert subject == out.subject
    assert "Nats-Msg-Id" not in kept
    assert received(subject, kept, data).event.get_id() == out.event.get_id()


def test_a_dead_letter_is_still_an_event(make: Make) -> None:
    out = make()
    headers, payload = publishable(out, None)
    letter = DeadLetter(out.subject, headers, payload, "S", 1, "c", "r", 1, datetime.now(UTC))
    assert data_of(received("x", *letter.message()).event) == {"reason": "rain"}


def test_every_subject_belongs_to_the_stream_that_takes_it() -> None:
    for service in Service:
        subject = f"lablet.intent.{service}.east.worker.w"
        assert stream_of(subject) == INTENTS[service].name
        assert any(matches(one, subject) for one in INTENTS[service].subjects)
    assert stream_of("lablet.event.a.worker.-.w") == "EVENTS"
    assert stream_of("lablet.ingress.a.worker") == "INGRESS"
    assert stream_of("lablet.dlq.scheduler.c") == "DLQ"
    with pytest.raises(ValueError, match="no stream"):
        stream_of("elsewhere.a")


def test_intent_streams_are_named_after_their_owner() -> None:
    assert INTENTS[Service.WORKERS].name == "INTENTS_WORKER_CONTROLLER"
    assert [stream.name for stream in used_by(Service.SCHEDULER)] == ["INTENTS_SCHEDULER", "EVENTS", "DLQ"]


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.c.d", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.b", "a.b", True),
        ("a.b.c", "a.b", False),
    ],
)
def test_filters_match_as_the_server_does_it(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits


async def test_the_twin_refuses_while_it_is_away(make: Make) -> None:
    bus = MemoryBus()
    bus.connected = False
    with pytest.raises(BusUnavailable, match="away"):
        await bus.publish(make())
    assert bus.published == []


def test_a_trace_of_an_imported_resource_makes_no_further_header(make: Make) -> None:
    """W3C's own reader takes an end of a line at its end. No message could hold it, and its bridge tried for ever."""
    headers, _ = publishable(make(), f"01-{'a' * 32}-{'b' * 16}-00-x\n")
    assert headers["traceparent"].endswith("-00-x%0A")
    plain = f"00-{'a' * 32}-{'b' * 16}-01"
    assert publishable(make(), plain)[0]["traceparent"] == plain
