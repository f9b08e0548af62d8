"""Running several things for the same life, and ending when told to: when one ends or fails, all end, and its error
comes out as it is; a cancellation that a library swallows is raised after all."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Raises `CancelledError` at the end when the task was cancelled inside and nobody let it through.

    Up to Python 3.11 `asyncio.wait_for` returns its result, and drops the cancellation, when both come in the same pass
    of the loop; a loop around such a call (nats-py has them in every request) then never ends."""
    before = _cancellations()
    try:
        yield
    finally:
        if _cancellations() > before:
            raise asyncio.CancelledError


def is_cancelled() -> bool:
    """Whether the running task has been told to end. (Who keeps the task itself in a variable when its cancellation goes
    through keeps all in a circle: the task its error, the error its frames, the frame the task.)"""
    return _cancellations() > 0


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def together(*work: Coroutine[Any, Any, Any]) -> None:
    """Runs all until one of them ends. Its exception is raised bare (not in a group), after all others were cancelled and
    have ended; cancellation cancels all.

    For what ends and begins anew with a lease. A `TaskGroup` leaves itself, its exception and the frames of all who await it
    in a circle, which holds them until Python looks for such, and services have it look seldom."""
    tasks = [asyncio.ensure_future(one) for one in work]
    done: set[asyncio.Future[Any]] = set()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while done:
            done.pop().result()
    finally:
        try:
            await ended(tasks)
        finally:
            del tasks, done  # one holds the error that is being raised, which holds this frame


async def ended(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    """Cancels all and waits for their ends, also when cancelled meanwhile: what comes next must not begin beside them."""
    again = False
    for task in tasks:
        task.cancel()
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            again = True
    for task in tasks:
        _nobody_waits(task)
    if again:
        raise asyncio.CancelledError


async def cancelled_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled at most once, however often its caller is.

    For calls by httpx: its pool gives a connection back while it is being cancelled, and a second cancellation in that
    very moment (a lost lease cancels tasks that cancel theirs) breaks that off. The connection then counts as in use for
    ever, until the pool is full of such and every call fails with `PoolTimeout`."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_nobody_waits)
        raise
    finally:
        del task  # it holds the error that is being raised, which holds this frame


def _nobody_waits(task: "asyncio.Future[Any]") -> None:
    """Its caller has gone: what became of it is read, so that nothing complains that nobody did."""
    if not task.cancelled():
        task.exception()
