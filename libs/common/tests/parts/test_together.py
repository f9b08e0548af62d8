"""What runs together ends together, whatever ends it and however often it is told to."""

import asyncio

import pytest

from lablet_common.tasks import together


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
