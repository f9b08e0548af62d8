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

from lablet_common.bus import EVENTS_STREAM, Bus, client, intents_stream, streams
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
