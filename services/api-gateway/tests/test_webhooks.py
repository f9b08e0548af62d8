"""Webhooks: a real HTTP sink on 127.0.0.1, the bus's twin, a clock that stands still, and the API in front."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from prometheus_client import generate_latest
from pydantic import SecretStr

from lablet_common.bus import EVENTS_STREAM, MemoryBus
from lablet_common.bus.consumer import REBUILDS, forget_counts
from lablet_common.events import derive
from lablet_common.ownership import Fence, NotOwner
from lablet_common.resources.kinds import ownership_key
from lablet_common.secrets import SecretBox
from lablet_common.store import Transaction
from lablet_common.telemetry.metrics import DEAD_LETTERED, EVENT_HANDLING, REGISTRY
from lablet_common.testing.sinks import serving
from lablet_gateway.app import create_app
from lablet_gateway.deadletters import redelivery_subject
from lablet_gateway.webhooks.addresses import SinkRefused, check_address, check_sink, check_url
from lablet_gateway.webhooks.dispatcher import Dispatcher
from lablet_gateway.webhooks.preset import Preset
from lablet_gateway.webhooks.registry import PRESET
from lablet_gateway.webhooks.sender import HttpSender
from lablet_gateway.webhooks.signing import new_secret, signature

PATH = "/api/v1/subscriptions"


@dataclass
class SinkServer:
    """Answers as `answer` says, and keeps what it accepted."""

    url: str = ""
    answer: Callable[[dict[str, Any]], int] = lambda _: 204
    tries: list[dict[str, Any]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    location: str = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        event = json.loads(body)
        self.tries.append(event)
        status = self.answer(event)
        if 200 <= status < 300:
            self.taken.append(event)
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=status, headers={"Location": self.location} if self.location else {})

    def subjects(self) -> list[tuple[str, int]]:
        return [(event["subject"], int(event["sequence"])) for event in self.taken]


@pytest.fixture
async def sink() -> AsyncIterator[SinkServer]:
    server = SinkServer()
    async with serving(server.take) as url:
        server.url = f"{url}/hook"
        yield server


@dataclass
class Desk:
    """The gateway with a bus, and replicas that serve its subscriptions."""

    world: Any
    parts: Any
    bus: MemoryBus
    sender: HttpSender
    revision: int = 0

    def client(self, name: str = "admin@default") -> httpx.AsyncClient:
        return self.world.client(name)

    async def subscribe(self, sink: str, name: str = "lms", *, by: str = "admin@default", **more: Any) -> Any:
        answer = await self.client(by).post(PATH, json={"name": name, "sink": sink, **more})
        assert answer.status_code == 201, answer.text
        await self.world.caught_up()
        return answer.json()

    async def publish(self, *resources: Any) -> None:
        """Commits as a bridge tells of them, each with the next revision."""
        for resource in resources:
            self.revision += 1
            (outgoing,) = derive(_kind(resource), None, resource, self.revision, source="/lablet/scheduler")
            await self.bus.publish(outgoing)
            self.world.log.append(outgoing.event)

    @asynccontextmanager
    async def serving(self, name: str = "lms") -> AsyncIterator["asyncio.Task[None]"]:
        """A replica that owns the subscription, until the block ends; then the shard is given up."""
        key = ownership_key("api-gateway", f"webhook-{name}")
        done = await Transaction().put(key, os.urandom(4)).commit(self.world.store)
        fence = Fence(key, done.revision)
        dispatcher = Dispatcher(self.parts, self.bus, self.sender, self.world.clock)
        task = asyncio.create_task(dispatcher.serve(name, fence))
        try:
            yield task
        finally:
            failed = task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, *((Exception,) if failed else ())):
                await task
            await self.world.store.delete(key)

    async def pass_time(self, span: timedelta, step: timedelta = timedelta(seconds=30)) -> None:
        """Lets real calls happen between the steps."""
        end = self.world.clock.now() + span
        while self.world.clock.now() < end:
            await self.quiet()
            await self.world.clock.set(min(end, self.world.clock.now() + step))

    async def quiet(self) -> None:
        """Waits until no HTTP call is under way."""
        for _ in range(3):
            await asyncio.sleep(0)
        while self.calls.under_way:
            await asyncio.sleep(0.0005)

    @property
    def calls(self) -> "Counted":
        assert isinstance(self.sender, Counted)
        return self.sender

    async def state(self, name: str = "lms") -> Any:
        return (await self.client().get(f"{PATH}/{name}")).json()["status"]


class Counted(HttpSender):
    """The real sender, which also tells how many calls are under way."""

    under_way = 0

    async def post(self, *args: Any, **more: Any) -> Any:
        self.under_way += 1
        try:
            return await super().post(*args, **more)
        finally:
            self.under_way -= 1


def _kind(resource: Any) -> Any:
    from lablet_common.resources.kinds import kind_of

    return kind_of(resource)


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.002)


def box() -> SecretBox:
    return SecretBox({"k1": b"k" * 32})


@pytest.fixture
async def desk(world: Any) -> AsyncIterator[Desk]:
    settings = world.parts.settings.model_copy(update={"webhook_allow_private": True})
    parts = replace(world.parts, settings=settings, secrets=box(), real_time=world.clock)
    world.app, world.parts = create_app(parts), parts
    async with Counted(timeout=5) as sender:
        yield Desk(world, parts, MemoryBus("api-gateway"), sender)


def checker_of_the_page() -> Callable[[str, dict[str, str], bytes], bool]:
    """The function that docs/guides/webhooks.md gives to whoever receives."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "webhooks.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    return names["is_ours"]  # type: ignore[no-any-return]


async def test_what_fits_is_sent_signed_as_a_cloudevent(desk: Desk, sink: SinkServer) -> None:
    made = await desk.subscribe(sink.url, types=["io.lablet.reservation."])
    async with desk.serving():
        await desk.publish(desk.world.worker(), desk.world.reservation("rsv-a"))
        await until(lambda: sink.taken)
    (event,) = sink.taken
    assert (event["type"], event["subject"]) == ("io.lablet.reservation.scheduled.v1", "reservation/rsv-a")
    assert event["data"]["status"]["phase"] == "Scheduled"
    told = sink.headers[0]
    assert told["content-type"].startswith("application/cloudevents+json")
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    signed = f"{told['webhook-id']}.{told['webhook-timestamp']}.".encode() + sink.bodies[0]
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert told["webhook-signature"] == wanted
    is_ours = checker_of_the_page()
    assert is_ours(made["secret"], told, sink.bodies[0])
    assert not is_ours(made["secret"], told, sink.bodies[0] + b" ")
    assert not is_ours(new_secret(), told, sink.bodies[0])
    assert int(told["webhook-timestamp"]) == int(desk.world.clock.now().timestamp())


def test_the_signature_is_the_one_of_the_standards_own_example() -> None:
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    with pytest.raises(ValueError, match="at least 24"):
        signature("whsec_c2hvcnQ=", "m", 1, b"")


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_both_modes_are_read_by_the_official_sdk(desk: Desk, sink: SinkServer, mode: str) -> None:
    await desk.subscribe(sink.url, mode=mode)
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-ä b"))
        await until(lambda: sink.tries)
    # in binary mode the body is the data alone
    event = from_http_event(HTTPMessage(sink.headers[0], sink.bodies[0]))
    assert event.get_type() == "io.lablet.reservation.scheduled.v1"
    assert event.get_subject() == "reservation/rsv-ä b"
    assert event.get_data()["metadata"]["id"] == "rsv-ä b"


async def test_filters_narrow_by_type_subject_label_and_tenant(desk: Desk, sink: SinkServer) -> None:
    world = desk.world
    await desk.subscribe(sink.url, "t", types=["io.lablet.instance.", "io.lablet.reservation.sch"])
    await desk.subscribe(sink.url, "s", subjects=["reservation/rsv-x"])
    await desk.subscribe(sink.url, "l", labelSelector="course=x")
    await desk.subscribe(sink.url, "o", by="admin@acme")
    heard: dict[str, list[str]] = {}
    x = world.reservation("rsv-x", labels={"course": "x"})
    foreign = world.reservation("rsv-f", tenant="acme")
    await desk.publish(world.worker(), x, world.reservation("rsv-y"), world.instance(x), foreign)
    for name in "tslo":
        sink.taken.clear()
        async with desk.serving(name):
            await until(lambda: sink.taken)
            durable = desk.bus.durables[EVENTS_STREAM, f"webhook-{name}"]
            await until(partial(_idle, durable))
        heard[name] = [event["subject"] for event in sink.taken]
    assert heard == {
        "t": ["reservation/rsv-x", "reservation/rsv-y", "instance/ins-x-1"],
        "s": ["reservation/rsv-x"],
        "l": ["reservation/rsv-x"],
        "o": ["reservation/rsv-f"],
    }


async def test_a_sink_that_is_down_for_an_hour_misses_nothing_and_gets_each_subject_in_order(
    desk: Desk, sink: SinkServer
) -> None:
    down = {"is": True}
    sink.answer = lambda _: 503 if down["is"] else 200
    await desk.subscribe(sink.url)
    names = [f"rsv-{n}" for n in range(5)]
    async with desk.serving():
        for _ in range(12):  # five minutes each
            await desk.publish(*(desk.world.reservation(name) for name in names))
            await desk.pass_time(timedelta(minutes=5))
        state = await desk.state()
        assert (state["phase"], state["lastError"]["status"]) == ("Failing", 503)
        assert sink.taken == []
        assert len(sink.tries) < 12 * len(names) * 2, "a sink that is down is spared"
        down["is"] = False
        await desk.pass_time(timedelta(minutes=12))
        await until(lambda: len(sink.taken) >= 60)
        await desk.pass_time(timedelta(seconds=10))
        await until(lambda: _is(desk, "Active"))
    for name in names:
        heard = [number for subject, number in sink.subjects() if subject == f"reservation/{name}"]
        assert heard == sorted(heard)
        assert len(heard) == 12
    assert (await desk.state())["delivered"] == 60
    assert desk.bus.dead == []


def _idle(durable: Any) -> bool:
    return not durable.under_way and not durable.waiting


async def _is(desk: Desk, phase: str, name: str = "lms") -> bool:
    await desk.world.clock.advance(timedelta(seconds=1))
    return bool((await desk.state(name))["phase"] == phase)


async def test_a_sink_that_is_down_is_not_called_for_every_event_that_is_new(desk: Desk, sink: SinkServer) -> None:
    sink.answer = lambda _: 503
    await desk.subscribe(sink.url)
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-first"))
        await desk.pass_time(timedelta(minutes=15))
        tried = len(sink.tries)
        while len(sink.tries) == tried:  # just tried in vain: it rests for minutes now
            await desk.pass_time(timedelta(seconds=10), timedelta(seconds=10))
        tried = len(sink.tries)
        await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(50)))
        await desk.pass_time(timedelta(seconds=30), timedelta(seconds=5))
        assert len(sink.tries) == tried


async def test_one_event_that_the_sink_cannot_take_holds_up_its_own_subject_only(desk: Desk, sink: SinkServer) -> None:
    sink.answer = lambda event: 400 if event["subject"].endswith("poison") else 200
    await desk.subscribe(sink.url)
    async with desk.serving():
        await desk.publish(desk.world.reservation("poison"), desk.world.reservation("poison"))
        await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(50)))
        await until(lambda: len(sink.taken) == 50)
        await desk.pass_time(timedelta(hours=1))
        assert {int(event["sequence"]) for event in sink.tries if event["subject"].endswith("poison")} == {1}


async def test_after_a_day_it_is_a_dead_letter_with_its_reason_and_can_be_sent_again(
    desk: Desk, sink: SinkServer
) -> None:
    sink.answer = lambda event: 422 if event["sequence"].endswith("1") else 200
    before = REGISTRY.get_sample_value("lablet_events_dead_lettered_total", {"consumer": "webhook-lms"}) or 0
    await desk.subscribe(sink.url)
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-a"), desk.world.reservation("rsv-a"))
        await desk.pass_time(timedelta(hours=23, minutes=50), timedelta(minutes=5))
        assert (desk.bus.dead, sink.taken) == ([], [])
        await desk.pass_time(timedelta(minutes=20), timedelta(minutes=5))
        await until(lambda: sink.taken)
        await desk.pass_time(timedelta(seconds=10))
        (letter,) = desk.bus.dead
        assert letter.consumer == "webhook-lms"
        assert letter.attempts == len(sink.tries) - 1
        assert letter.attempts > 200
        assert "422" in letter.reason
        assert sink.subjects() == [("reservation/rsv-a", 2)]
        assert (await desk.state())["deadLettered"] == 1
        after = REGISTRY.get_sample_value("lablet_events_dead_lettered_total", {"consumer": "webhook-lms"})
        assert after == before + 1
        desk.world.dead.letters = {
            7: letter, 8: replace(letter, consumer="scheduler-default"), 9: replace(letter, without="payload"),
        }  # fmt: skip
        sink.answer = lambda _: 200
        answer = await desk.client().post(f"{PATH}/lms/redeliver")
        assert answer.json() == {"redelivered": 1}
        assert list(desk.world.dead.letters) == [8, 9], "what is sent again leaves the queue, and nothing else"
        ((subject, sent),) = desk.world.dead.replayed
        assert subject == redelivery_subject("lms")
        await desk.bus.put(subject, dict(sent.headers), sent.payload)
        await until(lambda: len(sink.taken) == 2)
    assert sink.subjects()[1] == ("reservation/rsv-a", 1)
    assert sink.headers[0]["webhook-id"] != sink.headers[1]["webhook-id"]


async def test_a_sink_that_is_gone_pauses_the_subscription_until_somebody_says_go_on(
    desk: Desk, sink: SinkServer
) -> None:
    sink.answer = lambda _: 410
    await desk.subscribe(sink.url)
    async with desk.serving():
        await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(3)))
        await until(lambda: _is(desk, "Paused"))
        tried = len(sink.tries)
        await desk.publish(desk.world.reservation("rsv-3"))
        await desk.pass_time(timedelta(hours=30), timedelta(hours=1))
        assert len(sink.tries) == tried
        sink.answer = lambda _: 200
        present = await desk.client().get(f"{PATH}/lms")
        assert present.json()["status"]["reason"] == "SinkGone"
        answer = await desk.client().patch(
            f"{PATH}/lms", json={"paused": False}, headers={"If-Match": present.headers["etag"]}
        )
        assert (answer.status_code, answer.json()["status"]["phase"]) == (200, "Active")
        await until(lambda: len(sink.taken) == 4)
    assert sorted(sink.subjects()) == [(f"reservation/rsv-{n}", n + 1) for n in range(4)]


async def test_what_happens_during_a_pause_is_sent_afterwards(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe(sink.url)
    match = {"If-Match": "*"}
    async with desk.serving():
        assert (await desk.client().patch(f"{PATH}/lms", json={"paused": True}, headers=match)).status_code == 200
        await desk.world.caught_up()
        await desk.publish(desk.world.reservation("rsv-a"))
        await desk.pass_time(timedelta(minutes=1))
        assert sink.tries == []
        await desk.client().patch(f"{PATH}/lms", json={"paused": False}, headers=match)
        await until(lambda: sink.taken)


async def test_a_change_of_sink_and_filter_counts_from_then_on(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe("http://127.0.0.1:9/nobody")
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-a"))
        await until(lambda: _is(desk, "Failing"))
        assert (await desk.client().patch(f"{PATH}/lms", json={"sink": sink.url})).status_code == 428
        stale = await desk.client().patch(f"{PATH}/lms", json={"sink": sink.url}, headers={"If-Match": '"1"'})
        assert stale.status_code == 412
        await desk.client().patch(f"{PATH}/lms", json={"sink": sink.url}, headers={"If-Match": "*"})
        await until(lambda: sink.taken)


async def test_a_replica_that_gives_the_shard_up_hands_back_what_was_under_way(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe(sink.url)
    sink.answer = lambda _: 500
    async with desk.serving():
        await desk.publish(*(desk.world.reservation("rsv-a") for _ in range(4)))
        await until(lambda: sink.tries)
        await desk.quiet()
    sink.answer = lambda _: 200
    async with desk.serving():
        await until(lambda: len(sink.taken) == 4)
    assert [number for _, number in sink.subjects()] == [1, 2, 3, 4]


async def test_a_replica_that_has_lost_the_shard_cannot_write_the_book(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe(sink.url)
    async with desk.serving() as task:
        await desk.world.store.delete(ownership_key("api-gateway", "webhook-lms"))
        await desk.publish(desk.world.reservation("rsv-a"))
        await until(task.done)
        with pytest.raises((NotOwner, ExceptionGroup)) as caught:
            await task
        assert "served by somebody else" in repr(caught.value)
    assert (await desk.state())["delivered"] == 0


async def test_a_deleted_subscription_takes_its_consumers_along(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe(sink.url)
    async with desk.serving():
        await until(lambda: (EVENTS_STREAM, "webhook-lms") in desk.bus.durables)
        assert (await desk.client().delete(f"{PATH}/lms")).status_code == 204
        assert (await desk.client().get(f"{PATH}/lms")).status_code == 404
        await until(lambda: _gone(desk))
    assert [name for _, name in desk.bus.durables if name.startswith("webhook-")] == []
    await desk.subscribe(sink.url)
    await desk.publish(desk.world.reservation("rsv-a"))
    async with desk.serving():
        await until(lambda: sink.taken)


async def test_subscriptions_that_come_and_go_leave_nothing_in_the_metrics(desk: Desk, sink: SinkServer) -> None:
    """The soak's find: each left seventeen series behind, for as long as the gateway ran."""
    await desk.subscribe(sink.url)
    EVENT_HANDLING.labels(consumer="webhook-other").observe(1)
    for counter in (DEAD_LETTERED, REBUILDS):
        counter.labels(consumer="webhook-lms").inc()
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-a"))
        await until(lambda: sink.taken)
        await until(lambda: 'consumer="webhook-lms"' in generate_latest(REGISTRY).decode())
    told = generate_latest(REGISTRY).decode()
    assert 'consumer="webhook-lms"' not in told
    assert 'consumer="webhook-other"' in told
    forget_counts("webhook-other")


async def _gone(desk: Desk) -> bool:
    return await desk.world.store.get("/subscriptions/lms") is None


# -- the API's own rules ---------------------------------------------------------------------------------------------


async def test_the_secret_is_shown_once_and_lies_encrypted(desk: Desk, sink: SinkServer) -> None:
    made = await desk.subscribe(sink.url)
    stored = (await desk.world.store.get("/subscriptions/lms")).value
    assert made["secret"].removeprefix("whsec_").encode() not in stored
    assert box().open(json.loads(stored)["status"]["secret"], "subscription/lms") == made["secret"]
    for path in (PATH, f"{PATH}/lms"):
        shown = (await desk.client().get(path)).text
        assert made["secret"] not in shown
        assert '"secret"' not in shown


async def test_the_same_key_gets_the_same_secret_and_another_body_under_it_is_refused(
    desk: Desk, sink: SinkServer
) -> None:
    client, key = desk.client(), {"Idempotency-Key": "once"}
    body = {"name": "lms", "sink": sink.url}
    first = await client.post(PATH, json=body, headers=key)
    again = await client.post(PATH, json=body, headers=key)
    assert (again.status_code, again.json()["secret"]) == (201, first.json()["secret"])
    other = await client.post(PATH, json=body | {"mode": "binary"}, headers=key)
    assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (422, "idempotency-key-reused")
    taken = await client.post(PATH, json=body)
    assert (taken.status_code, taken.json()["errors"][0]["path"]) == (409, "name")


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_day(desk: Desk, sink: SinkServer) -> None:
    old = (await desk.subscribe(sink.url))["secret"]
    new = (await desk.client().post(f"{PATH}/lms/rotate-secret")).json()["secret"]
    await desk.world.caught_up()
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-a"))
        await until(lambda: len(sink.taken) == 1)
        await desk.world.clock.advance(timedelta(hours=25))
        await desk.publish(desk.world.reservation("rsv-b"))
        await until(lambda: len(sink.taken) == 2)
    for at, secrets in enumerate(([new, old], [new])):
        told = sink.headers[at]
        stamp = int(told["webhook-timestamp"])
        wanted = [signature(secret, told["webhook-id"], stamp, sink.bodies[at]) for secret in secrets]
        assert told["webhook-signature"].split() == wanted


async def test_everybody_sees_what_is_theirs(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe(sink.url, "of-ina", by="ina")
    await desk.subscribe(sink.url, "of-acme", by="admin@acme")
    expected = {
        "admin@default": ["of-ina"], "operator@default": ["of-ina"], "ina": ["of-ina"], "instructor@default": [],
        "admin@acme": ["of-acme"], "machine@acme": [],
    }  # fmt: skip
    for who, names in expected.items():
        client = desk.client(who)
        assert [one["metadata"]["id"] for one in (await client.get(PATH)).json()["items"]] == names, who
        for name in ("of-ina", "of-acme"):
            known = name in names
            assert (await client.get(f"{PATH}/{name}")).status_code == (200 if known else 404)
            if not known:
                assert (await client.delete(f"{PATH}/{name}")).status_code == 404
                assert (await client.post(f"{PATH}/{name}/redeliver")).status_code == 404
    foreign = await desk.client("ina").post(PATH, json={"name": "x", "sink": sink.url, "tenant": "acme"})
    assert foreign.status_code == 403
    every = await desk.client().post(PATH, json={"name": "x", "sink": sink.url, "tenant": "*"})
    assert every.status_code == 403


async def test_without_a_key_file_or_nats_no_subscription_is_made(desk: Desk, sink: SinkServer) -> None:
    desk.world.log.unavailable = True
    answer = await desk.client().post(PATH, json={"name": "lms", "sink": sink.url})
    assert (answer.status_code, answer.json()["dependency"]) == (503, "nats")
    desk.world.log.unavailable = False
    desk.world.app.state.parts = replace(desk.parts, secrets=None)
    answer = await desk.client().post(PATH, json={"name": "lms", "sink": sink.url})
    assert (answer.status_code, answer.json()["dependency"]) == (503, "secrets key")


async def test_the_preset_follows_its_setting_and_hears_every_tenant(desk: Desk, sink: SinkServer) -> None:
    secret = new_secret()
    given = {"cloudevents_sink_url": sink.url, "cloudevents_sink_secret": SecretStr(secret)}
    desk.parts = replace(
        desk.parts, settings=desk.parts.settings.model_copy(update={**given, "webhook_allow_private": False})
    )
    await Preset(desk.parts).look()
    await Preset(desk.parts).look()
    await desk.world.caught_up()
    async with desk.serving(PRESET):
        await desk.publish(desk.world.reservation("rsv-a"), desk.world.reservation("rsv-b", tenant="acme"))
        await until(lambda: len(sink.taken) == 2)
        told = sink.headers[0]
        wanted = signature(secret, told["webhook-id"], int(told["webhook-timestamp"]), sink.bodies[0])
        assert told["webhook-signature"] == wanted
        assert (await desk.client().delete(f"{PATH}/{PRESET}")).status_code == 409
        refused = await desk.client().post(PATH, json={"name": PRESET, "sink": sink.url})
        assert refused.status_code == 422
        off = desk.parts.settings.model_copy(update={"cloudevents_sink_url": None})
        await Preset(replace(desk.parts, settings=off)).look()
        await until(lambda: _preset_gone(desk))


async def _preset_gone(desk: Desk) -> bool:
    return await desk.world.store.get(f"/subscriptions/{PRESET}") is None


# -- against requests into our own network ---------------------------------------------------------------------------

PRIVATE = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1",
    "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2001:db8::1", "192.0.2.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(SinkRefused):
        check_address("sink.example", address, allow_private=False)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::ffff:169.254.1.1"])
def test_where_clouds_keep_credentials_nobody_may_be_called_ever(address: str) -> None:
    with pytest.raises(SinkRefused, match="nobody may be called"):
        check_address("sink.example", address, allow_private=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_fine(address: str) -> None:
    check_address("sink.example", address, allow_private=False)


@pytest.mark.parametrize(
    "sink",
    ["ftp://a.example/", "a.example", "https://", "https://user:pw@a.example/", "http://a.example:0/",
     "http://a.example:x/", "http://a.example/#x", "file:///etc/passwd", "http://[::1"],
)  # fmt: skip
def test_what_is_no_sink_is_refused(sink: str) -> None:
    with pytest.raises(SinkRefused):
        check_url(sink)


@pytest.mark.parametrize(
    "sink", ["http://127.0.0.1/", "http://[::1]:80/", "http://2130706433/", "http://localhost/", "http://0x7f.1/"]
)
async def test_the_api_refuses_a_private_sink_unless_the_operator_allows_it(world: Any, sink: str) -> None:
    parts = replace(world.parts, secrets=box())
    world.app = create_app(parts)
    answer = await world.client().post(PATH, json={"name": "lms", "sink": sink})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "sink")
    assert "WEBHOOK_ALLOW_PRIVATE" in answer.text or "nobody may be called" in answer.text


async def test_every_address_of_a_name_is_looked_at_at_the_time_of_the_call(
    sink: SinkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was public when the subscription was made and is private now gains nothing."""
    port = int(sink.url.rpartition(":")[2].partition("/")[0])
    answers = [["8.8.8.8"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]]

    async def resolve(host: str, port: Any, **_: Any) -> Any:
        assert host == "sink.example"
        return [(2, 1, 6, "", (address, port)) for address in answers[0]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    await check_sink("http://sink.example/", allow_private=False)
    async with HttpSender(timeout=2) as sender:
        for found in answers[1:]:
            answers[0] = found
            told = await sender.post(f"http://sink.example:{port}/", {}, b"{}", allow_private=False)
            assert told.status is None
            assert "private address" in told.message
        assert sink.tries == []
        told = await sender.post(f"http://sink.example:{port}/", {}, b"{}", allow_private=True)
        assert told.taken


async def test_a_redirect_is_not_followed(desk: Desk, sink: SinkServer) -> None:
    sink.location = sink.url
    sink.answer = lambda _: 307
    told = await desk.sender.post(sink.url, {}, b"{}", allow_private=True)
    assert (told.status, len(sink.tries)) == (307, 1)
    assert "redirects are not followed" in told.message


async def test_a_sink_that_says_when_to_come_back_is_left_alone_until_then(desk: Desk, sink: SinkServer) -> None:
    async def busy(request: web.Request) -> web.Response:
        sink.tries.append({})
        return web.Response(status=429, headers={"Retry-After": "600"})

    async with serving(busy) as url:
        await desk.subscribe(f"{url}/")
        async with desk.serving():
            await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(40)))
            await until(lambda: sink.tries)
            await desk.quiet()
            seen = len(sink.tries)
            await desk.pass_time(timedelta(seconds=590), timedelta(seconds=59))
            assert len(sink.tries) == seen
