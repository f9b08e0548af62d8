"""Every order in which several actors' store calls can happen: a small model checker for code on the in-memory store.

An actor is a coroutine that waits for nothing but its store. Each of its calls stops at a turnstile, and the explorer
lets one through at a time. It goes through the choices depth first: every run begins anew in a fresh scene and repeats the
choices of the one before, up to the last one that can still be made otherwise. A fault names the order that leads to it.

Not explored: what happens inside a call (etcd's transactions are atomic), and answers that are lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lablet_common.store.api import Store
from lablet_common.store.memory import MemoryStore

_PATIENCE = 1000
"""Turns of the event loop within which an actor must come to its next call, or end."""

Actor = Callable[[Store], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scene:
    """A world before the actors begin."""

    store: MemoryStore
    actors: Mapping[str, Actor]
    """By name; each is called with a store of its own."""
    check: Callable[[], Awaitable[None]]
    """Asked after every call, and at the end; raises `AssertionError` when something is wrong."""


class OrderFault(AssertionError):
    """What was found wrong, and the order of the calls that leads to it."""

    def __init__(self, order: Sequence[str], cause: BaseException) -> None:
        super().__init__(f"after {' → '.join(order)}: {cause}")
        self.order = tuple(order)


class _Turnstile:
    """The store as one actor sees it."""

    def __init__(self, store: MemoryStore, name: str, waiting: dict[str, "asyncio.Future[None]"]) -> None:
        self._store = store
        self._name = name
        self._waiting = waiting

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._store, method)
        if not callable(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[self._name] = turn
            await turn
            return await found(*args, **options)

        return call


async def explore(make: Callable[[], Awaitable[Scene]], *, most: int = 100_000) -> int:
    """Runs every order and returns how many there are. Raises `OrderFault` for the first that is wrong, whatever an actor
    raises, and `RuntimeError` when there are more than `most`."""
    choices: list[tuple[int, int]] = []
    runs = 0
    while True:
        runs += 1
        if runs > most:
            raise RuntimeError(f"more than {most} orders: fewer actors, or fewer calls")
        choices = await _run(await make(), [taken for taken, _ in choices])
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return runs
        taken, among = choices[-1]
        choices[-1] = taken + 1, among


async def _run(scene: Scene, prefix: Sequence[int]) -> list[tuple[int, int]]:
    """One order: the choices of `prefix`, then always the first. Returns all choices made, each with their number."""
    waiting: dict[str, asyncio.Future[None]] = {}
    tasks = {
        name: asyncio.ensure_future(actor(cast("Store", _Turnstile(scene.store, name, waiting))))
        for name, actor in scene.actors.items()
    }
    made: list[tuple[int, int]] = []
    order: list[str] = []
    try:
        while True:
            await _at_the_turnstile(tasks, waiting)
            try:
                await scene.check()
            except AssertionError as fault:
                raise OrderFault(order, fault) from fault
            ready = sorted(waiting)
            if not ready:
                return made
            taken = prefix[len(made)] if len(made) < len(prefix) else 0
            made.append((taken, len(ready)))
            order.append(ready[taken])
            waiting.pop(ready[taken]).set_result(None)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _at_the_turnstile(
    tasks: Mapping[str, "asyncio.Future[object]"], waiting: Mapping[str, "asyncio.Future[None]"]
) -> None:
    """Until every actor waits for its turn or has ended; raises what one of them raised."""
    for _ in range(_PATIENCE):
        for task in tasks.values():
            if task.done():
                task.result()
        if all(task.done() or name in waiting for name, task in tasks.items()):
            return
        await asyncio.sleep(0)
    stuck = [name for name, task in tasks.items() if not task.done() and name not in waiting]
    raise RuntimeError(f"{', '.join(stuck)} waits for something else than the store")
