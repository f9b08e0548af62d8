"""A cancellation that comes together with the broker's answer still ends the task."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.js.api import ConsumerConfig, RawStreamMsg, StreamConfig, StreamInfo, StreamState
from nats.js.errors import BadRequestError

from lablet_common.bus import Bus
from lablet_common.bus.client import StoringClient
from lablet_common.bus.consumer import ensure_consumer
from lablet_common.bus.pull import Pull
from lablet_common.settings import NatsSettings
from lablet_common.tasks import heeding_cancellation


class _Client(StoringClient):
    """Sends nowhere, and is acknowledged by `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self._acknowledgements = 1
        self.sent = 0

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.sent += 1

    def answer(self) -> None:
        for future in self._unacknowledged.values():
            future.set_result(b'{"stream":"INTENTS_SCHEDULER","seq":1}')


class _JetStream:
    """Answers when it is told to, over `asyncio.wait_for`, as nats-py's requests do."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def _answer(self) -> Any:
        self.asked.set()
        return await asyncio.wait_for(self.answered, 5)

    async def stream_info(self, stream: str) -> StreamInfo:
        await self._answer()
        return StreamInfo(config=StreamConfig(name=stream), state=StreamState(0, 0, 0, 0, 0))

    async def get_last_msg(self, stream: str, subject: str, direct: bool) -> RawStreamMsg:
        await self._answer()
        return RawStreamMsg(subject=subject, seq=1)

    async def delete_consumer(self, stream: str, durable: str) -> None:
        await self._answer()

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> None:
        raise BadRequestError

    async def consumer_info(self, stream: str, durable: str) -> None:
        await self._answer()


class _Connection:
    def __init__(self) -> None:
        self.client = _Client()
        self.js = _JetStream()
        self.server = (2, 12)
        self.clustered = False


async def test_a_publisher_that_is_cancelled_while_the_answer_comes_ends(make: Any) -> None:
    bus = Bus(NatsSettings(), "scheduler")
    connection = bus._connection = _Connection()  # type: ignore[assignment]  # a stand-in

    async def publish_for_ever() -> None:
        while True:
            await bus.publish(make())

    publishing = asyncio.create_task(publish_for_ever())
    while not connection.client.sent:
        await asyncio.sleep(0)
    connection.client.answer()
    publishing.cancel()
    done, _ = await asyncio.wait({publishing}, timeout=1)
    assert done, "the cancellation was swallowed"
    assert publishing.cancelled()


@pytest.mark.parametrize(
    "ask",
    [
        Bus.present,
        lambda bus: bus.last("lablet.event.a.b.c.d"),
        Bus.ensure_streams,
        lambda bus: bus.remove_consumer("EVENTS", "webhook-w"),
        lambda bus: ensure_consumer(bus.connection.js, "EVENTS", ConsumerConfig(name="webhook-w")),
    ],
)
async def test_a_bridge_that_is_cancelled_while_it_is_told_what_is_there_ends(ask: Callable[[Bus], Any]) -> None:
    """Fault seeds 143 and 174: such a bridge kept its shard for ever and told nothing."""
    bus = Bus(NatsSettings(), "scheduler")
    connection = bus._connection = _Connection()  # type: ignore[assignment]  # a stand-in
    went_on = False

    async def bridge() -> None:
        nonlocal went_on
        await ask(bus)
        went_on = True

    asking = asyncio.create_task(bridge())
    await connection.js.asked.wait()
    connection.js.answered.set_result(None)
    asking.cancel()
    await asyncio.wait({asking}, timeout=5)
    assert asking.cancelled()
    assert not went_on


async def test_a_pull_that_is_cancelled_while_it_parts_ends() -> None:
    """It had ended by itself, as where NATS moves a consumer; its consumer would have gone on, and its shard with it."""
    answers = _JetStream()

    class Subscription:
        _id = 1
        drain = answers._answer

        async def unsubscribe(self) -> None: ...

        def _stop_processing(self) -> None: ...

    class Client:
        is_connected = True

        def new_inbox(self) -> str:
            return "_INBOX.1"

        async def subscribe(self, *_: Any, **__: Any) -> Subscription:
            return Subscription()

        def _remove_sub(self, _: int) -> None: ...

    async def consume() -> None:
        pull = Pull(Client(), "EVENTS", "c", room=lambda: 0, take=lambda _: None)  # type: ignore[arg-type]  # a stand-in
        pull.end("409 Leadership Change")
        await pull.run()
        await asyncio.sleep(5)

    consuming = asyncio.create_task(consume())
    await answers.asked.wait()
    answers.answered.set_result(None)
    consuming.cancel()
    await asyncio.wait({consuming}, timeout=1)
    assert consuming.cancelled()


async def test_without_a_cancellation_results_and_errors_pass() -> None:
    with heeding_cancellation():
        await asyncio.sleep(0)
    with pytest.raises(KeyError), heeding_cancellation():
        raise KeyError


async def test_a_timeout_inside_is_no_cancellation_from_outside() -> None:
    with pytest.raises(TimeoutError), heeding_cancellation():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)
