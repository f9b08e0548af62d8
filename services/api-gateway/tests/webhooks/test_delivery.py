"""What fits a subscription reaches its sink: signed, in the order of each subject, after whatever has failed meanwhile."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from prometheus_client import generate_latest

from lablet_common.bus import EVENTS_STREAM
from lablet_common.bus.consumer import REBUILDS, forget_counts
from lablet_common.bus.messages import DeadLetter
from lablet_common.events import derive
from lablet_common.events.binding import encode
from lablet_common.ownership import NotOwner
from lablet_common.resources.key import ApiKey, KeyPhase, KeySpec, KeyStatus
from lablet_common.resources.kinds import RESERVATION, ownership_key
from lablet_common.telemetry.metrics import DEAD_LETTERED, EVENT_HANDLING, REGISTRY
from lablet_gateway.deadletters import redelivery_subject
from lablet_gateway.webhooks.delivery import AT_ONCE
from lablet_gateway.webhooks.registry import Registry
from lablet_gateway.webhooks.sender import HttpSender
from lablet_gateway.webhooks.signing import new_secret, signature

from .conftest import PATH, Desk, SinkServer, until


def checker_of_the_page() -> Callable[[str, dict[str, str], bytes], bool]:
    """The function that docs/guides/webhooks.md gives to whoever receives."""
    page = (Path(__file__).resolve().parents[4] / "docs" / "guides" / "webhooks.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize(
    ("by", "heard"),
    [
        ("admin@default", ["worker/default-001", "key/key-a", "reservation/rsv-a"]),
        ("instructor@default", ["worker/default-001", "reservation/rsv-a"]),
        ("machine@default", ["reservation/rsv-a"]),
    ],
)
async def test_a_sink_hears_what_the_role_of_whoever_chose_it_may(
    desk: Desk, sink: SinkServer, by: str, heard: list[str]
) -> None:
    await desk.subscribe(sink.url, by=by)
    key = ApiKey(
        metadata=desk.world.metadata("key-a"),
        spec=KeySpec(name="grader", expires_at=desk.world.now),
        status=KeyStatus(phase=KeyPhase.ACTIVE),
    )
    async with desk.serving():
        await desk.publish(desk.world.worker(), key, desk.world.reservation("rsv-a"))
        await until(lambda: len(sink.taken) == len(heard))
        await desk.bus.settle()
        assert sorted(event["subject"] for event in sink.taken) == sorted(heard)


async def test_who_chooses_another_sink_for_it_hears_no_more_than_they_may(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe("http://127.0.0.1:9/nobody")
    answer = await desk.client("operator@default").patch(
        f"{PATH}/lms", json={"sink": sink.url}, headers={"If-Match": "*"}
    )
    assert answer.json()["status"]["role"] == "operator"
    answer = await desk.client().patch(f"{PATH}/lms", json={"paused": True}, headers={"If-Match": "*"})
    assert answer.json()["status"]["role"] == "operator"


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


async def test_a_hundred_events_that_the_sink_cannot_take_hold_up_nobody_else(desk: Desk, sink: SinkServer) -> None:
    sink.answer = lambda event: 400 if "poison" in event["subject"] else 200
    await desk.subscribe(sink.url)
    async with desk.serving():
        await desk.publish(*(desk.world.reservation(f"poison-{n}") for n in range(100)))
        await until(lambda: len(sink.tries) == 100)
        await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(50)))
        await until(lambda: len(sink.taken) == 50)


async def test_a_sink_is_called_a_few_times_at_once_and_not_at_all_once_it_is_down(
    desk: Desk, sink: SinkServer
) -> None:
    await desk.subscribe(sink.url)
    go = asyncio.Event()
    most = 0
    post = HttpSender.post

    async def slow(*given: Any, **more: Any) -> Any:
        nonlocal most
        most = max(most, desk.calls.under_way)
        await go.wait()
        return await post(*given, **more)

    sink.answer = lambda _: 503
    desk.calls.send = slow
    async with desk.serving():
        await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(100)))
        await until(lambda: desk.calls.under_way == AT_ONCE)
        go.set()
        await until(lambda: not desk.calls.under_way)
        await desk.quiet()
    assert most == AT_ONCE
    assert len(sink.tries) == AT_ONCE


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
        assert subject == redelivery_subject(await kept(desk))
        await desk.bus.put(subject, dict(sent.headers), sent.payload)
        await until(lambda: len(sink.taken) == 2)
    assert sink.subjects()[1] == ("reservation/rsv-a", 1)
    assert sink.headers[0]["webhook-id"] != sink.headers[1]["webhook-id"]


async def kept(desk: Desk, name: str = "lms") -> Any:
    return await Registry(desk.parts).get(name)


async def test_what_one_tenants_sink_did_not_take_is_not_for_another_that_has_the_name_now(
    desk: Desk, sink: SinkServer
) -> None:
    await desk.subscribe(sink.url, by="admin@acme")
    reservation = desk.world.reservation("rsv-secret", tenant="acme")
    (outgoing,) = derive(RESERVATION, None, reservation, 7, source="/lablet/scheduler")
    headers, payload = encode(outgoing.event)
    letter = DeadLetter(outgoing.subject, headers, payload, EVENTS_STREAM, 1, "webhook-lms", "422", 200, desk.world.now)
    former = redelivery_subject(await kept(desk))
    async with desk.serving():
        assert (await desk.client("admin@acme").delete(f"{PATH}/lms")).status_code == 204
        await until(lambda: _gone(desk))
    desk.world.dead.letters = {7: letter}
    replay = "/api/v1/dead-letters/7/replay"
    gone = await desk.client().post(replay)
    assert (gone.status_code, list(desk.world.dead.letters)) == (409, [7])
    await desk.subscribe(sink.url)
    assert (await desk.client().post(f"{PATH}/lms/redeliver")).json() == {"redelivered": 0}
    assert (await desk.client().post(replay)).status_code == 409
    async with desk.serving():
        await desk.bus.put(former, headers, payload)
        await desk.bus.put(redelivery_subject(await kept(desk)), headers, payload)
        await desk.publish(desk.world.reservation("rsv-own"))
        await until(lambda: sink.taken)
        await desk.bus.settle()
    assert [event["subject"] for event in sink.tries] == ["reservation/rsv-own"]
    assert (list(desk.world.dead.letters), desk.world.dead.replayed) == ([7], [])


async def test_what_was_sent_again_to_a_subscription_is_not_for_the_next_of_its_name(
    desk: Desk, sink: SinkServer
) -> None:
    await desk.subscribe(sink.url)
    former = redelivery_subject(await kept(desk))
    (outgoing,) = derive(RESERVATION, None, desk.world.reservation("rsv-a"), 7, source="/lablet/scheduler")
    async with desk.serving():
        await desk.bus.put(former, *encode(outgoing.event))
        await until(lambda: len(sink.taken) == 1)
        await desk.client().delete(f"{PATH}/lms")
        await until(lambda: _gone(desk))
    await desk.subscribe(sink.url)
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-b"))
        await until(lambda: len(sink.taken) == 2)
        await desk.bus.settle()
    assert [subject for subject, _ in sink.subjects()] == ["reservation/rsv-a", "reservation/rsv-b"]


async def test_what_a_gateway_of_before_has_sent_again_reaches_the_sink_and_no_other_tenants(
    desk: Desk, sink: SinkServer
) -> None:
    await desk.subscribe(sink.url)
    async with desk.serving():
        for name, tenant in (("rsv-theirs", "acme"), ("rsv-own", "default")):
            reservation = desk.world.reservation(name, tenant=tenant)
            (outgoing,) = derive(RESERVATION, None, reservation, 7, source="/lablet/scheduler")
            await desk.bus.put("lablet.intent.api-gateway.-.subscription.lms", *encode(outgoing.event))
        await until(lambda: sink.taken)
        await desk.bus.settle()
    assert [subject for subject, _ in sink.subjects()] == ["reservation/rsv-own"]


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
