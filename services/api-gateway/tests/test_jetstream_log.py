"""The log of events on a real server, before anybody has told anything."""

from pathlib import Path

import pytest

from lablet_common.bus import EVENTS_STREAM, Bus
from lablet_common.resources import Service
from lablet_common.settings import NatsSettings
from lablet_common.testing.nats import NatsServer
from lablet_gateway.jetstream import JetStreamLog

pytestmark = pytest.mark.integration


async def test_the_bounds_of_a_log_that_is_not_there_yet_are_those_of_an_empty_one(tmp_path: Path) -> None:
    """A subscription that was made in the first second of a new installation was answered that NATS does not answer."""
    with NatsServer.start(tmp_path / "nats", sync_always=False) as server:
        bus = Bus(NatsSettings(url=server.url), Service.GATEWAY)
        await bus.connect()
        try:
            js = bus.connection.js
            if EVENTS_STREAM in {one.config.name for one in await js.streams_info()}:
                await js.delete_stream(EVENTS_STREAM)
            bounds = await JetStreamLog(bus).bounds()
            assert bounds.last == 0
            assert bounds == await JetStreamLog(bus).bounds()
        finally:
            await bus.close()
