"""What the streams keep, for how long, and how safely: asked of their configuration, without a server."""

from pathlib import Path

import pytest
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy

from lablet_common.bus.permissions import render_config
from lablet_common.bus.streams import DLQ, EVENTS, INGRESS, INTENTS, Stream
from lablet_common.resources import Service

DAY = 24 * 3600.0
NEW, OLD = (2, 12), (2, 11)
AGAIN = [EVENTS, *INTENTS.values()]
"""What can be published again from etcd."""


def test_the_server_flushes_before_it_acknowledges(tmp_path: Path) -> None:
    text = render_config([], port=4222, store_dir=tmp_path)
    jetstream = text.partition("jetstream {")[2].partition("}")[0]
    assert "sync_interval: always" in jetstream


@pytest.mark.parametrize("stream", AGAIN, ids=lambda stream: stream.name)
def test_what_can_be_published_again_is_flushed_behind_the_acknowledgement_where_the_server_can(
    stream: Stream,
) -> None:
    assert stream.config(server=NEW).persist_mode is PersistMode.ASYNC
    assert stream.config(server=OLD).persist_mode is None
    assert stream.config(server=NEW, replicas=3).persist_mode is None
    assert stream.config(server=NEW, clustered=True).persist_mode is None


@pytest.mark.parametrize("stream", [INGRESS, DLQ], ids=lambda stream: stream.name)
def test_an_only_copy_is_on_disk_before_it_is_acknowledged(stream: Stream) -> None:
    assert stream.config(server=NEW).persist_mode is None


def test_each_stream_keeps_as_long_as_is_promised() -> None:
    ages = {stream.name: (stream.config().max_age or 0) / DAY for stream in (EVENTS, DLQ, INGRESS, *INTENTS.values())}
    assert ages.pop("EVENTS") == 365
    assert ages.pop("DLQ") == 30
    assert set(ages.values()) == {7}
    assert len(ages) == 1 + len(Service)


def test_what_comes_in_is_a_work_queue_that_refuses_when_it_is_full() -> None:
    ingress = INGRESS.config()
    assert (ingress.retention, ingress.discard) == (RetentionPolicy.WORK_QUEUE, DiscardPolicy.NEW)
    assert {stream.config().discard for stream in AGAIN} == {DiscardPolicy.OLD}
