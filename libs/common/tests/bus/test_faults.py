"""Servers that die, streams that vanish, consumers that come and go: on a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from lablet_common.bus import EVENTS_STREAM, Bus, BusRefused, BusUnavailable, Received, RetryPolicy, intents_stream
from lablet_common.bus.client import StoringClient
from lablet_common.bus.handling import HAND_BACKS
from lablet_common.bus.permissions import NatsUser, Permissions
from lablet_common.bus.pull import Pull
from lablet_common.events import Outgoing, subjects
from lablet_common.resources import Service
from lablet_common.settings import NatsSettings
from lablet_common.telemetry.metrics import REGISTRY
from lablet_common.testing.nats import NatsServer
from lablet_common.testing.proxy import FaultyProxy

pytestmark = pytest.mark.integration

Make = Callable[..., Outgoing]
Until = Callable[..., Awaitable[None]]
Connect = Callable[..., Awaitable[Bus]]

STREAM = intents_stream(Service.SCHEDULER)
FILTER = [subjects.intent_filter(Service.SCHEDULER)]


async def publish_patiently(bus: Bus, outgoing: Outgoing) -> None:
    """As a bridge does it."""
    while True:
        try:
            await bus.publish(outgoing)
        except BusUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_consumer_resumes_within_five_seconds_of_the_servers_return_and_nothing_is_lost(
    how: str, server: NatsServer, connect: Connect, make: Make, until: Until, running: Any
) -> None:
    bus = await connect()
    got: set[int] = set()

    async def handler(message: Received) -> None:
        got.add(message.sequence)

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(make("r", 1))
        await until(lambda: got == {1})
        await asyncio.to_thread(getattr(server, how))
        await until(lambda: not bus.connected)
        with pytest.raises(BusUnavailable):
            await bus.publish(make("r", 2))
        await asyncio.to_thread(server.restart)
        back = time.monotonic()
        for sequence in range(2, 30):
            await publish_patiently(bus, make("r", sequence))
        await until(lambda: got == set(range(1, 30)))
        assert time.monotonic() - back < 5


async def test_what_is_still_on_its_way_when_a_consumer_ends_comes_to_the_next_one_at_once(
    server: NatsServer, connect: Connect, make: Make, until: Until, running: Any
) -> None:
    """For the server it is delivered: it would wait half a minute for an acknowledgement, as each rolling restart would."""
    near = await connect()
    begun = asyncio.Event()
    done: set[str] = set()

    async def stuck(_: Received) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def handler(message: Received) -> None:
        done.add(message.id)

    async with FaultyProxy(server.url.removeprefix("nats://")) as network:
        far = Bus(NatsSettings(url=f"nats://{network.endpoint}"), Service.SCHEDULER)
        await far.connect()
        try:
            async with running(far.consumer(STREAM, "c", FILTER, stuck)):
                await near.publish(make("a"))
                await begun.wait()
                network.delay_seconds = 0.2
                await near.publish(make("b"))
        finally:
            network.delay_seconds = 0.0
            await far.close()
    async with running(near.consumer(STREAM, "c", FILTER, handler)):
        await until(lambda: done == {"a", "b"})


async def test_a_server_that_hangs_is_noticed_by_the_silence_and_work_goes_on_after_it(
    server: NatsServer, connect: Connect, make: Make, until: Until, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await connect()
    got: set[str] = set()

    async def handler(message: Received) -> None:
        got.add(message.id)

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(make("before"))
        await until(lambda: "before" in got)
        server.pause()
        try:
            await until(lambda: any(getattr(r, "reason", "") == "silence" for r in caplog.records), timeout=6)
        finally:
            server.resume()
        await publish_patiently(bus, make("after"))
        await until(lambda: "after" in got, timeout=8)


async def test_a_purged_stream_goes_on_with_what_comes_next(
    connect: Connect, make: Make, until: Until, running: Any
) -> None:
    bus = await connect()
    got: list[str] = []

    async def handler(message: Received) -> None:
        got.append(message.id)

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(make("one"))
        await until(lambda: got == ["one"])
        await bus.connection.js.purge_stream(STREAM)
        await bus.publish(make("two"))
        await until(lambda: got == ["one", "two"])


@pytest.mark.parametrize("stream", [STREAM, EVENTS_STREAM])
async def test_a_deleted_stream_is_made_again_and_consuming_goes_on(
    stream: str, connect: Connect, make: Make, until: Until, running: Any
) -> None:
    bus = await connect()
    got: list[str] = []
    state = stream == EVENTS_STREAM
    filters = [subjects.event_filter()] if state else FILTER

    async def handler(message: Received) -> None:
        got.append(message.id)

    consumer = bus.consumer(stream, "c", filters, handler, start="all")
    async with running(consumer):
        await publish_patiently(bus, make("one", state=state))
        await until(lambda: got == ["one"])
        await bus.connection.js.delete_stream(stream)
        await publish_patiently(bus, make("two", 2, state=state))
        await until(lambda: got == ["one", "two"], timeout=8)
        info = await bus.connection.js.stream_info(stream)
        assert info.config.max_age


async def test_a_deleted_consumer_is_made_again(connect: Connect, make: Make, until: Until, running: Any) -> None:
    bus = await connect()
    got: list[str] = []

    async def handler(message: Received) -> None:
        got.append(message.id)

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(make("one"))
        await until(lambda: got == ["one"])
        await bus.remove_consumer(STREAM, "c")
        await bus.publish(make("two"))
        await until(lambda: "two" in got, timeout=8)


async def test_a_follower_goes_on_behind_its_last_event_after_a_restart(
    server: NatsServer, connect: Connect, make: Make, until: Until, running: Any
) -> None:
    bus = await connect()
    got: list[int] = []

    async def handler(message: Received) -> None:
        got.append(message.sequence)

    await bus.publish(make("a", 1, state=True))
    async with running(bus.follow([subjects.event_filter()], handler, after=0)):
        await until(lambda: got == [1])
        await asyncio.to_thread(server.restart)
        for sequence in (2, 3):
            await publish_patiently(bus, make("a", sequence, state=True))
        await until(lambda: len(got) >= 3)
    assert got == [1, 2, 3]


async def test_a_follower_begins_at_the_beginning_of_a_stream_that_was_made_anew_and_has_overtaken_its_place(
    connect: Connect, make: Make, until: Until, running: Any
) -> None:
    bus = await connect()
    got: list[int] = []

    async def handler(message: Received) -> None:
        got.append(message.sequence)

    follower = bus.follow([subjects.event_filter()], handler, after=0)
    for sequence in (1, 2):
        await bus.publish(make("a", sequence, state=True))
    async with running(follower):
        await until(lambda: got == [1, 2])
    await bus.connection.js.delete_stream(EVENTS_STREAM)
    for sequence in (3, 4, 5):
        await bus.publish(make("a", sequence, state=True))
    async with running(follower):
        await until(lambda: 5 in got)
    assert got == [1, 2, 3, 4, 5]


async def test_ten_restarts_leave_one_consumer(connect: Connect, make: Make, until: Until, running: Any) -> None:
    bus = await connect()
    got: list[int] = []

    async def handler(message: Received) -> None:
        got.append(message.sequence)

    for sequence in range(1, 11):
        async with running(bus.consumer(STREAM, "scheduler-east", FILTER, handler)):
            await bus.publish(make("r", sequence))
            await until(lambda wanted=sequence: wanted in got)
    assert [info.name for info in await bus.connection.js.consumers_info(STREAM)] == ["scheduler-east"]


async def test_two_replicas_share_one_consumer_and_each_message_is_handled_once(
    connect: Connect, make: Make, until: Until, running: Any
) -> None:
    one, two = await connect(), await connect()
    got: list[tuple[int, int]] = []

    def handler_of(replica: int) -> Callable[[Received], Awaitable[None]]:
        async def handler(message: Received) -> None:
            got.append((replica, message.sequence))
            await asyncio.sleep(0.001)

        return handler

    consumers = [bus.consumer(STREAM, "c", FILTER, handler_of(n), concurrency=1) for n, bus in enumerate((one, two))]
    async with running(*consumers):
        await until(lambda: all(consumer.pulling for consumer in consumers))
        for sequence in range(1, 501):
            await one.publish(make(f"r{sequence}", sequence))
        await until(lambda: len(got) >= 500)
    assert sorted(sequence for _, sequence in got) == list(range(1, 501))
    assert {replica for replica, _ in got} == {0, 1}


async def test_what_takes_longer_than_the_servers_patience_is_not_delivered_twice(
    connect: Connect, make: Make, until: Until, running: Any
) -> None:
    bus = await connect()
    got: list[int] = []

    async def handler(message: Received) -> None:
        got.append(message.deliveries)
        await asyncio.sleep(2.5)

    async with running(bus.consumer(STREAM, "c", FILTER, handler, ack_wait=1.0)):
        await bus.publish(make())
        await until(lambda: got)
        await asyncio.sleep(2.6)
    assert got == [1]


async def test_a_message_that_kills_its_process_ends_as_a_dead_letter(
    connect: Connect, make: Make, until: Until, running: Any
) -> None:
    """Deliveries that nobody answers (whoever took them died) are finite, too."""
    bus = await connect()
    letters: list[Any] = []

    async def note(message: Any) -> None:
        letters.append(message)

    async def handler(_: Received) -> None:
        raise AssertionError("not to be handled any more")

    policy = RetryPolicy(pauses=(0.01,))
    consumer = bus.consumer(STREAM, "c", FILTER, handler, policy=policy)
    await bus.connection.client.subscribe("lablet.dlq.>", cb=note)
    async with running(consumer):
        await until(lambda: consumer.pulling)
    await bus.publish(make())
    taker = await bus.connection.js.pull_subscribe_bind("c", STREAM)
    for _ in range(policy.attempts + HAND_BACKS):
        (message,) = await taker.fetch(1, timeout=5)
        await message.nak()
    async with running(consumer):
        await until(lambda: letters)
    assert letters[0].headers["Lablet-Dead-Attempts"] == str(policy.attempts + HAND_BACKS + 1)


async def test_a_message_that_was_handed_back_by_one_replica_after_the_other_is_handled_by_the_next(
    connect: Connect, make: Make, until: Until, running: Any
) -> None:
    """It was never tried: a rolling restart is no failure of what waits."""
    bus = await connect()
    handled: list[int] = []

    async def handler(message: Received) -> None:
        handled.append(message.deliveries)

    consumer = bus.consumer(STREAM, "c", FILTER, handler, policy=RetryPolicy(pauses=(0.01,)))
    async with running(consumer):
        await until(lambda: consumer.pulling)
    await bus.publish(make())
    taker = await bus.connection.js.pull_subscribe_bind("c", STREAM)
    for _ in range(HAND_BACKS):
        (message,) = await taker.fetch(1, timeout=5)
        await message.nak()
    async with running(consumer):
        await until(lambda: handled)
    assert handled == [HAND_BACKS + 1]


async def test_a_dead_letter_that_cannot_be_written_yet_is_not_forgotten(
    connect: Connect, make: Make, until: Until, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await connect()
    written: list[Any] = []
    tries = 0

    async def bury(letter: Any) -> None:
        if not written:
            written.append(None)
            raise BusUnavailable("the queue is full")
        written.append(letter)

    async def handler(_: Received) -> None:
        nonlocal tries
        tries += 1
        raise ValueError("no such pool")

    monkeypatch.setattr(bus, "bury", bury)
    async with running(bus.consumer(STREAM, "c", FILTER, handler, policy=RetryPolicy(pauses=()), ack_wait=1.0)):
        await bus.publish(make())
        await until(lambda: len(written) == 2)
    assert written[1].reason == "ValueError: no such pool"
    assert tries == 1


async def test_the_first_message_of_a_stream_made_anew_does_not_end_as_the_first_of_the_old_one_was_to(
    connect: Connect, make: Make, until: Until, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await connect()
    tried: list[str] = []

    async def bury(_: Any) -> None:
        raise BusUnavailable("the queue is full")

    async def handler(message: Received) -> None:
        tried.append(message.id)
        if message.id == "poison":
            raise ValueError("no such pool")

    monkeypatch.setattr(bus, "bury", bury)
    async with running(bus.consumer(STREAM, "c", FILTER, handler, policy=RetryPolicy(pauses=()))):
        await bus.publish(make("poison"))
        await until(lambda: tried == ["poison"])
        await bus.connection.js.delete_stream(STREAM)
        await bus.publish(make("sound"))
        await until(lambda: "sound" in tried)
        info = await bus.connection.js.stream_info(STREAM)
    assert info.state.last_seq == 1, "it has the number of the other"


async def test_streams_are_made_once_and_brought_up_to_date(connect: Connect) -> None:
    bus = await connect(Service.SCHEDULER)
    js = bus.connection.js
    config = (await js.stream_info(STREAM)).config
    await js.update_stream(config.evolve(max_age=3600.0, description="kept"))
    await bus.ensure_streams()
    config = (await js.stream_info(STREAM)).config
    assert config.max_age == 7 * 24 * 3600
    assert config.description == "kept"
    await connect(Service.GATEWAY)
    names = {info.config.name for info in await js.streams_info()}
    assert names == {
        "EVENTS",
        "INGRESS",
        "DLQ",
        "INTENTS_API_GATEWAY",
        "INTENTS_SCHEDULER",
        "INTENTS_WORKER_CONTROLLER",
        "INTENTS_ARTIFACT_SERVICE",
    }


async def test_a_second_look_at_sound_streams_changes_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await connect()
    caplog.clear()
    with caplog.at_level("INFO", "lablet_common.bus.streams"):
        await bus.ensure_streams()
    assert caplog.records == []


async def test_connecting_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path) as server:
        server.stop()
        bus = Bus(NatsSettings(url=server.url), Service.SCHEDULER)
        connecting = asyncio.create_task(bus.connect())
        try:
            await asyncio.sleep(0.3)
            assert not connecting.done()
            assert not bus.connected
            await asyncio.to_thread(server.restart)
            async with asyncio.timeout(8):
                await connecting
            assert bus.connected
        finally:
            await bus.close()


async def test_a_refused_login_ends_the_first_connect_and_names_the_user(tmp_path: Path) -> None:
    user = NatsUser("scheduler", "right", Permissions((">",), (">",)))
    with NatsServer.start(tmp_path, users=[user]) as server:
        bus = Bus(NatsSettings(url=server.url, user="scheduler", password="wrong"), Service.SCHEDULER)
        with pytest.raises(BusRefused, match="scheduler"):
            async with asyncio.timeout(8):
                await bus.connect()
        await bus.close()


async def test_a_login_that_is_refused_for_a_while_after_a_restart_is_tried_for_ever(
    tmp_path: Path, make: Make, until: Until, running: Any
) -> None:
    right = NatsUser("scheduler", "right", Permissions((">",), (">",)))
    wrong = NatsUser("scheduler", "changed", Permissions((">",), (">",)))
    got: list[str] = []

    async def handler(message: Received) -> None:
        got.append(message.id)

    with NatsServer.start(tmp_path, users=[right]) as server:
        bus = Bus(NatsSettings(url=server.url, user="scheduler", password="right"), Service.SCHEDULER)
        await bus.connect()
        try:
            async with running(bus.consumer(STREAM, "c", FILTER, handler)):
                server.use([wrong])
                await asyncio.to_thread(server.restart)
                await asyncio.sleep(2.5)
                assert not bus.connected
                server.use([right])
                await asyncio.to_thread(server.restart)
                await until(lambda: bus.connected, timeout=8)
                await publish_patiently(bus, make("after"))
                await until(lambda: got == ["after"], timeout=8)
        finally:
            await bus.close()


async def test_an_error_that_the_client_does_not_expect_while_it_reconnects_is_not_the_end(
    server: NatsServer, connect: Connect, make: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its file of credentials is just being written: it was without NATS until somebody started it anew."""
    bus = await connect()
    greet, tries = StoringClient._connect_command, 0

    def half_written(self: StoringClient) -> str:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise ValueError("no seed in the file")
        return greet(self)

    monkeypatch.setattr(StoringClient, "_connect_command", half_written)
    await asyncio.to_thread(server.restart)
    await until(lambda: tries == 3 and bus.connected)
    await bus.publish(make())


async def test_a_pull_that_is_cancelled_while_it_parts_leaves_the_connection_to_all_others(
    connect: Connect, make: Make
) -> None:
    """The server's answer to it came to nobody, and the client read nothing more until its own pings had failed."""
    bus = await connect()
    client = bus.connection.client
    pull = Pull(client, STREAM, "c", room=lambda: 0, take=lambda _: None)
    pull.end("409 Leadership Change")
    parting = asyncio.create_task(pull.run())
    while not (client._pongs and client._pongs[0]._callbacks):  # until it waits for the answer
        await asyncio.sleep(0)
    parting.cancel()
    await asyncio.wait({parting})
    await bus.publish(make())


async def test_who_begins_to_listen_while_the_server_is_away_hears_once_it_is_back(
    server: NatsServer, connect: Connect, until: Until
) -> None:
    bus = await connect()
    heard: list[bytes] = []

    async def hear(_: str, payload: bytes) -> None:
        heard.append(payload)

    await asyncio.to_thread(server.kill)
    await until(lambda: not bus.connected)
    await bus.connection.listen("lablet.agent.*.heartbeat", hear)
    await asyncio.to_thread(server.restart)
    await until(lambda: bus.connected)
    await bus.connection.say("lablet.agent.w.heartbeat", b"1")
    await bus.connection.client.flush()
    await until(lambda: heard)
    assert heard == [b"1"], "and hears it once"


async def test_a_dead_letter_can_be_replayed(connect: Connect, make: Make, until: Until, running: Any) -> None:
    from lablet_common.bus import DeadLetter

    bus = await connect()
    broken = True
    got: list[str] = []

    async def handler(message: Received) -> None:
        if broken:
            raise ValueError("no")
        got.append(message.event.get_id())

    out = make()
    async with running(bus.consumer(STREAM, "c", FILTER, handler, policy=RetryPolicy(pauses=()))):
        await bus.publish(out)
        reader = await bus.connection.js.pull_subscribe("lablet.dlq.>", durable="reader", stream="DLQ")
        (message,) = await reader.fetch(1, timeout=5)
        broken = False
        subject, headers, payload = DeadLetter.parse(message.headers, message.data).original()
        await bus.connection.js.publish(subject, payload, headers=headers)
        await until(lambda: got == [out.event.get_id()])


async def test_dead_letters_are_counted_from_zero_on(connect: Connect, until: Until, running: Any) -> None:
    """A series that appears with its first dead letter is no increase to the alert."""

    def counted() -> float | None:
        return REGISTRY.get_sample_value("lablet_events_dead_lettered_total", {"consumer": "from-zero"})

    async def handler(message: Received) -> None:
        raise AssertionError(message)

    async with running((await connect()).consumer(STREAM, "from-zero", FILTER, handler)):
        await until(lambda: counted() is not None)
    assert counted() == 0.0


async def test_an_idle_bus_leaves_no_connection_behind(server: NatsServer) -> None:
    bus = Bus(NatsSettings(url=server.url), Service.SCHEDULER)
    await bus.connect()
    await bus.close()
    probe = await nats.connect(server.url)
    try:
        import json
        import urllib.request

        def connections() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.monitor_port}/connz") as answer:
                return int(json.load(answer)["num_connections"])

        assert await asyncio.to_thread(connections) == 1
    finally:
        await probe.close()
