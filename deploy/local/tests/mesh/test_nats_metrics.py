"""What is told of NATS to Prometheus: by the first server that answers, and that none does."""

import json
from urllib.error import URLError

import pytest

from lablet_local import nats_metrics
from lablet_local.nats_metrics import NatsMetrics

VARZ = {"connections": 7}
JSZ = {"account_details": [{"stream_detail": [{"name": "EVENTS", "state": {"messages": 3}, "consumer_detail": []}]}]}


@pytest.fixture
def servers(monkeypatch):
    """Addresses that answer."""
    up: set[str] = set()

    def ask(monitor, path):
        if monitor not in up:
            raise URLError("refused")
        return json.loads(json.dumps(VARZ if path == "/varz" else JSZ))

    monkeypatch.setattr(nats_metrics, "ask", ask)
    return up


def told(*monitors: str) -> dict[str, float]:
    return {sample.name: sample.value for one in NatsMetrics(*monitors).collect() for sample in one.samples}


def test_of_several_servers_the_first_that_answers_tells(servers):
    servers.add("http://nats-2:8222")
    assert told("http://nats:8222", "http://nats-2:8222/") == {
        **told("http://nats-2:8222"),
        "nats_up": 1,
        "gnatsd_varz_connections": 7,
        "jetstream_stream_total_messages": 3,
    }


def test_where_none_answers_nothing_is_told_but_that(servers):
    assert told("http://nats:8222", "http://nats-2:8222") == {"nats_up": 0}
