"""Calls whose caller is cancelled again and again: the pool of connections gets each of its own back."""

import asyncio
import contextlib
import gc
import random
import weakref
from collections.abc import AsyncIterator

import httpx
import pytest

from lablet_common.tasks import cancelled_once


@pytest.fixture
async def slow() -> AsyncIterator[str]:
    """A server that takes its time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(0.01)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_calls_that_are_cancelled_twice_leave_the_pool_usable(slow: str) -> None:
    """The soak's find: after some lost leases every call to the cloud failed with PoolTimeout, until the restart."""
    chance = random.Random(1)
    limits = httpx.Limits(max_connections=8)
    async with httpx.AsyncClient(
        base_url=slow, timeout=httpx.Timeout(5, pool=2), trust_env=False, limits=limits
    ) as http:
        for _ in range(30):
            calls = [asyncio.create_task(cancelled_once(http.get("/"))) for _ in range(8)]
            await asyncio.sleep(chance.uniform(0, 0.03))
            for _ in range(2):
                for call in calls:
                    call.cancel()
                await asyncio.sleep(0)
            await asyncio.gather(*calls, return_exceptions=True)
        answers = await asyncio.gather(*(cancelled_once(http.get("/")) for _ in range(16)))
        assert {answer.status_code for answer in answers} == {200}


async def test_it_is_cancelled_with_its_caller_and_once() -> None:
    cancelled = 0
    ended = asyncio.Event()

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            try:
                await asyncio.sleep(0.02)  # as a pool that takes a connection back
            except asyncio.CancelledError:
                cancelled += 1
            ended.set()
            raise

    caller = asyncio.create_task(cancelled_once(work()))
    await asyncio.sleep(0)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert caller.cancelled()
    await ended.wait()
    assert cancelled == 1


async def test_results_and_errors_come_out_as_they_are() -> None:
    async def three() -> int:
        return 3

    async def fails() -> int:
        raise KeyError("x")

    assert await cancelled_once(three()) == 3
    with pytest.raises(KeyError):
        await cancelled_once(fails())


async def test_a_call_that_fails_is_let_go_with_its_error() -> None:
    """Each refused connection left 20 KB in a circle, which services look for seldom."""

    class Held:
        """What the call has in hand."""

    held: list[weakref.ref[Held]] = []

    async def work() -> None:
        one = Held()
        held.append(weakref.ref(one))
        raise ConnectionError("refused")

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ConnectionError):
            await cancelled_once(work())
        await asyncio.sleep(0)
        assert held[0]() is None
    finally:
        gc.enable()
