"""What happens in one simulated world: people reserve, extend, cancel, stop and collect; operators drain; processes die and
freeze, watches break, machines are lost, etcd forgets. All of it is drawn from the seed beforehand, but for its timing.

People are patient: what is not answered is asked again, with the same key, until the answer comes.
"""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from lablet_artifacts.publishing import infer_spec
from lablet_common.events import Outgoing
from lablet_common.events.reading import data_of, kind_and_id, sequence_of
from lablet_common.intents import INTENTS
from lablet_common.objects import put_content
from lablet_common.requests import KeyReused, accept, build_request, digest_of, new_ids, request_key
from lablet_common.resources.definition import Definition, DefinitionPhase, DefinitionSpec, DefinitionStatus
from lablet_common.resources.kinds import DEFINITION, POOL, RESERVATION, TEMPLATE, Service
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import PoolSpec, PoolStatus, SimpleStatus, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_common.store import Compacted, Compare, StoreError, StoreUnavailable
from lablet_common.store.repository import Repository
from lablet_common.testing.simulation import Line, StorePort, Weather
from lablet_local.chaos.load import Asked, Seen
from lablet_local.chaos.owners import OWNERSHIP, Commit
from lablet_local.demo.evidence import Told
from lablet_local.simulation.processes import POOL_NAME, Mail, Process
from lablet_local.simulation.world import MORNING, World
from lablet_workers.providers.port import MachineState

LAB = b"""lab:
  title: a router
  version: 0.1.0
nodes:
  - {id: n0, label: r1, node_definition: iosv, x: 0, y: 0, interfaces: [], tags: ["serial:2000"]}
links: []
"""
"""As small as it may be: each seat's own is rendered from it."""
NAME = "a-router"
_DAY, _WEEK = 24 * 60, 7 * 24 * 60
_ASK_AGAIN_SECONDS = 0.4
_SERVICES = (Service.SCHEDULER, Service.WORKERS, Service.ARTIFACTS)
_SPEC: list[DefinitionSpec] = []
GENERATION = 2
"""Of what seeds draw. Since the second, some pools count their licences. A seed that is kept names its generation, and draws
what it drew."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world is and how bad its weather. Times of lab in minutes."""

    bookings: int = 6
    window: int = 150
    """In which slots begin; a term is as long as its weeks."""
    weeks: int = 0
    """A term of classes of so many weeks, in place of the bookings."""
    workers: int = 3
    replicas: int = 2
    deaths: int = 3
    freezes: int = 1
    machines_lost: int = 1
    drains: int = 1
    compactions: int = 1
    bridges: bool = False
    weather: Weather = field(default_factory=Weather)
    late_boots: float = 0.1
    failed_boots: float = 0.05
    licences: int | None = None
    """Workers that may be on at a time; None: all."""


@dataclass(frozen=True, slots=True)
class Booking:
    """What somebody will ask for, and when. In lab minutes after the morning."""

    asked_at: float
    start: int
    minutes: int
    seats: int


def one_day(rng: random.Random, shape: Shape) -> list[Booking]:
    """Some that come soon, some that overlap, some that do not fit."""
    bookings = []
    for _ in range(shape.bookings):
        asked_at = rng.uniform(0, shape.window / 2)
        start = int(asked_at + rng.uniform(5, shape.window))
        bookings.append(Booking(asked_at, start, rng.choice((20, 45, 60)), rng.choice((1, 1, 2, 3))))
    return bookings


def timetable(rng: random.Random, weeks: int) -> list[Booking]:
    """Two classes a day from Monday to Friday, booked a week ahead, and what learners book for themselves."""
    bookings = []
    for day in (7 * week + day for week in range(weeks) for day in range(5)):
        for hour in (2, 6):
            start = day * _DAY + hour * 60
            bookings.append(Booking(max(0.0, start - _WEEK + rng.uniform(0, 600)), start, 90, rng.choice((2, 3, 4))))
        for _ in range(rng.choice((0, 1, 2))):
            start = day * _DAY + rng.randint(60, 12 * 60)
            bookings.append(Booking(max(0.0, start - rng.uniform(20, 300)), start, rng.choice((30, 60, 120)), 1))
    return bookings


def drawn(rng: random.Random) -> Shape:
    """A small world: most are rough, some are calm in one respect or another."""
    bad = rng.choice((0.0, 0.01, 0.03))
    weather = Weather(
        slow=rng.choice((0.1, 0.3, 0.6)),
        latency=rng.choice((0.002, 0.02, 0.1)),
        late=rng.choice((0.0, 0.02, 0.1)),
        late_seconds=rng.choice((0.5, 2.0)),
        refused=bad * rng.random(),
        answer_lost=bad * rng.random(),
        overtaken=bad * rng.random(),
        cut=bad * rng.random(),
    )
    return Shape(
        bookings=rng.randint(2, 5),
        window=rng.choice((45, 90, 150)),
        workers=rng.randint(1, 3),
        replicas=rng.choice((1, 2, 2)),
        deaths=rng.choice((0, 1, 2, 4)),
        freezes=rng.choice((0, 0, 1, 2)),
        machines_lost=rng.choice((0, 1, 1, 2)),
        drains=rng.choice((0, 0, 1)),
        compactions=rng.choice((0, 0, 1)),
        bridges=rng.random() < 0.2,
        weather=weather,
        late_boots=rng.choice((0.0, 0.2)),
        failed_boots=rng.choice((0.0, 0.0, 0.15)),
    )


def counted(rng: random.Random, shape: Shape) -> Shape:
    """Half of the pools of several workers have fewer licences than those. `rng` is a stream of its own: all else is drawn
    as it was before there was this."""
    counts = rng.random() < 0.5
    return replace(shape, licences=rng.randint(1, shape.workers - 1)) if counts and shape.workers > 1 else shape


class Story:
    """Of one world. `run` ends when everything has happened and the weather is calm again."""

    def __init__(self, world: World, shape: Shape, rng: random.Random) -> None:
        self.world = world
        self.shape = shape
        self.seen = Seen()
        self.told: list[Told] = []
        self.commits: list[Commit] = []
        """Of the services, by the twin of etcd itself."""
        self._known: set[str] = set()
        self.crashes: list[str] = []
        self.faults = 0
        self.last_end = timedelta(0)
        """When the last slot that was ever asked for ends."""
        self._rng = rng
        self._mail = Mail(random.Random(rng.random()), lost=0.3, repeated=0.2, longest_seconds=2.0)
        self._processes: list[Process] = []
        self._started = 0
        self._calm = False
        self._door = StorePort(world.store, self._line("people"))

    def _line(self, name: str) -> Line:
        return Line(name, random.Random(self._rng.random()), self.shape.weather)

    # -- the world before anything happens -------------------------------------------------------------------------

    async def seed(self) -> None:
        world, now = self.world, MORNING
        shape = {
            "instance_type": "sim",
            "capacity": {"cpu_cores": 8, "memory_gb": 16, "storage_gb": 200},
            "license": "ENTERPRISE",
            "max_nodes": 20,
            "boot_minutes": 8,
        }
        pool = {
            "template": "sim", "max": self.shape.workers, "preparation_minutes": 5, "turnaround_minutes": 5,
            "scale_down_grace_minutes": 20, "allowed_licenses": self.shape.licences,
        }  # fmt: skip
        await Repository[WorkerTemplate](world.store, TEMPLATE).create(
            WorkerTemplate(
                metadata=Metadata(id="sim", uid="t", created_at=now),
                spec=TemplateSpec.model_validate(shape),
                status=SimpleStatus(),
            )
        )
        await Repository[WorkerPool](world.store, POOL).create(
            WorkerPool(
                metadata=Metadata(id=POOL_NAME, uid="p", created_at=now),
                spec=PoolSpec.model_validate(pool),
                status=PoolStatus(),
            )
        )
        await put_content(world.objects, "default", LAB, "application/yaml")
        if not _SPEC:
            _SPEC.append(infer_spec(NAME, "1.0.0", LAB, {}))
        await Repository[Definition](world.store, DEFINITION).create(
            Definition(
                metadata=Metadata(id=f"{NAME}@1.0.0", uid=NAME, created_at=now),
                spec=_SPEC[0],
                status=DefinitionStatus(phase=DefinitionPhase.PUBLISHED),
            )
        )

    def start(self, service: Service) -> Process:
        """One more replica."""
        self._started += 1
        name = f"{service}-{self._started}"
        line = self._line(name)
        if self._calm:
            line.weather = Weather()
        publish = self._publish if self.shape.bridges else None
        process = Process(service, name, self.world, line, self._mail, publish, partial(self._committed, name))
        self._processes.append(process)
        return process

    def _committed(self, replica: str, revision: int, compares: Sequence[Compare]) -> None:
        fences = [(one.key, int(one.operand)) for one in compares if one.key.startswith(OWNERSHIP)]
        self.commits.append(Commit(replica, revision, tuple(fences)))

    async def _publish(self, out: Outgoing) -> None:
        """The broker has it; what comes again has its place already."""
        if out.msg_id in self._known:
            return
        self._known.add(out.msg_id)
        kind, _ = kind_and_id(out.event)
        self.told.append(
            Told(
                place=len(self.told), kind=kind, subject=str(out.event.get_subject()), type=out.event.get_type(),
                sequence=sequence_of(out.event), id=out.event.get_id(), data=data_of(out.event),
            )
        )  # fmt: skip

    # -- everything that happens -----------------------------------------------------------------------------------

    async def run(self) -> None:
        await self.seed()
        for service in _SERVICES:
            for _ in range(self.shape.replicas):
                self.start(service)
        rng, shape = self._rng, self.shape
        events: list[Coroutine[Any, Any, None]] = []
        bookings = timetable(rng, shape.weeks) if shape.weeks else one_day(rng, shape)
        events += [self._booking(number, booking) for number, booking in enumerate(bookings)]
        span = shape.weeks * _WEEK or shape.window + 90
        events += [self._death(rng.uniform(0, span)) for _ in range(shape.deaths)]
        events += [self._freeze(rng.uniform(0, span)) for _ in range(shape.freezes)]
        events += [self._machine_lost(rng.uniform(15, span)) for _ in range(shape.machines_lost)]
        events += [self._drain(rng.uniform(0, span)) for _ in range(shape.drains)]
        events += [self._compaction(rng.uniform(10, span)) for _ in range(shape.compactions)]
        keeper = asyncio.ensure_future(self._keep_alive())
        await asyncio.gather(*events)
        self._calm = True
        for process in self._processes:
            process.line.weather = Weather()
            process.line.thaw()
        self._keeper = keeper

    async def end(self) -> None:
        """Everybody is dead: nothing more can happen."""
        self._keeper.cancel()
        for process in self._processes:
            process.line.on_death = lambda: None
            process.line.kill()
            process.task.cancel()
        await asyncio.gather(*(process.task for process in self._processes), return_exceptions=True)

    async def _keep_alive(self) -> None:
        """Whoever runs the services starts a dead one anew; one that ended by an error of its own is a defect."""
        while True:
            await asyncio.sleep(0.5)
            for process in list(self._processes):
                if process.task.done():
                    if process.crash is not None:
                        self.crashes.append(f"{process.name}: {process.crash!r}")
                    self._processes.remove(process)
                    await asyncio.sleep(self._rng.uniform(0, 3))
                    self.start(process.service)

    # -- people ----------------------------------------------------------------------------------------------------

    async def _booking(self, number: int, booking: Booking) -> None:
        rng = self._rng
        asked_at, start, minutes, seats = booking.asked_at, booking.start, booking.minutes, booking.seats
        self._ends(start + minutes)
        whims = [whim for whim in ("extend", "cancel", "stop", "collect", "retry") if rng.random() < 0.25]
        moments = [rng.uniform(asked_at + 1, start + minutes + 5) for _ in whims]
        await self.world.until(timedelta(minutes=asked_at))
        key = request_key("default", "teacher", "reserve", f"{number}")
        _, name = new_ids(RESERVATION, key)
        began = MORNING + timedelta(minutes=start)
        await self._ask(
            "reserve", key, "io.lablet.reservation.requested.v1", name,
            {
                "id": name, "owner": "teacher", "definition": f"{NAME}@1.0.0", "pools": [POOL_NAME], "seats": seats,
                "start": began.isoformat(), "end": (began + timedelta(minutes=minutes)).isoformat(),
                "durationMinutes": minutes, "priority": rng.choice((0, 0, 5)),
            },
        )  # fmt: skip
        for moment, whim in sorted(zip(moments, whims, strict=True)):
            await self.world.until(timedelta(minutes=moment))
            await self._whim(whim, name, start + minutes, rng.randint(1, seats))

    async def _whim(self, whim: str, reservation: str, end: int, seat: int) -> None:
        key = request_key("default", "teacher", whim, reservation)
        instance = f"ins-{reservation.removeprefix('rsv-')}-{seat}"
        match whim:
            case "extend":
                longer = end + self._rng.choice((10, 30))
                self._ends(longer)
                body = {"end": (MORNING + timedelta(minutes=longer)).isoformat()}
                await self._ask(whim, key, "io.lablet.reservation.change.requested.v1", reservation, body)
            case "cancel":
                body = {"reason": "changed my mind"}
                await self._ask(whim, key, "io.lablet.reservation.cancel.requested.v1", reservation, body)
            case _:
                await self._ask(whim, key, f"io.lablet.instance.{whim}.requested.v1", instance, {})

    def _ends(self, minute: float) -> None:
        self.last_end = max(self.last_end, timedelta(minutes=minute))

    async def _ask(self, what: str, key: UUID, intent: str, target: str, body: dict[str, Any]) -> None:
        """Until it is accepted; the same key each time."""
        known = INTENTS[intent]
        asked = Asked(what, str(key), resource=target, event=str(key))
        self.seen.asked.append(asked)
        request = build_request(
            known, target, known.body.model_validate(body), key=key, tenant="default", principal="teacher",
            role="instructor", shard=POOL_NAME, digest=digest_of(body), at=self.world.clock.now(),
        )  # fmt: skip
        while True:
            asked.tries += 1
            try:
                await accept(self._door, request)
            except KeyReused:
                raise
            except StoreUnavailable:
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
                continue
            asked.status = 202
            self._mail.send(known.service)
            return

    # -- operators and fate ----------------------------------------------------------------------------------------

    async def _drain(self, minute: float) -> None:
        await self.world.until(timedelta(minutes=minute))
        worker = f"{POOL_NAME}-{self._rng.randint(1, self.shape.workers):03}"
        until = self.world.clock.now() + timedelta(minutes=self._rng.choice((20, 60)))
        key = request_key("default", "operator", "drain", f"{worker} {minute}")
        body = {"until": until.replace(second=0, microsecond=0).isoformat(), "message": "new disks"}
        await self._ask("drain", key, "io.lablet.worker.drain.requested.v1", worker, body)
        await self.world.until(until - MORNING)
        key = request_key("default", "operator", "drain-cancel", f"{worker} {minute}")
        await self._ask("undrain", key, "io.lablet.worker.drain-cancel.requested.v1", worker, {})

    async def _death(self, minute: float) -> None:
        """At a call within the next few, before or after that has done its work."""
        await self.world.until(timedelta(minutes=minute))
        living = [process for process in self._processes if not process.line.dead]
        if not living:
            return
        line = self._rng.choice(living).line
        line.dies_at = line.calls + self._rng.randint(1, 12)
        line.dies_after_work = self._rng.random() < 0.5
        self.faults += 1

    async def _freeze(self, minute: float) -> None:
        """Longer than a lease lives, and it wakes up believing that it still owns."""
        await self.world.until(timedelta(minutes=minute))
        living = [process for process in self._processes if not process.line.dead]
        if not living:
            return
        line = self._rng.choice(living).line
        line.freeze()
        self.faults += 1
        await asyncio.sleep(self._rng.uniform(1, 12))
        line.thaw()

    async def _machine_lost(self, minute: float) -> None:
        await self.world.until(timedelta(minutes=minute))
        running = [name for name, info in self.world.cloud.machines.items() if info.state is MachineState.RUNNING]
        if running:
            self.faults += 1
            self.world.cloud.lose(self._rng.choice(running))

    async def _compaction(self, minute: float) -> None:
        """etcd forgets what watchers may still want."""
        await self.world.until(timedelta(minutes=minute))
        try:
            await self.world.store.compact(self.world.store.revision)
            self.faults += 1
        except (Compacted, StoreError):
            return
