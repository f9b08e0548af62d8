"""Events out: live, resumed without gap or repeat, filtered, seen only by whom they concern; and one resource's story."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from lablet_common.events import derive
from lablet_common.events.binding import encode_structured, from_document
from lablet_common.resources.kinds import kind_of
from lablet_common.resources.reservation import Reservation
from lablet_common.telemetry.metrics import REGISTRY
from lablet_gateway import listening, streams
from lablet_gateway.caller import Caller
from lablet_gateway.eventlog import Logged, MemoryEventLog
from lablet_gateway.identity import Principal, ProviderUnavailable, Role
from lablet_gateway.identity.token_file import TokenFile
from lablet_gateway.rights import Scope
from lablet_gateway.sight import CallersSight
from lablet_gateway.streams import Filter, Hub

SOURCE = "/lablet/scheduler"


def published(resource: Any, revision: int) -> Any:
    """The state event of a commit."""
    (outgoing,) = derive(kind_of(resource), None, resource, revision, source=SOURCE)
    return outgoing.event


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def number_of(frame: dict[str, str]) -> int:
    return int(frame["id"].rpartition("-")[2])


def subject_of(frame: dict[str, str]) -> str:
    return str(json.loads(frame["data"])["subject"])


async def test_a_listener_hears_what_is_published_as_cloudevents(world: Any, listen: Any) -> None:
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-a"), 7))
        frame = await stream.next()
    told = json.loads(frame["data"])
    assert (told["specversion"], told["subject"], told["type"]) == (
        "1.0",
        "reservation/rsv-a",
        "io.lablet.reservation.scheduled.v1",
    )
    assert told["data"]["status"]["phase"] == "Scheduled"


async def test_a_listener_resumes_without_gap_or_repeat_from_memory_and_from_the_log(world: Any, listen: Any) -> None:
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-0"), 1))
        last = (await stream.next())["id"]
    for missed in (5, 100):  # within the ring of 10, and far beyond it
        first = number_of({"id": last}) + 1
        for at in range(first, first + missed):
            world.log.append(published(world.reservation(f"rsv-{at}"), at))
        async with listen(last=last) as stream:
            frames = [await stream.next() for _ in range(missed)]
            world.log.append(published(world.reservation("rsv-live"), first + missed))
            frames.append(await stream.next())
        assert [number_of(frame) for frame in frames] == list(range(first, first + missed + 1))
        last = frames[-1]["id"]


async def test_three_hundred_listeners_each_hear_every_event_that_is_encoded_once(
    world: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str | None] = []

    def counted(event: Any) -> Any:
        encoded.append(event.get_subject())
        return encode_structured(event)

    monkeypatch.setattr(streams, "encode_structured", counted)
    count = world.parts.settings.gateway_stream_buffer  # who lags behind by more reads the log, and encodes anew
    async with asyncio.TaskGroup() as tasks:
        ready = asyncio.Semaphore(0)

        async def hear() -> list[int]:
            async with listen() as stream:
                ready.release()
                return [number_of(await stream.next(20)) for _ in range(count)]

        heard = [tasks.create_task(hear()) for _ in range(300)]
        for _ in heard:
            await ready.acquire()
        for at in range(1, count + 1):
            world.log.append(published(world.reservation(f"rsv-{at}"), at))
            await asyncio.sleep(0)
    assert {tuple(task.result()) for task in heard} == {tuple(range(1, count + 1))}
    assert encoded == [f"reservation/rsv-{at}" for at in range(1, count + 1)]


@pytest.mark.parametrize(("others", "pieces"), [(0, 5), (200, 1)])
async def test_the_more_listen_the_more_of_a_burst_goes_out_in_one_piece(world: Any, others: int, pieces: int) -> None:
    hub = Hub(world.log, 100)
    async with running(hub.run()):
        await hub.ready(5)
        hub.clients = others
        frames = hub.frames(await hub.place(None), Filter(), lambda entry: entry, 30.0)
        assert (await anext(frames)).startswith(b": still here\n")
        told = []
        for at in range(1, 6):
            world.log.append(published(world.reservation(f"rsv-{at}"), at))
            if not others:
                told.append(await anext(frames))
            await asyncio.sleep(0)
        while sum(piece.count(b"data: ") for piece in told) < 5:
            told.append(await anext(frames))
        await frames.aclose()
    assert len(told) == pieces


async def test_an_event_that_was_published_twice_is_heard_once(world: Any, listen: Any) -> None:
    newer, older = published(world.reservation("rsv-a"), 9), published(world.reservation("rsv-a"), 8)
    async with listen() as stream:
        world.log.append(newer, newer, older, published(world.reservation("rsv-b"), 10))
        assert [subject_of(await stream.next()) for _ in range(2)] == ["reservation/rsv-a", "reservation/rsv-b"]


async def test_filters_narrow_by_kind_id_correlation_and_label(world: Any, listen: Any) -> None:
    a = world.reservation("rsv-a", labels={"course": "x"}, correlation_id="req-1")
    b = world.reservation("rsv-b", labels={"course": "y"})
    worker = world.worker()
    for query in (
        "kind=reservation&id=rsv-a",
        "label=course%3Dx",
        "correlation=req-1",
        "kind=reservation,pool&id=rsv-a",
    ):
        async with listen(query) as stream:
            last = (await world.log.bounds()).last
            world.log.append(*(published(one, last + 1000 + at) for at, one in enumerate((worker, b, a))))
            assert subject_of(await stream.next()) == "reservation/rsv-a"
    async with listen("kind=reservatio") as stream:
        assert await stream.status == 422


async def test_a_listener_of_a_stream_made_anew_is_told_to_begin_anew(world: Any, listen: Any) -> None:
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-a"), 1))
        last = (await stream.next())["id"]
        world.log.recreate()
        world.log.append(published(world.reservation("rsv-b"), 2))
        assert (await stream.next())["event"] == "reset"
    async with listen(last=last) as stream:
        assert (await stream.next())["event"] == "reset"
        world.log.append(published(world.reservation("rsv-c"), 3))
        assert subject_of(await stream.next()) == "reservation/rsv-c"


async def test_a_stream_made_anew_that_has_overtaken_the_old_one_is_followed_without_a_gap(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows JetStream goes by numbers alone, and may only look once there are as many as there were."""
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.01)

    class Slow(MemoryEventLog):
        async def follow(self, after: int, handler: Any) -> None:
            generation = self._generation
            while True:
                fitting = [logged for logged in self.events if logged.number > after]
                if self._generation != generation and self._last < 100:
                    fitting = []
                for logged in fitting:
                    await handler(logged)
                    after = logged.number
                await asyncio.sleep(0.001)

    log = Slow()
    hub = Hub(log, 500)
    async with running(hub.run()), asyncio.timeout(5):
        await hub.ready(5)
        frames = hub.frames(await hub.place(None), Filter(), lambda entry: entry, 30.0)
        await anext(frames)
        log.append(*(published(world.reservation(f"rsv-{at}"), at) for at in range(1, 81)))
        told = b""
        while told.count(b"data: ") < 80:
            told += await anext(frames)
        log.recreate()
        log.append(*(published(world.reservation(f"new-{at}"), 100 + at) for at in range(1, 6)))
        assert b"event: reset" in await anext(frames)
        log.append(*(published(world.reservation(f"new-{at}"), 100 + at) for at in range(6, 121)))
        told = b""
        while b"new-120" not in told:
            told += await anext(frames)
        await frames.aclose()
    assert [f"new-{at}" for at in range(6, 121) if b'"reservation/new-%d"' % at not in told] == []


async def test_a_stream_made_anew_while_the_hub_goes_to_rest_is_heard_from_its_end(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.05)
    hub = Hub(world.log, 100)
    async with running(hub.run()), asyncio.timeout(5):
        await hub.ready(5)
        while hub._wanted.is_set():
            await asyncio.sleep(0.001)
        world.log.recreate()
        while hub.epoch != (await world.log.bounds()).epoch:
            await asyncio.sleep(0.001)
        world.log.append(published(world.reservation("rsv-1"), 1))
        assert (await hub.arrive(None, 5)).number == 1


async def test_who_comes_back_too_late_is_told_that_something_is_missing(world: Any, listen: Any) -> None:
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-0"), 1))
        last = (await stream.next())["id"]
    for at in range(2, 60):
        world.log.append(published(world.reservation(f"rsv-{at}"), at))
    world.log.forget(20)
    async with listen(last=last) as stream:
        assert (await stream.next())["event"] == "reset"
        assert number_of(await stream.next()) == 21


async def test_who_has_heard_nothing_knows_the_place_to_come_back_to(world: Any, listen: Any) -> None:
    """Else what happens between two connections is missed by whoever had heard nothing on the first."""
    world.log.append(published(world.reservation("rsv-0"), 1))
    async with listen() as stream:
        place = stream.place
    world.log.append(published(world.reservation("rsv-1"), 2))
    async with listen(last=place) as stream:
        assert number_of(await stream.next()) == 2


async def test_who_hears_little_comes_on_all_the_same(world: Any, listen: Any) -> None:
    """Of a class, say, one seat: by an old id all that others heard would be read at each return, until that is forgotten."""
    brief = world.parts.settings.model_copy(update={"gateway_heartbeat_seconds": 0.02})
    world.app.state.parts = replace(world.parts, settings=brief)
    others = [published(world.reservation(f"rsv-{at}"), at) for at in range(1, 60)]
    async with listen("id=rsv-own") as stream:
        for at in range(0, len(others), 5):  # fewer than the ring of 10 holds
            world.log.append(*others[at : at + 5])
            async with asyncio.timeout(5):
                while number_of({"id": stream.place}) < min(at + 5, 59):
                    await stream.comment()
        last = stream.place
    world.log.forget(50)
    async with listen("id=rsv-own", last=last) as stream:
        world.log.append(published(world.reservation("rsv-own"), 60))
        assert number_of(await stream.next()) == 60


async def test_who_catches_up_with_what_is_not_for_it_hears_how_far_it_is(
    world: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take minutes: a client that hears nothing for long takes the stream for dead, and begins at the same place."""
    monkeypatch.setattr(streams, "_CATCH_UP", 10)
    async with listen() as stream:
        start = stream.place
        world.log.append(*(published(world.reservation(f"rsv-{at}"), at) for at in range(1, 60)))
        for _ in range(59):
            await stream.next()
    async with listen("id=rsv-own", last=start) as stream:
        places = [number_of({"id": stream.place})]
        async with asyncio.timeout(5):
            while places[-1] < 45:
                await stream.comment()
                places.append(number_of({"id": stream.place}))
    assert places == [0, 10, 20, 30, 40, 50]


async def test_while_nats_is_away_listeners_wait_and_miss_nothing(world: Any, listen: Any) -> None:
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-0"), 1))
        last = (await stream.next())["id"]
    for at in range(2, 50):
        world.log.append(published(world.reservation(f"rsv-{at}"), at))
    async with listen() as other:  # the hub has taken everything
        world.log.append(published(world.reservation("rsv-50"), 50))
        await other.next()
    world.log.unavailable = True
    async with listen(last=last) as stream:
        await stream.comment()
        world.log.unavailable = False
        assert [number_of(await stream.next()) for _ in range(49)] == list(range(2, 51))


async def test_the_log_is_followed_only_while_somebody_listens(
    world: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who comes back finds no gap, although nobody has heard what came in between."""
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.01)
    following: list[int] = []
    follow = world.log.follow

    async def followed(after: int, handler: Any) -> None:
        following.append(after)
        try:
            await follow(after, handler)
        finally:
            following.remove(after)

    monkeypatch.setattr(world.log, "follow", followed)

    async def until(count: int) -> None:
        async with asyncio.timeout(5):
            while len(following) != count:
                await asyncio.sleep(0.001)

    await asyncio.sleep(0.03)
    assert not following
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-1"), 1))
        last = (await stream.next())["id"]
        await asyncio.sleep(0.05)
        assert len(following) == 1, "for as long as somebody listens"
    await until(0)
    world.log.append(published(world.reservation("rsv-2"), 2))
    async with listen(last=last) as stream, listen() as new:
        assert number_of(await stream.next()) == 2
        world.log.append(published(world.reservation("rsv-3"), 3))
        assert [number_of(await one.next()) for one in (stream, new)] == [3, 3]
    await until(0)


async def test_who_begins_to_listen_while_the_hub_rests_wakes_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question for its place and its first frame a client may be slow."""
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.001)
    hub = Hub(world.log, 100)
    async with running(hub.run()), asyncio.timeout(5):
        await hub.ready(5)
        place = await hub.place(None)
        while hub._started.is_set():
            await asyncio.sleep(0.001)
        world.log.append(published(world.reservation("rsv-1"), 1))
        frames = hub.frames(place, Filter(), lambda entry: entry, 30.0)
        assert (await anext(frames)).startswith(b": still here\n")
        assert b"rsv-1" in await anext(frames)
        await frames.aclose()


async def test_who_comes_back_to_a_hub_at_rest_is_let_in_while_nats_is_away(
    world: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.001)
    async with listen() as stream:
        world.log.append(published(world.reservation("rsv-1"), 1))
        last = (await stream.next())["id"]
    async with asyncio.timeout(5):
        while world.parts.hub._started.is_set():
            await asyncio.sleep(0.001)
    world.log.append(published(world.reservation("rsv-2"), 2))
    world.log.unavailable = True
    async with listen(last=last) as stream:
        assert await stream.status == 200
        world.log.unavailable = False
        assert number_of(await stream.next()) == 2


async def test_those_who_wait_for_the_log_count_as_streams(world: Any, listen: Any) -> None:
    few = world.parts.settings.model_copy(update={"gateway_max_streams": 1})
    world.app.state.parts = replace(world.parts, settings=few)
    world.log.unavailable = True
    waiting = asyncio.create_task(world.parts.hub.arrive(None, 5))
    await asyncio.sleep(0)
    async with listen() as stream:
        assert await stream.status == 429
    world.log.unavailable = False
    await waiting
    async with listen() as stream:
        assert await stream.status == 200


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("admin@default", ["reservation/rsv-ann", "reservation/rsv-bob", "instance/ins-ann-1", "worker/default-001"]),
        ("ina", ["reservation/rsv-ann", "reservation/rsv-bob", "instance/ins-ann-1", "worker/default-001"]),
        ("ann", ["reservation/rsv-ann", "instance/ins-ann-1"]),
        ("bob", ["reservation/rsv-bob"]),
        ("learner@acme", []),
        ("operator@acme", ["worker/default-001"]),
        ("machine@default", ["reservation/rsv-ann", "reservation/rsv-bob", "instance/ins-ann-1"]),
    ],
)
async def test_everybody_hears_what_concerns_them_and_nothing_else(
    world: Any, listen: Any, name: str, heard: list[str]
) -> None:
    ann, bob = world.reservation("rsv-ann", owner="ann"), world.reservation("rsv-bob", owner="bob")
    await world.add(ann, bob)
    await world.caught_up()
    last_one = world.definition("shared", tenant="public")
    async with listen(token=name) as stream:
        for at, resource in enumerate((ann, bob, world.instance(ann), world.worker(), last_one), 1):
            world.log.append(published(resource, at))
        told = []
        while (subject := subject_of(await stream.next())) != "definition/shared@1.0.0":
            told.append(subject)
    assert told == heard


async def test_a_stream_ends_when_its_token_has_ended(world: Any, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was revoked is not to hear on for as long as it does not let go."""
    monkeypatch.setattr(listening, "_LOOK_SECONDS", 0.01)
    made = (await world.client().post("/api/v1/keys", json={"name": "lms"})).json()
    await world.caught_up()
    key = made["key"]["metadata"]["id"]
    async with listen(bearer=made["token"]) as stream, listen() as other:
        world.log.append(published(world.reservation("rsv-a"), 1))
        assert subject_of(await stream.next()) == "reservation/rsv-a"
        await asyncio.sleep(0.05)
        assert not stream.ended.is_set()
        assert (await world.client().delete(f"/api/v1/keys/{key}")).status_code == 200
        async with asyncio.timeout(5):
            await stream.ended.wait()
        assert not other.ended.is_set()
        assert world.parts.hub.clients == 1


async def test_a_stream_goes_on_while_nobody_can_say_whether_its_token_stands(
    world: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_LOOK_SECONDS", 0.01)
    asked = asyncio.Event()

    async def away(_: str) -> Any:
        asked.set()
        raise ProviderUnavailable("the identity provider is away")

    async with listen() as stream:
        monkeypatch.setattr(TokenFile, "verify", lambda self, token: away(token))
        await asked.wait()
        world.log.append(published(world.reservation("rsv-a"), 1))
        assert subject_of(await stream.next()) == "reservation/rsv-a"
        assert not stream.ended.is_set()


async def test_an_event_is_read_once_for_all_who_may_see_only_what_is_theirs(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    validate = Reservation.model_validate
    monkeypatch.setattr(
        Reservation, "model_validate", lambda data: (read.append(data["metadata"]["id"]), validate(data))[1]
    )
    entry = streams.entry_of(Logged(1, published(world.reservation("rsv-of-a-class", roster={1: "ann"}), 1)), "e1")
    learners = [Caller(Principal(f"learner-{at}", Role.LEARNER, "default"), Scope.OWN) for at in range(300)]
    ann = Caller(Principal("ann", Role.LEARNER, "default"), Scope.OWN)
    assert [CallersSight(world.parts, one)(entry) for one in learners] == [None] * 300
    assert CallersSight(world.parts, ann)(entry) is not None
    assert read == ["rsv-of-a-class"]


async def test_what_another_release_has_published_ends_nobodys_stream(world: Any, listen: Any) -> None:
    """It may have fields that this one does not know, or be of a version that this one cannot read."""

    def told(name: str, at: int, **more: Any) -> Any:
        _, body = encode_structured(published(world.reservation(name, owner="ann", roster={1: "ann"}), at))
        document = json.loads(body)
        return from_document(document | {"data": document["data"] | more})

    async with listen(token="ann") as stream:
        world.log.append(told("rsv-later", 1, schemaVersion=99), told("rsv-more", 2, addedLater={"a": 1}))
        world.log.append(told("rsv-own", 3))
        assert [subject_of(await stream.next()) for _ in range(2)] == ["reservation/rsv-more", "reservation/rsv-own"]
    assert (await world.client("ann").get("/api/v1/events?subject=reservation/rsv-later")).json() == []


async def test_more_streams_than_the_limit_are_answered_429(world: Any, listen: Any) -> None:
    world.parts.hub.clients = world.parts.settings.gateway_max_streams
    async with listen() as stream:
        assert await stream.status == 429


async def test_a_silent_stream_gets_heartbeats(world: Any, listen: Any) -> None:
    brief = world.parts.settings.model_copy(update={"gateway_heartbeat_seconds": 0.02})
    world.app.state.parts = replace(world.parts, settings=brief)
    async with listen() as stream:
        for _ in range(3):
            assert (await stream.comment()).startswith(b": ")
        world.log.append(published(world.reservation("rsv-a"), 1))
        assert subject_of(await stream.next()) == "reservation/rsv-a"


async def test_a_client_that_does_not_read_is_let_go_and_its_place_is_free(world: Any) -> None:
    brief = world.parts.settings.model_copy(update={"gateway_stream_patience_seconds": 0.05})
    world.app.state.parts = replace(world.parts, settings=brief)
    before = REGISTRY.get_sample_value("lablet_streams_let_go_total") or 0
    sent: list[Any] = []

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 2:  # the start and the first comment went into the socket's buffer; now it is full
            await asyncio.Event().wait()

    headers = [(b"authorization", b"Bearer secret-of-admin@default")]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/api/v1/events/stream", "raw_path": b"", "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("gateway", 80), "root_path": "",
    }  # fmt: skip
    serving = asyncio.create_task(world.app(scope, receive, send))
    async with asyncio.timeout(10):
        while len(sent) < 2:
            await asyncio.sleep(0.005)
        assert world.parts.hub.clients == 1
        world.log.append(published(world.reservation("rsv-a"), 1))
        await asyncio.wait({serving})
    assert serving.exception() is None
    assert world.parts.hub.clients == 0
    assert REGISTRY.get_sample_value("lablet_streams_let_go_total") == before + 1


async def test_a_stream_that_is_asked_for_once_the_hub_has_closed_is_answered(world: Any, listen: Any) -> None:
    world.parts.hub.close()
    async with listen() as stream:
        assert await stream.status == 200


async def test_an_open_stream_ends_when_the_hub_closes(world: Any) -> None:
    hub = Hub(world.log, 100)
    async with running(hub.run()):
        await hub.ready(5)
        frames = hub.frames(await hub.place(None), Filter(), lambda entry: entry, 30.0)
        assert (await anext(frames)).startswith(b": still here\n")
        waiting = asyncio.create_task(anext(frames, b"ended"))
        await asyncio.sleep(0)
        hub.close()
        assert await asyncio.wait_for(waiting, 5) == b"ended"
    assert hub.clients == 0


async def test_a_story_is_in_order_each_event_once_and_only_for_whom_it_concerns(world: Any) -> None:
    ann = world.reservation("rsv-ann", owner="ann")
    second = published(ann.observed("changed"), 12)
    world.log.append(second, published(ann, 7), second, published(world.reservation("rsv-x"), 9))
    path = "/api/v1/events?subject=reservation/rsv-ann"
    told = await world.client("ann").get(path)
    assert told.headers["content-type"] == "application/cloudevents-batch+json"
    assert [int(event["sequence"]) for event in told.json()] == [7, 12]
    assert (await world.client("bob").get(path)).json() == []
    assert (await world.client("admin@acme").get(path)).json() == []
    assert (await world.client("ann").get("/api/v1/events?subject=nonsense")).status_code == 422
    world.log.unavailable = True
    answer = await world.client("ann").get(path)
    assert (answer.status_code, answer.json()["dependency"]) == (503, "nats")


async def test_a_story_goes_on_from_etcd_where_the_log_has_forgotten(world: Any) -> None:
    booked = world.reservation("rsv-ann", owner="ann", phase="Scheduled")
    await world.add(booked)
    stored = await world.client("ann").get("/api/v1/reservations/rsv-ann")
    revision = int(stored.json()["metadata"]["resourceVersion"])
    (told,) = (await world.client("ann").get("/api/v1/events?subject=reservation/rsv-ann")).json()
    assert (int(told["sequence"]), told["replayed"]) == (revision, "true")
    assert told["id"] == f"reservation/uid-rsv-ann/{revision}"
    assert told["source"] == "/lablet/scheduler"
    assert told["data"]["status"]["phase"] == "Scheduled"
    world.log.append(published(booked, revision))
    (told,) = (await world.client("ann").get("/api/v1/events?subject=reservation/rsv-ann")).json()
    assert "replayed" not in told, "what the log has is not told twice"
    assert (await world.client("bob").get("/api/v1/events?subject=reservation/rsv-ann")).json() == []


async def test_the_story_of_what_has_been_archived_is_whole_and_in_order(world: Any) -> None:
    booked = world.reservation("rsv-a", phase="Scheduled", roster={1: "ann", 2: "bob"})
    ended = booked.moved("Active", at=world.now, by="t", reason="Begun").moved(
        "Completed", at=world.now, by="t", reason="SlotEnded"
    )
    seat = world.instance(booked, 1, "Terminated").at_revision(40)
    world.log.append(published(booked, 7))
    await world.archive(ended.at_revision(31), seat)
    told = (await world.client("ann").get("/api/v1/events?subject=reservation/rsv-a")).json()
    assert [int(event["sequence"]) for event in told] == [7, 31]
    moves = told[-1]["data"]["status"]["history"]
    assert [move["to"] for move in moves] == ["Active", "Completed"]
    path = "/api/v1/events?subject=instance/ins-a-1"
    assert [int(event["sequence"]) for event in (await world.client("ann").get(path)).json()] == [40]
    assert (await world.client("bob").get(path)).json() == [], "another seat's"
    assert (await world.client("admin@acme").get(path)).json() == []


async def test_what_is_too_large_to_be_told_is_read_at_its_dataref(world: Any, booking: Any) -> None:
    reservation = world.reservation()
    instance, artifact = world.instance(reservation), await world.artifact(b"hostname r1", "instance/ins-a-1")
    await world.add(reservation, instance, world.series(), artifact)
    client = world.client()
    assert (await client.post("/api/v1/reservations", json=booking())).status_code == 202
    (request,) = await world.inbox()
    present = (reservation, instance, world.series(), artifact, request, world.definition(), world.worker(), world.pool(),
               world.template())  # fmt: skip
    for resource in present:
        large = resource.relabelled({f"k{at}": "x" * 200 for at in range(400)})
        event = derive(kind_of(large), None, large, 7, source=SOURCE)[0].event
        assert event.get_data() is None
        read = await client.get(event.get_extension("dataref"))
        assert read.status_code == 200, read.text
        answer = read.json()
        (found,) = answer.get("items", [answer])
        assert (found["kind"], found["metadata"]["id"]) == (json.loads(resource.to_json())["kind"], resource.id)
