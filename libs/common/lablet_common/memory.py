"""Memory that is free inside of the process, given back to the system.

Values of one to a few kilobytes lie in the C library's heap. It gives back only what is free at its end, so that a list of
ten thousand of them, a report over a year or a burst of requests leaves holes that count as used for ever. Where the C
library is glibc, it is asked to give those back as well, every 15 s: 3 ms for 16 MB of holes, next to nothing where there
are none. It is done beside the event loop, and more seldom where it takes long. Elsewhere nothing happens.

What refers to itself in a circle is found by Python only when it looks for such, and in services it looks at what has lived
for a while hardly ever (`service.collect_seldom`): some megabytes of it came together in two hours, of clients that had
left, in libraries and in our own parts. Ours let go of what they hold when they end, which tests see to; for the rest all
there is is looked through once in a while.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable

PAUSE_SECONDS = 15.0
_SHARE = 1000
COLLECT_SECONDS = 600.0
_COLLECT_SHARE = 10_000
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


async def collect_for_ever() -> None:
    """Looks for circles through all there is, every ten minutes (real time). The event loop stands still meanwhile, for 30 ms
    in a small mesh; where it takes longer than 60 ms, so seldom that it is a ten-thousandth of the time: with half a second,
    for ten thousand reservations, every 83 minutes."""
    pause = COLLECT_SECONDS
    while True:
        await asyncio.sleep(pause)
        began = time.monotonic()
        gc.collect()
        pause = collect_after(time.monotonic() - began)


def pause_after(seconds: float) -> float:
    """How long to wait behind a look at the heap that took so long."""
    return max(PAUSE_SECONDS, _SHARE * seconds)


def collect_after(seconds: float) -> float:
    """How long to wait behind a look for circles that took so long."""
    return max(COLLECT_SECONDS, _COLLECT_SHARE * seconds)


_library = ctypes.CDLL(None)
_trim: Callable[[int], int] | None = getattr(_library, "malloc_trim", None)
