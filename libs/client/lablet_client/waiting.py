"""Waiting until a resource has reached a phase: woken by events, sure by looking.

Events only say "look again"; the phase is always read from the API, at the latest every few seconds, so that a missing
stream makes the wait slower and never wrong. A phase that was passed through counts: at high speed a reservation may be
Completed before anybody saw it Active.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

from lablet_client import collection
from lablet_client.errors import LabletError, Refused, TimedOut
from lablet_client.events import Events, Filter
from lablet_common.resources.machine import StateMachine
from lablet_common.resources.model import Resource

R = TypeVar("R", bound=Resource[Any, Any])
_LOOK_AGAIN = 2.0
"""Seconds after which it is looked at even when no event came."""


class OutOfReach(LabletError):
    """The phase waited for can no longer come. `resource` says why."""

    def __init__(self, message: str, resource: Resource[Any, Any]) -> None:
        super().__init__(message)
        self.resource = resource


def reachable(machine: StateMachine, phase: str) -> frozenset[str]:
    """All phases that may still follow `phase`, however many moves later."""
    seen: set[str] = set()
    ahead = list(machine.transitions.get(phase, ()))
    while ahead:
        current = ahead.pop()
        if current not in seen:
            seen.add(current)
            ahead.extend(machine.transitions.get(current, ()))
    return frozenset(seen)


def has_reached(resource: Resource[Any, Any], phases: Collection[str]) -> bool:
    """It is in one of the phases, or was."""
    return resource.phase in phases or any(move.to in phases for move in resource.status.history)


async def wait_for(
    kind: "collection.Collection[R]",
    resource_id: str,
    phases: Collection[str],
    *,
    events: Events,
    timeout: float,
    on_change: Callable[[R], None] | None = None,
) -> R:
    """The resource once it has reached one of `phases`. `on_change` is told each version that is seen. Raises
    `OutOfReach`, `TimedOut` (after `timeout` real seconds) and what reading raises."""
    unknown = set(phases) - kind.model.machine.phases
    if unknown:
        raise ValueError(f"{kind.model.__name__} has no phase {', '.join(sorted(unknown))}")
    deadline = time.monotonic() + timeout
    woken = asyncio.Event()
    word = kind.path.strip("/").removesuffix("s")
    listener = asyncio.create_task(_wake(events, Filter(kind=word, id=resource_id), woken))
    seen: str | None = None
    try:
        while True:
            woken.clear()
            resource = await kind.get(resource_id)
            if resource.metadata.resource_version != seen or seen is None:
                seen = resource.metadata.resource_version
                if on_change is not None:
                    on_change(resource)
            if has_reached(resource, phases):
                return resource
            if not reachable(kind.model.machine, resource.phase) & set(phases):
                reason = resource.status.message or resource.status.reason or "no reason was given"
                raise OutOfReach(f"{resource_id} is {resource.phase}: {reason}", resource)
            left = deadline - time.monotonic()
            if left <= 0:
                wanted = " or ".join(phases)
                raise TimedOut(f"{resource_id} is {resource.phase} after {timeout:g} s, not {wanted}", resource)
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), min(_LOOK_AGAIN, left))
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def _wake(events: Events, wanted: Filter, woken: asyncio.Event) -> None:
    with suppress(Refused):  # no right to the stream, or none there: looking again is enough
        async for _ in events.watch(wanted, on_reset=woken.set):
            woken.set()
