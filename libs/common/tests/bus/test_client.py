"""The client's own loops do what nats-py's do."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from lablet_common.bus import EVENTS_STREAM, Bus, client, intents_stream
from lablet_common.bus.client import StoringClient
from lablet_common.bus.messages import publishable
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
