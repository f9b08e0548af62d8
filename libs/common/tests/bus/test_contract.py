"""What every bus promises: checked in memory and on the real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lablet_common.bus import EVENTS_STREAM, Bus, BusUnavailable, MemoryBus, Received, RetryPolicy, intents_stream
from lablet_common.bus.consumer import After, epoch_of
from lablet_common.bus.messages import DeadLetter, publishable
from lablet_common.events import Outgoing, data_of, subjects
from lablet_common.resources import Service

Make = Callable[..., Outgoing]
Until = Callable[..., Awaitable[None]]
AnyBus = Bus | MemoryBus

STREAM = intents_stream(Service.SCHEDULER)
FILTER = [subjects.intent_filter(Service.SCHEDULER)]
QUICK = RetryPolicy(pauses=(0.01, 0.02), timeout=5)


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
def bus(request: pytest.FixtureRequest) -> AnyBus:
    return MemoryBus() if request.param == "memory" else request.getfixturevalue("gateway_bus")


async def test_an_event_arrives_as_it_was_sent(bus: AnyBus, make: Make, until: Until, running: Any) -> None:
    got: list[Received] = []

    async def handler(message: Received) -> None:
        got.append(message)

    out = make("rsv.1 odd", 12, correlationid="req-1")
    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(out)
        await until(lambda: got)
    (message,) = got
    assert (message.kind, message.id, message.sequence) == ("reservation", "rsv.1 odd", 12)
    assert message.event.get_attributes() == out.event.get_attributes()
    assert data_of(message.event) == {"reason": "rain"}
    assert message.subject == out.subject
    assert message.deliveries == 1


async def test_the_same_message_published_twice_is_stored_once(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    got: list[str] = []

    async def handler(message: Received) -> None:
        got.append(message.id)

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(make("a"))
        await bus.publish(make("a"))
        await bus.publish(make("b"))
        await until(lambda: "b" in got)
    assert got == ["a", "b"]


async def test_a_failed_message_comes_again_until_it_succeeds(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    deliveries: list[int] = []

    async def handler(message: Received) -> None:
        deliveries.append(message.deliveries)
        if len(deliveries) < 3:
            raise RuntimeError("not yet")

    async with running(bus.consumer(STREAM, "c", FILTER, handler, policy=QUICK)):
        await bus.publish(make())
        await until(lambda: len(deliveries) == 3)
    assert deliveries == [1, 2, 3]


async def test_events_of_one_subject_are_handled_one_at_a_time_and_in_order(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    order: list[tuple[str, int]] = []
    busy: set[str] = set()

    async def handler(message: Received) -> None:
        assert message.id not in busy
        busy.add(message.id)
        await asyncio.sleep(0.001)
        busy.discard(message.id)
        order.append((message.id, message.sequence))

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        for sequence in range(1, 21):
            for name in "abc":
                await bus.publish(make(name, sequence))
        await until(lambda: len(order) == 60)
    for name in "abc":
        assert [sequence for key, sequence in order if key == name] == list(range(1, 21))


async def test_a_slow_message_holds_up_nobody_else(bus: AnyBus, make: Make, until: Until, running: Any) -> None:
    release = asyncio.Event()
    done: list[str] = []

    async def handler(message: Received) -> None:
        if message.id == "slow":
            await release.wait()
        done.append(message.id)

    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await bus.publish(make("slow"))
        for number in range(300):
            await bus.publish(make(f"quick-{number}"))
        await until(lambda: len(done) == 300)
        assert "slow" not in done
        release.set()
        await until(lambda: "slow" in done)


async def test_a_repeated_or_older_state_event_is_dropped(bus: AnyBus, make: Make, until: Until, running: Any) -> None:
    got: list[tuple[str, int]] = []

    async def handler(message: Received) -> None:
        got.append((message.id, message.sequence))

    async with running(bus.consumer(EVENTS_STREAM, "c", [subjects.event_filter()], handler, start="all")):
        for name, sequence in (("a", 5), ("a", 3), ("b", 4), ("a", 6), ("end", 1)):
            await bus.publish(make(name, sequence, state=True))
        await until(lambda: ("end", 1) in got)
    assert sorted(got) == [("a", 5), ("a", 6), ("b", 4), ("end", 1)]


async def test_a_state_event_that_failed_is_not_taken_for_seen(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    tries: list[int] = []

    async def handler(message: Received) -> None:
        tries.append(message.deliveries)
        if message.deliveries == 1:
            raise RuntimeError("not yet")

    async with running(bus.consumer(EVENTS_STREAM, "c", [subjects.event_filter()], handler, start="all", policy=QUICK)):
        await bus.publish(make(sequence=5, state=True))
        await until(lambda: tries == [1, 2])


async def test_what_was_under_way_at_the_end_comes_to_the_next_one_at_once(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    begun: list[str] = []
    done: list[str] = []

    async def stuck(message: Received) -> None:
        begun.append(message.id)
        await asyncio.Event().wait()

    async def handler(message: Received) -> None:
        done.append(message.id)

    async with running(bus.consumer(STREAM, "c", FILTER, stuck, concurrency=1)):
        for name in "abc":
            await bus.publish(make(name))
        await until(lambda: begun)
    async with running(bus.consumer(STREAM, "c", FILTER, handler)):
        await until(lambda: sorted(done) == ["a", "b", "c"], timeout=20)


async def test_a_new_consumer_of_events_begins_now_and_one_of_intents_at_the_beginning(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    events: list[str] = []
    intents: list[str] = []

    async def on_event(message: Received) -> None:
        events.append(message.id)

    async def on_intent(message: Received) -> None:
        intents.append(message.id)

    await bus.publish(make("old"))
    await bus.publish(make("old", state=True))
    one = bus.consumer(STREAM, "c", FILTER, on_intent)
    two = bus.consumer(EVENTS_STREAM, "c", [subjects.event_filter()], on_event)
    async with running(one, two):
        await until(lambda: one.pulling and two.pulling)
        await bus.publish(make("new", 2))
        await bus.publish(make("new", 2, state=True))
        await until(lambda: "new" in events and "new" in intents)
    assert events == ["new"]
    assert intents == ["old", "new"]


async def test_a_follower_sees_everything_after_its_place_in_order(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    for sequence in range(1, 6):
        await bus.publish(make("a", sequence, state=True))
    got: list[tuple[int, int]] = []

    async def handler(message: Received) -> None:
        got.append((message.stream_sequence, message.sequence))

    async with running(bus.follow([subjects.event_filter()], handler, after=2)):
        await bus.publish(make("a", 6, state=True))
        await until(lambda: len(got) == 4)
    assert got == [(3, 3), (4, 4), (5, 5), (6, 6)]


async def test_a_follower_gets_data_as_they_came_and_passes_over_what_is_no_event(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    first = make("a", 1, state=True)
    await bus.publish(first)
    await put(bus, make("b", 2, state=True).subject, {"Nats-Msg-Id": "no event"}, b"{")
    await bus.publish(make("a", 3, state=True))
    got: list[Received] = []

    async def handler(message: Received) -> None:
        got.append(message)

    async with running(bus.follow([subjects.event_filter()], handler, after=0)):
        await until(lambda: len(got) == 2)
    assert [message.stream_sequence for message in got] == [1, 3]
    assert got[0].event.get_data() == publishable(first, None)[1]


async def put(bus: AnyBus, subject: str, headers: dict[str, str], payload: bytes) -> None:
    """Publishes what may be no event."""
    if isinstance(bus, MemoryBus):
        await bus.put(subject, headers, payload)
    else:
        await bus.connection.js.publish(subject, payload, headers=headers)


async def test_who_does_not_look_at_the_data_gets_them_as_they_came(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    got: list[object] = []

    async def handler(message: Received) -> None:
        got.append(message.event.get_data())

    sent = make("a")
    async with running(bus.consumer(STREAM, "c", FILTER, handler, raw=True)):
        await bus.publish(sent)
        await until(lambda: len(got) == 1)
    assert got == [publishable(sent, None)[1]]


@pytest.mark.parametrize("poison", ["no event", "bad data", "a sequence that is no number to Python"])
async def test_a_poison_message_goes_to_the_dead_letters_at_once(
    bus: AnyBus, make: Make, until: Until, running: Any, poison: str
) -> None:
    got: list[str] = []

    async def handler(message: Received) -> None:
        got.append(message.id)

    out = make("poison")
    headers, payload = publishable(out, None)
    if poison == "no event":
        headers = {"Nats-Msg-Id": "p"}
    elif poison.startswith("a sequence"):
        headers["ce-sequence"] = "9" * 5000
    else:
        payload = b"{"
    letters = await dead_letters(bus)
    heard: list[str] = []

    async def buried(letter: DeadLetter) -> None:
        heard.append(letter.subject)

    async with running(bus.consumer(STREAM, "c", FILTER, handler, buried=buried)):
        await put(bus, out.subject, headers, payload)
        await bus.publish(make("good"))
        await until(lambda: got and letters() and heard)
    assert got == ["good"]
    assert heard == [out.subject]
    (letter,) = letters()
    assert "not a valid event" in letter.reason
    assert letter.payload == payload
    assert letter.attempts == 1


async def test_a_message_that_never_succeeds_ends_as_a_dead_letter_with_its_reason(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    tries: list[int] = []

    async def handler(message: Received) -> None:
        tries.append(message.deliveries)
        raise ValueError("no such pool")

    letters = await dead_letters(bus)
    out = make()
    async with running(bus.consumer(STREAM, "c", FILTER, handler, policy=QUICK)):
        await bus.publish(out)
        await until(letters)
    assert tries == [1, 2, 3]
    (letter,) = letters()
    assert letter.reason == "ValueError: no such pool"
    assert (letter.subject, letter.consumer, letter.stream, letter.attempts) == (out.subject, "c", STREAM, 3)


async def test_a_handler_that_takes_too_long_has_failed(bus: AnyBus, make: Make, until: Until, running: Any) -> None:
    async def handler(_: Received) -> None:
        await asyncio.Event().wait()

    letters = await dead_letters(bus)
    async with running(bus.consumer(STREAM, "c", FILTER, handler, policy=RetryPolicy(pauses=(), timeout=0.05))):
        await bus.publish(make())
        await until(letters)
    assert "TimeoutError" in letters()[0].reason


async def dead_letters(bus: AnyBus) -> Callable[[], list[Any]]:
    """What stands in the dead letter queue, as it comes in."""
    if isinstance(bus, MemoryBus):
        return lambda: bus.dead
    from lablet_common.bus import DeadLetter

    found: list[DeadLetter] = []

    async def note(message: Any) -> None:
        found.append(DeadLetter.parse(message.headers, message.data))

    await bus.connection.client.subscribe("lablet.dlq.>", cb=note)
    await bus.connection.client.flush()
    return lambda: found


async def test_a_new_consumer_begins_behind_a_place_and_at_the_beginning_of_a_stream_made_anew(
    bus: AnyBus, make: Make, until: Until, running: Any
) -> None:
    async def begin() -> str:
        if isinstance(bus, MemoryBus):
            return bus.epoch
        return epoch_of(await bus.connection.js.stream_info(EVENTS_STREAM))

    events = [make(f"rsv-{number}", number, state=True) for number in range(1, 5)]
    for event in events[:3]:
        await bus.publish(event)
    for durable, start, wanted in (
        ("behind", After(await begin(), 2), ["rsv-3", "rsv-4"]),
        ("anew", After("another", 2), ["rsv-1", "rsv-2", "rsv-3", "rsv-4"]),
    ):
        got: list[str] = []

        async def handler(message: Received, got: list[str] = got) -> None:
            got.append(message.id)

        async with running(bus.consumer(EVENTS_STREAM, durable, ["lablet.event.>"], handler, start=start)):
            await bus.publish(events[3])
            await until(lambda got=got: "rsv-4" in got)  # type: ignore[misc]
        assert sorted(got) == wanted


async def test_a_publisher_can_tell_whether_what_it_published_is_there(bus: AnyBus, make: Make) -> None:
    first, other = make("rsv-1", 1, state=True), make("rsv-2", 2, state=True)
    present = await bus.present()
    assert await bus.last(first.subject) == (0, 0)
    numbers = [await bus.publish(out, session=bus.session) for out in (first, other, make("rsv-1", 7, state=True))]
    assert numbers == [1, 2, 3]
    assert await bus.publish(first) == 1, "a repeat lies where the first one does"
    assert await bus.publish(make("rsv-1", 8)) == 0, "an intent lies in another stream"
    assert [await bus.last(out.subject) for out in (first, other)] == [(3, 7), (2, 2)]
    assert (await bus.present()).epoch == present.epoch
    with pytest.raises(BusUnavailable):
        await bus.publish(make("rsv-1", 9, state=True), session=bus.session + 1)
    assert await bus.last(first.subject) == (3, 7)
