"""How the connection is asked for."""

from typing import Any

import pytest

from lablet_common.bus import Bus, connection
from lablet_common.bus.connection import BusUnavailable, Connection
from lablet_common.settings import NatsSettings


class Recorder:
    """In the broker's place: what it was made with."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        self.servers, self.options = servers, options
        self.error_callback: Any = None


def test_a_lost_connection_is_tried_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_Broker", Recorder)
    settings = NatsSettings(url="nats://one:4222, nats://two:4222")
    made: Any = Connection(settings, "scheduler")._make_broker()
    assert made.servers == ["nats://one:4222", "nats://two:4222"]
    assert (made.options["allow_reconnect"], made.options["max_reconnect_attempts"]) == (True, -1)
    assert made.error_callback is not None, "FastStream's own ends the reconnecting"


async def test_a_login_in_the_servers_address_is_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood in the log of each start, at /readyz, and in what clients were answered while NATS was away."""
    url = "nats://scheduler:s3cr3t@one:4222, tls://u:p@ss:w0rd@two:4222,three"
    settings = NatsSettings(url=url)
    assert settings.shown == "nats://one:4222,tls://two:4222,three"
    bus = Bus(settings, "scheduler")
    with pytest.raises(ConnectionError) as at_readyz:
        await bus.look()
    with pytest.raises(BusUnavailable) as in_answers:
        _ = bus.connection.js
    assert "s3cr3t" not in f"{at_readyz.value} {in_answers.value} {bus.connection.url}"
    monkeypatch.setattr(connection, "_Broker", Recorder)
    made: Any = bus.connection._make_broker()
    assert made.servers == [part.strip() for part in url.split(",")], "the client needs it"
