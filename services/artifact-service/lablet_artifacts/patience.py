"""Work waits while the object store is away: it is tried again for as long as it takes, and never refused for that.

A missing or damaged object is an answer and goes through. Whatever else the store says (no answer, 503, no right, no room)
may be over later, with or without an operator; each reason is told once, and again when it changes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lablet_common.objects import ObjectMismatch, ObjectMissing, ObjectStoreError

log = logging.getLogger("lablet.artifacts")

T = TypeVar("T")
_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0


async def with_patience(work: Callable[[], Awaitable[T]]) -> T:
    """What the work comes to. Real seconds pass between the tries."""
    pause, told = _FIRST_SECONDS, ""
    while True:
        try:
            return await work()
        except (ObjectMissing, ObjectMismatch):
            raise
        except ObjectStoreError as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting for the object store", extra={"cause": told})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_SECONDS)
