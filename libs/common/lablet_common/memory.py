"""Memory that is free inside of the process, given back to the system.

Values of one to a few kilobytes lie in the C library's heap. It gives back only what is free at its end, so that a list of
ten thousand of them, a report over a year or a burst of requests leaves holes that count as used for ever. Where the C
library is glibc, it is asked to give those back as well, every 15 s: 3 ms for 16 MB of holes, next to nothing where there
are none. It is done beside the event loop, and more seldom where it takes long. Elsewhere nothing happens.
"""

import asyncio
import ctypes
import time
from collections.abc import Callable

PAUSE_SECONDS = 15.0
_SHARE = 1000
_ARENA_MAX = -8
_ARENAS = 2
"""Parts of the heap, which threads take turns in; glibc would make eight for each processor, each with holes of its own."""


def give_back() -> None:
    """Gives back what the heap holds free."""
    if _trim is not None:
        _trim(0)


def few_arenas() -> None:
    """Keeps the heap in few parts; to be called before there are threads."""
    option: Callable[[int, int], int] | None = getattr(_library, "mallopt", None) if _trim is not None else None
    if option is not None:
        option(_ARENA_MAX, _ARENAS)


async def give_back_for_ever() -> None:
    """Every 15 s (real time); where that takes longer than 15 ms, so seldom that it is a thousandth of the time."""
    pause = PAUSE_SECONDS
    while True:
        await asyncio.sleep(pause)
        began = time.monotonic()
        await asyncio.to_thread(give_back)  # one part of the heap is locked meanwhile, and the loop goes on
        pause = pause_after(time.monotonic() - began)


def pause_after(seconds: float) -> float:
    """How long to wait behind a look that took so long."""
    return max(PAUSE_SECONDS, _SHARE * seconds)


_library = ctypes.CDLL(None)
_trim: Callable[[int], int] | None = getattr(_library, "malloc_trim", None)
