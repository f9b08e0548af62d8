"""What runs together ends together, whatever ends it and however often it is told to."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest
from cloudevents.core.v1.event import CloudEvent

from lablet_common.bus.handling import RetryPolicy, handle
from lablet_common.bus.messages import Received
from lablet_common.tasks import heeding_cancellation, together


class Slow:
    """Takes its time to end."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), False

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()
            self.ended = True


async def fails() -> None:
    raise RuntimeError("broken")


async def test_the_first_error_comes_out_bare_after_the_others_have_ended() -> None:
    slow = Slow()
    task = asyncio.create_task(together(slow.run(), fails()))
    await slow.begun.wait()
    await asyncio.sleep(0)
    assert not task.done()
    slow.may_end.set()
    with pytest.raises(RuntimeError, match="broken"):
        await task
    assert slow.ended


async def test_whoever_is_cancelled_again_and_again_still_waits_for_the_ends() -> None:
    """A lost lease cancels tasks that cancel theirs: whatever begins anew must not do so beside what has not ended."""
    slow = Slow()
    task = asyncio.create_task(together(slow.run()))
    await slow.begun.wait()
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    slow.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.ended


async def test_who_is_cancelled_while_an_error_ends_it_is_cancelled() -> None:
    slow = Slow()
    task = asyncio.create_task(together(slow.run(), fails()))
    await slow.begun.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    slow.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.ended


class Held:
    """Something large that a frame holds."""


async def _waits(held: Held) -> None:
    await asyncio.Event().wait()


async def _together(held: Held) -> None:
    await together(_waits(held), _waits(held))


async def _heeding(held: Held) -> None:
    with heeding_cancellation():
        await _waits(held)


async def _handling(held: Held) -> None:
    async def handler(_: Received) -> None:
        await _waits(held)

    event = CloudEvent({"id": "e", "source": "/x", "type": "t", "specversion": "1.0"}, {})
    message = Received(event, "x", "y", 1, "lablet.event.a.x.-.y")
    await handle(message, handler, consumer="c", policy=RetryPolicy(), seen=None, deliveries=1)


async def _failing(held: Held) -> None:
    async def fails_late() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        raise RuntimeError(held)

    await together(_waits(held), fails_late())


@pytest.mark.parametrize("work", [_together, _heeding, _handling, _failing])
async def test_what_has_been_cancelled_is_held_by_nobody(work: Callable[[Held], Awaitable[None]]) -> None:
    """Without anybody who looks for circles: services have Python look for them seldom."""
    held = Held()
    there = weakref.ref(held)
    task = asyncio.ensure_future(work(held))
    del held
    for _ in range(10):
        await asyncio.sleep(0)
    gc.disable()
    try:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        await asyncio.sleep(0)
        assert there() is None
    finally:
        gc.enable()
