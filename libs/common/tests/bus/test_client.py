"""The client's own loops do what nats-py's do."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from lablet_common.bus import EVENTS_STREAM, Bus, RetryPolicy, client, intents_stream, streams
from lablet_common.bus.client import StoringClient
from lablet_common.bus.connection import TooLarge
from lablet_common.bus.messages import DeadLetter, publishable
from lablet_common.events import Outgoing
from lablet_common.resources import Service

Make = Callable[..., Outgoing]
STREAM = intents_stream(Service.SCHEDULER)

pieces = st.sampled_from(
    [b"ce-id", b"Nats-Msg-Id", b":", b": ", b"\r\n", b" ", b"\t", b"v", "\u00e9".encode(), b"\xff"]
)


@given(st.lists(pieces | st.binary(max_size=4), max_size=12).map(b"".join))
def test_headers_are_read_as_nats_py_reads_them(raw: bytes) -> None:
    for _ in range(2):  # the second time its names are remembered
        assert StoringClient._parse_header_lines(raw) == Client._parse_header_lines(raw)


def test_only_so_many_names_are_remembered() -> None:
    for number in range(2000):
        assert StoringClient._parse_header_lines(b"x%d: y\r\n" % number) == {f"x{number}": "y"}
    assert len(client._names) < 1000


@pytest.mark.integration
async def test_what_is_stored_arrives_with_its_headers(gateway_bus: Bus, make: Make) -> None:
    headers, payload = publishable(make("r", 3), "00-1-2-01")
    await gateway_bus.connection.client.store(
        "lablet.intent.scheduler.-.x.y", headers, payload, stream=STREAM, within=5
    )
    found = await gateway_bus.connection.js.get_last_msg(STREAM, "lablet.intent.scheduler.-.x.y")
    assert found.data == payload
    assert {name: found.headers[name] for name in headers} == headers


class _Headers(dict[str, str]):
    """Can be held weakly."""


@pytest.mark.integration
async def test_what_is_not_acknowledged_in_time_is_let_go_at_once(gateway_bus: Bus) -> None:
    """Without anybody who looks for circles: services have Python look for them seldom."""
    connected = gateway_bus.connection.client
    await connected.store("lablet.intent.scheduler.-.x.y", {}, b"{}", stream=STREAM, within=5)
    headers = _Headers()
    held = weakref.ref(headers)
    gc.disable()
    try:
        late = await asyncio.gather(
            connected.store("lablet.intent.scheduler.-.x.y", headers, b"{}", stream=STREAM, within=0),
            return_exceptions=True,
        )
        assert isinstance(late.pop(), TimeoutError)
        del headers, late
        for _ in range(3):  # the loop itself holds what it is just calling
            await asyncio.sleep(0)
        assert held() is None
    finally:
        gc.enable()
    assert not connected._unacknowledged


@pytest.mark.integration
async def test_what_no_stream_or_the_wrong_one_takes_is_refused(gateway_bus: Bus) -> None:
    connected = gateway_bus.connection.client
    with pytest.raises(NoStreamResponseError):
        await connected.store("lablet.intent.nobody.-.x.y", {}, b"{}", stream=STREAM, within=5)
    with pytest.raises(APIError, match="expected stream"):
        await connected.store("lablet.intent.scheduler.-.x.y", {}, b"{}", stream=EVENTS_STREAM, within=5)
    assert not connected._unacknowledged


@pytest.mark.integration
@pytest.mark.parametrize("value", ["a\r\nNats-Msg-Id: b", "a\nb", "a\rb"])
async def test_no_value_becomes_another_header(gateway_bus: Bus, value: Any) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        await gateway_bus.connection.client.store(
            "lablet.intent.scheduler.-.x.y", {"ce-id": value}, b"{}", stream=STREAM, within=5
        )


@pytest.mark.integration
async def test_headers_count_for_what_the_server_takes_and_the_connection_stays(gateway_bus: Bus, make: Make) -> None:
    """The server would close the connection on it, again at each try."""
    large = make("r", 3, correlationid="x" * 900_000)
    headers, _ = publishable(large, None)
    connected = gateway_bus.connection.client
    with pytest.raises(nats.errors.MaxPayloadError):
        await connected.store("lablet.intent.scheduler.-.x.y", headers, b"x" * 200_000, stream=STREAM, within=5)
    with pytest.raises(TooLarge):
        await gateway_bus.publish(make("r", 4, correlationid="x" * 1_100_000))
    with pytest.raises(TooLarge):
        await gateway_bus.tell(make("r", 6, correlationid="x" * 1_048_000))
    await gateway_bus.publish(make("r", 5))
    assert connected.stats["reconnects"] == 0


@pytest.mark.integration
async def test_a_dead_letter_that_has_no_room_for_its_end_leaves_its_payload_out(gateway_bus: Bus) -> None:
    letter = DeadLetter(
        subject="lablet.ingress.acme.x", headers={"ce-id": "e"}, payload=b"x" * 1_048_300, stream="INGRESS",
        stream_sequence=7, consumer="api-gateway", reason="no event", attempts=5, at=datetime(2027, 3, 1, tzinfo=UTC),
    )  # fmt: skip
    await gateway_bus.bury(letter)
    found = await gateway_bus.connection.js.get_last_msg(streams.DLQ_STREAM, "lablet.dlq.api-gateway.api-gateway")
    kept = DeadLetter.parse(found.headers, found.data)
    assert (kept.payload, kept.subject) == (b"", letter.subject)
    assert kept.reason.startswith("(without its 1048300 bytes of payload")
    assert kept.reason.endswith("no event")


@pytest.mark.integration
async def test_a_dead_letter_whose_headers_leave_no_room_keeps_what_says_what_it_was(gateway_bus: Bus) -> None:
    letter = DeadLetter(
        subject="lablet.ingress.acme.x", headers={"ce-id": "e" * 500, "Ce-Type": "t", "x": "x" * 64_900}, payload=b"y",
        stream="INGRESS", stream_sequence=8, consumer="api-gateway", reason="no event", attempts=5,
        at=datetime(2027, 3, 1, tzinfo=UTC),
    )  # fmt: skip
    await gateway_bus.bury(letter)
    found = await gateway_bus.connection.js.get_last_msg(streams.DLQ_STREAM, "lablet.dlq.api-gateway.api-gateway")
    kept = DeadLetter.parse(found.headers, found.data)
    assert (kept.payload, kept.headers, kept.without) == (
        b"",
        {"ce-id": "e" * 256, "Ce-Type": "t"},
        "headers and payload",
    )
    assert kept.reason.startswith("(without its 65401 characters of headers and 1 bytes of payload")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"ce-source": "%FF"}, {"ce-source": "%FF"}),
        ({"x": "a\nb"}, {"x": "a%0Ab"}),
        ({"x": "a\rb"}, {"x": "a%0Db"}),
        ({"a\nb": "x"}, {}),
        ({"ce-id": "%01" * 21_780, "x": "kept out"}, {"ce-id": ("%01" * 86)[:256]}),
    ],
    ids=["no UTF-8", "line feed", "carriage return", "in a name", "grows"],
)
async def test_no_header_of_a_stranger_ends_a_consumer(
    gateway_bus: Bus, make: Make, until: Any, running: Any, headers: dict[str, str], kept: dict[str, str]
) -> None:
    got: list[str] = []

    async def handler(message: Any) -> None:
        got.append(message.id)

    consumer = gateway_bus.consumer(STREAM, "c", ["lablet.intent.scheduler.>"], handler, ack_wait=1.0)
    block = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    async with asyncio.timeout(15), running(consumer):
        client = gateway_bus.connection.client
        command = f"HPUB lablet.intent.scheduler.east.x.y {len(block)} {len(block) + 2}\r\n{block}{{}}\r\n"
        await client._send_command(command.encode())
        await client.flush()
        await gateway_bus.publish(make("good"))
        await until(lambda: got)
        js = gateway_bus.connection.js
        while (await js.stream_info(streams.DLQ_STREAM)).state.messages == 0:
            await asyncio.sleep(0.02)
        await until(lambda: consumer.pulling)
        while (await js.consumer_info(STREAM, "c")).num_ack_pending:
            await asyncio.sleep(0.02)
    assert got == ["good"]
    found = await js.get_last_msg(streams.DLQ_STREAM, "lablet.dlq.api-gateway.c")
    letter = DeadLetter.parse(found.headers, found.data)
    assert "not a valid event" in letter.reason
    assert {name.lower(): value for name, value in letter.headers.items()} == kept


@pytest.mark.integration
async def test_who_cannot_be_told_of_a_dead_letter_does_not_make_it_come_again_for_ever(
    gateway_bus: Bus, make: Make, until: Any, running: Any
) -> None:
    told: list[str] = []

    async def handler(_: Any) -> None:
        raise ValueError("no")

    async def buried(letter: DeadLetter) -> None:
        told.append(letter.reason)
        raise ValueError("the answer is too large")

    policy = RetryPolicy(pauses=())
    consumer = gateway_bus.consumer(
        STREAM, "c", ["lablet.intent.scheduler.>"], handler, policy=policy, ack_wait=0.4, buried=buried
    )
    js = gateway_bus.connection.js
    async with running(consumer):
        await gateway_bus.publish(make())
        await until(lambda: len(told) == 5)
        while (await js.consumer_info(STREAM, "c")).num_ack_pending:
            await asyncio.sleep(0.02)
    assert told == ["ValueError: no"] * 5
    assert (await js.stream_info(streams.DLQ_STREAM)).state.messages == 1
