"""An asyncio event loop in which a seed decides what runs next, and time passes only when nothing can run.

Of the callbacks that are ready, any may be the next one: whatever rests on the order in which tasks were woken breaks here.
When none is ready, time goes on to the next timer at once, so that a day costs what happens in it. There is no I/O and no
thread: work for an executor is done in the loop, at a moment of its own.

The same seed gives the same run, in one process and (with the same PYTHONHASHSEED) in another: inside `simulated`, the
clocks, the random numbers and the ids that code takes from Python come from the seed too, and tasks and futures have
hashes that do not hang on where they lie in memory.
"""

import asyncio
import heapq
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar, TypeVarTuple
from unittest.mock import patch

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_new = object.__new__


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set: what is awaited never comes."""


class _Task(asyncio.Task[Any]):
    """Hashes by a number in the order of making, so that sets of them have the same order in every run."""

    def __init__(self, coro: Any, loop: "SimulationLoop", **options: Any) -> None:
        loop.made += 1
        self._number = loop.made
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    """Hashes as tasks do."""

    _number = 0

    def __hash__(self) -> int:
        return self._number


class _Handle(asyncio.Handle):
    """What runs next. The loop makes it, in place, and runs it: nothing is debugged here."""

    __slots__ = ()
    _callback: Any
    _args: Any
    _context: Context
    _repr = None
    _source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = None, ()


class _Timer(_Handle, asyncio.TimerHandle):
    """What runs later, made as cheaply: the loop counts no cancelled ones."""

    __slots__ = ()
    _when: float


class SimulationLoop(asyncio.BaseEventLoop):
    """Use it inside `simulated`. `steps` counts callbacks that were run."""

    _stopping: bool

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._virtual = 0.0
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timers_set = 0
        self._draw = rng.getrandbits
        self.steps = 0
        self.made = 0
        """Tasks and futures so far."""

    def time(self) -> float:
        return self._virtual

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _new(_Timer)
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        handle._cancelled = False
        handle._when = when
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._virtual + delay, callback, *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return _Task(coro, self, **options)

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        self.made += 1
        future._number = self.made
        return future

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _new(_Handle)
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        handle._cancelled = False
        self._ready.append(handle)
        return handle

    def run_in_executor(self, executor: object, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:  # type: ignore[override]  # noqa: ARG002 - there are no threads here
        done = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - goes to whoever awaits it
                done.set_exception(error)

        self.call_soon(work)
        return done

    def _write_to_self(self) -> None:
        """Nobody else's thread wakes this loop."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _run_once(self) -> None:
        """Not once, but until the loop is to stop: who runs it forever calls this again and again, and looks in between."""
        timers, ready, draw, now = self._timers, self._ready, self._draw, self._virtual
        while True:
            if not ready:
                while timers and timers[0][2]._cancelled:
                    heapq.heappop(timers)
                if not timers:
                    raise Stuck(f"nothing can happen any more at {now:.3f} s")
                if timers[0][0] > now:
                    now = self._virtual = timers[0][0]
            while timers and timers[0][0] <= now:
                ready.append(heapq.heappop(timers)[2])
            count = len(ready)
            if count > 1:
                bits = count.bit_length()
                chosen = draw(bits)  # as `randrange` draws, without its checks
                while chosen >= count:
                    chosen = draw(bits)
                ready[chosen], ready[-1] = ready[-1], ready[chosen]
            handle: Any = ready.pop()
            if not handle._cancelled:
                self.steps += 1
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as every loop does
                    said = f"Exception in callback {handle._callback!r}"
                    self.call_exception_handler({"message": said, "exception": error, "handle": handle})
            if self._stopping:
                return


@contextmanager
def simulated(seed: int) -> Iterator[SimulationLoop]:
    """A loop for one run, with everything in Python that would differ between two runs taken from the seed."""
    loop = SimulationLoop(random.Random(f"order {seed}"))
    noise = random.Random(f"noise {seed}")
    before = random.getstate()
    try:
        with (
            patch.object(time, "monotonic", loop.time),
            patch.object(time, "perf_counter", loop.time),
            patch.object(os, "urandom", noise.randbytes),
            patch.object(random, "_urandom", noise.randbytes),
        ):
            random.seed(seed)
            asyncio.set_event_loop(loop)
            yield loop
    finally:
        random.setstate(before)
        asyncio.set_event_loop(None)
        loop.close()
