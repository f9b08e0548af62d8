"""A cancellation that comes together with the broker's answer still ends the task."""

import asyncio
from typing import Any

import pytest

from lablet_common.bus import Bus
from lablet_common.bus.client import StoringClient
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


class _Connection:
    def __init__(self) -> None:
        self.client = _Client()


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


async def test_without_a_cancellation_results_and_errors_pass() -> None:
    with heeding_cancellation():
        await asyncio.sleep(0)
    with pytest.raises(KeyError), heeding_cancellation():
        raise KeyError


async def test_a_timeout_inside_is_no_cancellation_from_outside() -> None:
    with pytest.raises(TimeoutError), heeding_cancellation():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)
