"""Each service can do its work with its own user, and nothing beyond: asked of a real server."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from lablet_common.bus import Bus, BusUnavailable, Received, intents_stream
from lablet_common.bus.permissions import (
    Permissions,
    agent_user,
    external_user,
    inbox_prefix,
    render_config,
    service_permissions,
    service_user,
    write_config,
)
from lablet_common.events import CloudEvent, Outgoing, subjects
from lablet_common.events.subjects import matches
from lablet_common.resources import Service
from lablet_common.resources.kinds import KINDS
from lablet_common.settings import NatsSettings
from lablet_common.testing.nats import NatsServer

Make = Callable[..., Outgoing]
Until = Callable[..., Awaitable[None]]
Login = Callable[[str], Awaitable[Client]]

USERS = [service_user(service, f"pw-{service}") for service in Service]
OUTSIDE = [external_user("lms", "acme", "pw-lms"), agent_user("east-001", "pw-agent-east-001")]


def may_publish(service: Service, subject: str) -> bool:
    return any(matches(one, subject) for one in service_permissions(service).publish)


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_only_the_owner_of_a_kind_may_publish_its_events(service: Service, kind: Any) -> None:
    subject = subjects.event_subject("acme", kind.name, "-", "x")
    assert may_publish(service, subject) == (kind.owner is service)


@pytest.mark.parametrize("service", Service)
def test_intents_come_from_the_gateway_alone(service: Service) -> None:
    subject = subjects.intent_subject("scheduler", "east", "reservation", "r")
    assert may_publish(service, subject) == (service is Service.GATEWAY)


@pytest.mark.parametrize("service", [s for s in Service if s is not Service.GATEWAY])
def test_no_owner_touches_the_streams_of_another(service: Service) -> None:
    others = {intents_stream(other) for other in Service if other is not service} | {"INGRESS"}
    for one in service_permissions(service).publish:
        assert not others & set(one.split("."))


def test_nobody_may_delete_a_stream() -> None:
    for service in Service:
        assert not may_publish(service, "$JS.API.STREAM.DELETE.EVENTS")
        assert not may_publish(service, "$JS.API.STREAM.PURGE.EVENTS")


def test_a_configuration_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "nats.conf"
    path.write_text("old")
    path.chmod(0o644)
    write_config(path, render_config(USERS, port=4222, store_dir=tmp_path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert 'listen: "127.0.0.1:4222"' in path.read_text()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path / "nats", users=[*USERS, *OUTSIDE], sync_always=False) as server:
        yield server


@pytest.fixture
async def busses(guarded: NatsServer) -> AsyncIterator[dict[Service, Bus]]:
    async with AsyncExitStack() as opened:
        found = {}
        for service in Service:
            settings = NatsSettings(url=guarded.url, user=service.value, password=f"pw-{service}")
            bus = found[service] = Bus(settings, service)
            async with asyncio.timeout(10):
                await bus.connect()
            opened.push_async_callback(bus.close)
        yield found


@pytest.fixture
async def login(guarded: NatsServer) -> AsyncIterator[Login]:
    """A plain client under a user's name."""
    async with AsyncExitStack() as opened:

        async def login(user: str) -> Client:
            errors: list[str] = []

            async def note(error: Exception) -> None:
                errors.append(str(error))

            client = await nats.connect(
                guarded.url,
                user=user,
                password=f"pw-{user}",
                inbox_prefix=inbox_prefix(user),
                error_cb=note,
                allow_reconnect=False,
            )
            opened.push_async_callback(client.close)
            client.errors_seen = errors
            return client

        yield login


@pytest.mark.integration
async def test_every_service_can_do_its_work(
    busses: dict[Service, Bus], make: Make, until: Until, running: Any
) -> None:
    got: list[tuple[str, str]] = []

    def note(who: str) -> Callable[[Received], Awaitable[None]]:
        async def handler(message: Received) -> None:
            got.append((who, message.id))

        return handler

    consumers = [busses[Service.GATEWAY].consumer("INGRESS", "api-gateway", ["lablet.ingress.>"], note("ingress"))]
    consumers.append(busses[Service.GATEWAY].consumer("EVENTS", "webhook-x", ["lablet.event.>"], note("webhook")))
    for service in Service:
        if service is not Service.GATEWAY:
            stream = intents_stream(service)
            consumers.append(
                busses[service].consumer(
                    stream, f"{service}-east", [subjects.intent_filter(service, "east")], note(f"intent {service}")
                )
            )
            consumers.append(busses[service].consumer("EVENTS", service, ["lablet.event.>"], note(f"event {service}")))
    follower = busses[Service.GATEWAY].follow([subjects.event_filter()], note("follower"))
    async with running(*consumers, follower):
        await until(lambda: all(consumer.pulling for consumer in consumers))
        expected: set[tuple[str, str]] = set()
        for service in Service:
            if service is Service.GATEWAY:
                continue
            await busses[Service.GATEWAY].publish(
                Outgoing(
                    subjects.intent_subject(service, "east", "worker", "w"),
                    CloudEvent({"id": service.value, "source": "/s", "type": "t", "subject": "worker/w"}),
                    service.value,
                )
            )
            expected.add((f"intent {service}", "w"))
        await busses[Service.SCHEDULER].publish(make("r", state=True))
        expected |= {(f"event {service}", "r") for service in Service if service is not Service.GATEWAY}
        expected |= {("webhook", "r"), ("follower", "r")}
        try:
            await until(lambda: set(got) >= expected)
        except AssertionError:
            raise AssertionError(f"missing: {expected - set(got)}") from None


@pytest.mark.integration
async def test_a_service_buries_its_dead_letters_and_the_gateway_reads_them(
    busses: dict[Service, Bus], make: Make, until: Until, running: Any
) -> None:
    from lablet_common.bus import RetryPolicy

    async def broken(_: Received) -> None:
        raise ValueError("no")

    scheduler, gateway = busses[Service.SCHEDULER], busses[Service.GATEWAY]
    consumer = scheduler.consumer(
        "INTENTS_SCHEDULER", "scheduler-east", ["lablet.intent.scheduler.east.>"], broken, policy=RetryPolicy(pauses=())
    )
    async with running(consumer):
        await gateway.publish(make())
        reader = await gateway.connection.js.pull_subscribe("lablet.dlq.>", durable="dead-letters", stream="DLQ")
        (message,) = await reader.fetch(1, timeout=5)
        assert message.subject == "lablet.dlq.scheduler.scheduler-east"
        assert (await gateway.connection.js.get_msg("DLQ", seq=1)).data == message.data


@pytest.mark.integration
@pytest.mark.parametrize("stream", ["EVENTS", "DLQ"])
async def test_the_gateway_reads_ranges_of_a_stream(busses: dict[Service, Bus], stream: str) -> None:
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=5)
    info = await busses[Service.GATEWAY].connection.js.add_consumer(stream, config)
    assert info.num_pending == 0


@pytest.mark.integration
async def test_a_service_that_publishes_for_another_hears_that_it_failed(
    busses: dict[Service, Bus], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lablet_common.bus.bus.CALL_SECONDS", 0.5)
    async with asyncio.timeout(10):
        with pytest.raises(BusUnavailable):
            await busses[Service.ARTIFACTS].publish(make(state=True))


@pytest.mark.integration
async def test_a_consumer_that_delivers_to_another_s_subject_makes_nobody_hear_what_was_not_said_there(
    busses: dict[Service, Bus], make: Make, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """The server does not ask whether a consumer's user may publish where its messages are delivered."""
    heard: list[str] = []

    async def hear(subject: str, _: bytes) -> None:
        heard.append(subject)

    workers, scheduler = busses[Service.WORKERS].connection, busses[Service.SCHEDULER]
    await workers.listen("lablet.agent.east-001.report", hear)
    await workers.client.flush()
    await scheduler.publish(make(state=True))
    config = ConsumerConfig(
        durable_name="scheduler", deliver_subject="lablet.agent.east-001.report", ack_policy=AckPolicy.NONE
    )
    await scheduler.connection.js.add_consumer("EVENTS", config)
    await until(lambda: any("a way that is not its own" in record.message for record in caplog.records))
    assert heard == []


@pytest.mark.integration
async def test_an_outside_system_publishes_and_reads_for_its_own_tenant_alone(
    busses: dict[Service, Bus], login: Login, make: Make, until: Until, running: Any
) -> None:
    lms = await login("lms")
    read: list[str] = []

    async def note(message: Any) -> None:
        read.append(message.subject)

    await lms.subscribe("lablet.event.acme.>", cb=note)
    await lms.subscribe("lablet.ingress-result.acme", cb=note)
    await lms.flush()
    arrived: list[Received] = []

    async def take(message: Received) -> None:
        arrived.append(message)

    gateway = busses[Service.GATEWAY]
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/lms",
        "ce-type": "t",
        "ce-subject": "reservation/r",
    }
    async with running(gateway.consumer("INGRESS", "api-gateway", ["lablet.ingress.>"], take)):
        stored = await lms.request("lablet.ingress.acme.reservation", b"{}", timeout=5, headers=headers)
        assert json.loads(stored.data)["stream"] == "INGRESS"
        await until(lambda: arrived)
        assert arrived[0].subject == "lablet.ingress.acme.reservation"
    out = make(state=True)
    await busses[Service.SCHEDULER].publish(out)
    await gateway.tell(Outgoing(subjects.ingress_result_subject("acme"), out.event, "x"))
    await until(lambda: len(read) == 2)
    for foreign in ("lablet.event.other.>", "lablet.event.>", "lablet.ingress.acme.>", "_INBOX_scheduler.>", "$JS.>"):
        lms.errors_seen.clear()
        await lms.subscribe(foreign)
        await lms.flush()
        await until(lambda: lms.errors_seen)
        assert "permissions violation" in lms.errors_seen[0].lower()


def test_permissions_have_no_bare_wildcards() -> None:
    for service in Service:
        rights: Permissions = service_permissions(service)
        assert not {">", "*", "$JS.>", "$JS.API.>", "lablet.>"} & {*rights.publish, *rights.subscribe}
