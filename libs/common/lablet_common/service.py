"""How a service lives: one process, one event loop, one ordered start and end.

`run` sets up logs, metrics, traces, the internal port, the store, the bus and the clock, hands them to the service's
own `main` as a `Runtime`, and takes everything down in the reverse order when the process is asked to stop. A background
task that crashes ends the process with an error: whoever runs it starts it anew, from etcd's state (crash-only).
"""

import asyncio
import gc
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from lablet_common.bus import Bus
from lablet_common.clock import ScaledClock, follow_clock, load_clock
from lablet_common.memory import collect_for_ever, few_arenas, give_back_for_ever
from lablet_common.resources.kinds import Service
from lablet_common.settings import CommonSettings, EtcdSettings
from lablet_common.store import EtcdStore, Store, StoreUnavailable
from lablet_common.telemetry.health import Health, health_server
from lablet_common.telemetry.logs import configure_logging
from lablet_common.telemetry.metrics import LOOP_LAG, TASKS
from lablet_common.telemetry.traces import configure_tracing

_T = TypeVar("_T")
_LAG_INTERVAL = 0.5
_LAG_KEPT = 60
"""Looks at how late the loop is of which the worst is told: half a minute, so that each scrape sees a stall between two."""
_COLLECT = (2_000, 100, 200)
"""Allocations before the youngest objects are looked through for cycles, and how many such looks before the older ones
are. With Python's own numbers, services that hold thousands of resources stood still for half a second at a time. The first
bounds a look at the youngest while resources come in, 0.3 ms; with the second, those that outlive 100 such looks are looked
at once in ten thousand reservations, some 40 ms; what outlives that as well, hardly ever: `memory` does."""
_STOP_SECONDS = 5.0
"""How long a service may take to end by itself before it is cut off."""


class _Stop(Exception):
    """Ends the task group and everything in it, on request."""


@dataclass(slots=True)
class Runtime:
    """What a service's `main` gets."""

    service: Service
    settings: CommonSettings
    store: Store
    bus: Bus
    clock: ScaledClock
    health: Health
    tasks: asyncio.TaskGroup
    log: logging.Logger
    running: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def replica(self) -> str:
        return self.settings.replica_id

    @property
    def source(self) -> str:
        """`source` of this service's events and `by` of its moves."""
        return f"{self.settings.cloudevents_source}/{self.service}"

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task for the life of the process; its crash ends the process."""
        task = self.tasks.create_task(work, name=name)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task


def open_store(settings: EtcdSettings) -> EtcdStore:
    """The etcd client that the settings describe."""
    return EtcdStore(
        settings.addresses,
        prefix=settings.prefix,
        timeout=settings.timeout,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        ca_cert=settings.ca_cert,
        cert=settings.cert_cert,
        key=settings.cert_key,
        commit_log=settings.commit_log,
    )


def collect_seldom() -> None:
    """How services have Python look for cycles of garbage. Benchmarks of their parts do the same."""
    gc.freeze()  # what has been imported stays
    gc.set_threshold(*_COLLECT)


def run(
    service: Service,
    settings: CommonSettings,
    main: Callable[[Runtime], Awaitable[None]],
    *,
    drain_seconds: float = 0.0,
) -> None:
    """Runs the service until SIGTERM or SIGINT. Exits with 1 when a part of it crashed.

    `drain_seconds` (real): once asked to stop it says that it is not ready and goes on serving for so long, so that a
    proxy sends what comes next elsewhere.
    """
    few_arenas()
    configure_logging(settings.telemetry, service, settings.replica_id)
    collect_seldom()
    log = logging.getLogger(f"lablet.{service}")
    try:
        uvloop.run(_live(service, settings, main, log, drain_seconds))
    except* Exception as crash:
        for error in crash.exceptions:
            log.exception("the service crashed and ends", exc_info=error)
        sys.exit(1)


async def _live(
    service: Service,
    settings: CommonSettings,
    main: Callable[[Runtime], Awaitable[None]],
    log: logging.Logger,
    drain_seconds: float,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    provider = configure_tracing(settings.telemetry, service, settings.replica_id)
    health = Health()
    store = open_store(settings.etcd)
    bus = Bus(settings.nats, service, replicas=settings.nats.replicas)
    try:
        async with asyncio.TaskGroup() as background:
            if settings.health_port:
                server = health_server(health, settings.health_host, settings.health_port)
                background.create_task(server.serve(), name="health")
            background.create_task(_measure_lag(), name="loop-lag")
            background.create_task(give_back_for_ever(), name="memory")
            background.create_task(collect_for_ever(), name="circles")
            life = background.create_task(_serve(service, settings, main, log, store, bus, health, background))
            waiting = background.create_task(stop.wait(), name="stop")
            await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping")
            health.started = False
            if drain_seconds and not life.done():
                await asyncio.wait({life}, timeout=drain_seconds)
            raise _Stop  # noqa: TRY301 - it has to be raised inside of the group to end it
    except* _Stop:
        pass
    finally:
        for part, closing in (("bus", bus.close()), ("store", store.close())):
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await closing
            except (TimeoutError, OSError) as error:
                log.warning("did not close in time", extra={"part": part, "cause": str(error)})
        if provider is not None:
            provider.shutdown()


async def _serve(
    service: Service,
    settings: CommonSettings,
    main: Callable[[Runtime], Awaitable[None]],
    log: logging.Logger,
    store: EtcdStore,
    bus: Bus,
    health: Health,
    tasks: asyncio.TaskGroup,
) -> None:
    async def etcd_answers() -> None:
        await store.status()

    health.add("etcd", etcd_answers)
    health.add("nats", bus.look, required=False)  # requests are accepted and decided without it, only later
    clock = await _patiently(lambda: load_clock(store), log)
    runtime = Runtime(service, settings, store, bus, clock, health, tasks, log)
    runtime.spawn("clock", follow_clock(store, clock))
    runtime.spawn("bus", _patiently(bus.connect, log))
    log.info("started", extra={"speed": clock.speed, "etcd": settings.etcd.addresses, "nats": settings.nats.shown})
    await main(runtime)


async def _patiently(what: Callable[[], Awaitable[_T]], log: logging.Logger) -> _T:
    """Retries a first contact until it comes about."""
    pause = 0.1
    while True:
        try:
            return await what()
        except (StoreUnavailable, OSError, TimeoutError) as error:
            log.warning("a dependency does not answer yet", extra={"cause": str(error)})
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)


async def _measure_lag() -> None:
    latest: deque[float] = deque(maxlen=_LAG_KEPT)
    while True:
        before = time.monotonic()
        await asyncio.sleep(_LAG_INTERVAL)
        latest.append(max(0.0, time.monotonic() - before - _LAG_INTERVAL))
        LOOP_LAG.set(max(latest))
        TASKS.set(len(asyncio.all_tasks()))
