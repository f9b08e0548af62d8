"""How the connection is asked for."""

from typing import Any

import pytest

from lablet_common.bus import connection
from lablet_common.bus.connection import Connection
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
