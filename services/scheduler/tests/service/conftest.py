"""A pool in memory: its owner runs on a store, caches and a manual clock of its own; tests ask, and look into the store."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common.clock import ManualClock
from lablet_common.intents import INTENTS, Nothing, ReservationChange, ReservationRequested
from lablet_common.ownership import Fence
from lablet_common.requests import accept, build_request, digest_of, new_ids, request_key
from lablet_common.resources import Definition, Instance, Metadata, Request, Reservation, Series, Worker, WorkerPool
from lablet_common.resources.definition import DefinitionPhase, DefinitionSpec, DefinitionStatus, NamedPort
from lablet_common.resources.instance import InstancePhase, InstanceSpec, InstanceStatus, instance_id
from lablet_common.resources.kinds import (
    DEFINITION,
    INSTANCE,
    REQUEST,
    RESERVATION,
    SERIES,
    WORKER,
    Kind,
    gate_key,
    inbox_prefix,
    kind_of,
    ownership_key,
)
from lablet_common.resources.model import Model
from lablet_common.resources.worker import (
    Capacity,
    Maintenance,
    PoolSpec,
    PoolStatus,
    PortRange,
    WorkerPhase,
    WorkerSpec,
    WorkerStatus,
)
from lablet_common.store import MemoryStore, OutcomeUnknown, Store, Transaction
from lablet_common.store.changes import decode, encode
from lablet_common.terms import SeriesRequested
from lablet_scheduler import owner
from lablet_scheduler.following import Following
from lablet_scheduler.owner import PoolOwner
from lablet_scheduler.settings import SchedulerSettings
from lablet_scheduler.state import PoolState

from .counting import Counting
from .judge import over_committed, remembered_otherwise

AT = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
SOURCE = "/lablet/scheduler"
_numbers = itertools.count(1)


class World:
    """What the other services would have put into the store, and the owners under test."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen = Counting(store)
        self.clock = ManualClock(AT)
        self.caches = Following(self.seen)
        self.settings = SchedulerSettings(scheduler_lead_time_minutes=35, scheduler_notice_minutes=10)
        self.owners: dict[str, tuple[PoolOwner, asyncio.Task[None]]] = {}
        self.ended: list[asyncio.Task[None]] = []
        self.carried: set[str] = set()

    # -- resources ---------------------------------------------------------------------------------------------------

    async def put(self, resource: Any, *, gate: str | None = None) -> Any:
        txn = Transaction().put(kind_of(resource).key_of(resource), encode(resource))
        if gate is not None:
            txn.put(gate_key(gate), resource.id.encode())
        done = await txn.commit(self.store)
        return resource.at_revision(done.revision)

    async def pool(self, name: str = "default", workers: int = 2, **options: Any) -> list[Worker]:
        """A pool with like workers: 8 cores, 32 GB, 20 nodes, ports 2000 to 2099."""
        shape = {key: options.pop(key) for key in ("cpu", "nodes", "ports", "boot") if key in options}
        spec = PoolSpec(
            template="simulated",
            max=workers,
            turnaround_minutes=0,
            preparation_minutes=0,
            boot_reserve_minutes=0,
            scale_down_grace_minutes=0,
        )
        spec = PoolSpec.model_validate(spec.model_dump() | options)
        await self.put(WorkerPool(metadata=self._meta(name), spec=spec, status=PoolStatus()))
        return [await self.worker(f"{name}-{number:03}", name, **shape) for number in range(1, workers + 1)]

    async def worker(
        self, name: str, pool: str = "default", *, cpu: float = 8, nodes: int = 20, ports: int = 100, boot: int = 0
    ) -> Worker:
        worker = Worker(
            metadata=self._meta(name),
            spec=WorkerSpec(
                pool=pool,
                template="simulated",
                capacity=Capacity(cpu_cores=cpu, memory_gb=4 * cpu, storage_gb=1000),
                max_nodes=nodes,
                license="ENTERPRISE",
                port_range=PortRange(start=2000, end=1999 + ports),
                boot_minutes=boot,
            ),
            status=WorkerStatus(phase=WorkerPhase.OFFLINE),
        )
        return await self.put(worker, gate=pool)

    async def definition(
        self,
        name: str = "ospf@1.0.0",
        *,
        cpu: float = 4,
        nodes: int = 4,
        ports: int = 2,
        memory: float | None = None,
        storage: float = 0,
        minutes: int = 600,
        tenant: str = "default",
        until_completed: bool = False,
    ) -> Definition:
        """Memory: as many GB as cores, if not given."""
        title, _, version = name.partition("@")
        return await self.put(
            Definition(
                metadata=self._meta(name, tenant),
                spec=DefinitionSpec.model_validate(
                    {
                        "name": title,
                        "version": version,
                        "topology": {"digest": "0" * 64, "bytes": 1},
                        "requirements": {
                            "cpu_cores": cpu,
                            "memory_gb": cpu if memory is None else memory,
                            "storage_gb": storage,
                            "node_count": nodes,
                        },
                        "ports": [NamedPort(name=f"p{number}") for number in range(ports)],
                        "max_duration_minutes": minutes,
                        "until_completed": until_completed,
                    }
                ),
                status=DefinitionStatus(phase=DefinitionPhase.PUBLISHED),
            )
        )

    @staticmethod
    def _meta(name: str, tenant: str = "default") -> Metadata:
        return Metadata(id=name, uid=f"uid-{name}-{next(_numbers)}", tenant=tenant, created_at=AT)

    # -- asking ------------------------------------------------------------------------------------------------------

    def when(self, minutes: float) -> datetime:
        """So many minutes after the beginning of the test's day."""
        return AT + timedelta(minutes=minutes)

    async def ask(
        self,
        start: float | None = 60,
        end: float | None = 120,
        *,
        definition: str = "ospf@1.0.0",
        pools: tuple[str, ...] = ("default",),
        tenant: str = "default",
        key: str | None = None,
        **options: Any,
    ) -> str:
        """Asks for a reservation from minute `start` to minute `end` (`start` None: as soon as possible, `end` minutes
        long) and returns its id."""
        uuid = request_key(tenant, "anna", "POST /reservations", key or f"key-{next(_numbers)}")
        _, resource_id = new_ids(RESERVATION, uuid)
        assert end is not None
        body = ReservationRequested(
            id=resource_id,
            owner=options.pop("owner", "anna"),
            definition=definition,
            pools=pools,
            seats=options.pop("seats", 1),
            start=None if start is None else self.when(start),
            end=None if start is None else self.when(end),
            duration_minutes=int(end - (start or 0)),
            asap=start is None,
            **options,
        )
        await self._accept("requested", resource_id, body, uuid, pools[0], tenant)
        return resource_id

    async def tell(
        self,
        verb: str,
        reservation: str,
        body: Model | None = None,
        *,
        pool: str = "default",
        tenant: str = "default",
        meant_for: int | None = None,
    ) -> str:
        """Asks something about a reservation (`cancel`, `confirm`, `change`) and returns the request's id."""
        uuid = request_key(tenant, "anna", verb, f"key-{next(_numbers)}")
        body = body or Nothing()
        return await self._accept(f"{verb}.requested", reservation, body, uuid, pool, tenant, meant_for=meant_for)

    async def change(
        self, reservation: str, start: float | None = None, end: float | None = None, meant_for: int | None = None
    ) -> str:
        body = ReservationChange(
            start=None if start is None else self.when(start), end=None if end is None else self.when(end)
        )
        return await self.tell("change", reservation, body, meant_for=meant_for)

    async def ask_series(
        self,
        rule: str = "FREQ=WEEKLY;COUNT=4",
        start: float = 60,
        minutes: int = 60,
        *,
        definition: str = "ospf@1.0.0",
        pools: tuple[str, ...] = ("default",),
        timezone: str = "Europe/Berlin",
        mode: str = "all",
        labels: dict[str, str] | None = None,
        except_dates: tuple[str, ...] = (),
        key: str | None = None,
        **options: Any,
    ) -> str:
        """Asks for a series whose first date begins at minute `start`, and returns its id."""
        uuid = request_key("default", "anna", "POST /series", key or f"key-{next(_numbers)}")
        _, series_id = new_ids(SERIES, uuid)
        body = SeriesRequested.model_validate(
            {
                "id": series_id,
                "owner": "anna",
                "rule": rule,
                "timezone": timezone,
                "first": self.when(start),
                "except_dates": except_dates,
                "mode": mode,
                "labels": labels or {},
                "template": {"definition": definition, "pools": pools, "duration_minutes": minutes, **options},
            }
        )
        await self._accept("requested", series_id, body, uuid, pools[0], "default", "series")
        return series_id

    async def tell_series(
        self, verb: str, series: str, body: Model, *, pool: str = "default", meant_for: int | None = None
    ) -> str:
        """Asks something about a series (`change`, `cancel`) and returns the request's id."""
        uuid = request_key("default", "anna", verb, f"key-{next(_numbers)}")
        return await self._accept(
            f"{verb}.requested", series, body, uuid, pool, "default", "series", meant_for=meant_for
        )

    async def tell_pool(self, body: Model, pool: str = "default") -> str:
        """Asks for worker-hours to be saved, and returns the request's id."""
        uuid = request_key("default", "olaf", "optimise", f"key-{next(_numbers)}")
        return await self._accept("optimise.requested", pool, body, uuid, pool, "default", "pool")

    async def settle_waiting(self) -> None:
        """As `settle`, but a request may stay in an inbox."""
        for pool in self.owners:
            await self._carry_intents(pool)
        for _ in range(12):
            await asyncio.sleep(0.001)

    async def series(self, name: str) -> Series:
        found = await self.store.get(SERIES.key(name))
        assert found is not None, f"there is no series {name}"
        return decode(SERIES, found)  # type: ignore[return-value] # decode answers the kind's model

    async def _accept(
        self,
        verb: str,
        resource_id: str,
        body: Model,
        uuid: Any,
        pool: str,
        tenant: str,
        kind: str = "reservation",
        *,
        meant_for: int | None = None,
    ) -> str:
        request = build_request(
            INTENTS[f"io.lablet.{kind}.{verb}.v1"],
            resource_id,
            body,
            key=uuid,
            tenant=tenant,
            principal="anna",
            shard=pool,
            digest=digest_of(body.to_dict()),
            at=self.clock.now(),
            meant_for=meant_for,
        )
        await accept(self.store, request)
        return request.id

    # -- the owners --------------------------------------------------------------------------------------------------

    async def own(self, pool: str = "default", replica: str = "one") -> PoolOwner:
        """A new term of ownership, served until the test ends. The owner before it is not told."""
        await self.caches.wait_synced()
        key = ownership_key("scheduler", pool)
        await self.store.delete(key)
        owner = self.owner(pool, Fence(key, await self.store.put(key, replica.encode())))
        if pool in self.owners:
            self.ended.append(self.owners[pool][1])
        self.owners[pool] = owner, asyncio.create_task(owner.run(), name=f"owner of {pool}")
        return owner

    def owner(self, pool: str, fence: Fence) -> PoolOwner:
        """An owner that does not run yet."""
        return PoolOwner(
            pool,
            fence,
            store=self.seen,
            caches=self.caches,
            find_definition=self._find,
            clock=self.clock,
            settings=self.settings,
            source=SOURCE,
        )

    def _find(self, tenant: str, name: str) -> Definition | None:
        cache = self.caches[DEFINITION]
        return cache.get(name, tenant) or cache.get(name, "public")

    async def end(self) -> None:
        tasks = [task for _, task in self.owners.values()] + self.ended
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not self.seen.unfenced, f"an owner has written without its fence: {self.seen.unfenced}"

    async def settle(self) -> None:
        """Until every owner has nothing left to do."""
        revision, since = -1, time.monotonic()
        deadline = since + 20
        quiet = 0
        while quiet < 12:
            for _, task in self.owners.values():
                if task.done():
                    task.result()
            now = (await self.store.status()).revision
            inboxes = [len(await self._carry_intents(pool)) for pool in self.owners]
            settled = not any(self.stirs(pool) for pool in self.owners)
            at_rest = now == revision and not any(inboxes) and settled and self.caches.revision >= now
            quiet = quiet + 1 if at_rest else 0
            revision = now
            assert time.monotonic() < deadline, f"still not at rest: {inboxes} in the inboxes"
            await asyncio.sleep(0 if quiet < 6 else 0.001)

    def stirs(self, pool: str = "default") -> int:
        """Places at which the owner has yet to look for power to be saved."""
        return len(self.owners[pool][0].stirs)

    async def settle_over_lost_answers(self) -> None:
        """As `settle`; an owner whose term ends without an answer is followed by the next, as `Ownership` would see to."""
        while True:
            try:
                await self.settle()
            except OutcomeUnknown:
                await self.own()
            else:
                return

    async def _carry_intents(self, pool: str) -> list[str]:
        """What the bridge and the bus do: each pointer that is new in an inbox wakes its owner once."""
        pointers = [
            f"{kv.key} {kv.mod_revision}" for kv in (await self.store.range(inbox_prefix("scheduler", pool))).items
        ]
        if not self.carried.issuperset(pointers):
            self.owners[pool][0].wake()
        self.carried.update(pointers)
        return pointers

    async def pass_time(self, to: float) -> None:
        """Lets lab time go on to minute `to`."""
        await self.clock.set(self.when(to))
        await self.settle()

    def rebuilt(self, owner: PoolOwner) -> set[Any]:
        """The bookings of a calendar that is made from the caches alone."""
        state = PoolState(owner.state.pool, self._find)
        now = self.clock.now()
        for worker in self.caches[WORKER].items():
            if worker.spec.pool == owner.pool:
                state.put_worker(worker, now)
        for instance in self.caches[INSTANCE].items():
            state.put_instance(instance, now)
        for reservation in self.caches[RESERVATION].items():
            if reservation.status.pool == owner.pool:
                state.put_reservation(reservation, now)
        return set(state.calendar.bookings())

    # -- looking -----------------------------------------------------------------------------------------------------

    async def all(self, kind: Kind) -> list[Any]:
        return [decode(kind, kv) for kv in (await self.store.range(kind.prefix)).items]

    async def reservation(self, name: str) -> Reservation:
        found = await self.store.get(RESERVATION.key(name))
        assert found is not None, f"there is no reservation {name}"
        return decode(RESERVATION, found)  # type: ignore[return-value] # decode answers the kind's model

    async def request(self, name: str, tenant: str = "default") -> Request:
        found = await self.store.get(REQUEST.key(name, tenant))
        assert found is not None, f"there is no request {name}"
        return decode(REQUEST, found)  # type: ignore[return-value] # decode answers the kind's model

    async def of(self, reservation: str, tenant: str = "default") -> Request:
        """The request that asked for a reservation or a series."""
        return await self.request("req-" + reservation.partition("-")[2], tenant)

    async def phase(self, name: str) -> str:
        return str((await self.reservation(name)).phase)

    async def facts(self, name: str) -> list[str]:
        """Names of the facts that the commits of a reservation stated, in order."""
        latest = await self.reservation(name)
        found = []
        revision = latest.revision
        while True:
            kv = await self.store.get(RESERVATION.key(name), revision=revision)
            if kv is None:
                return found[::-1]
            resource = decode(RESERVATION, kv)
            assert resource.status.last_fact is not None
            found.append(resource.status.last_fact.name)
            revision = kv.mod_revision - 1

    # -- the worker-controller's part --------------------------------------------------------------------------------

    async def start_lab(self, reservation: str, seat: int = 1, **status: Any) -> Instance:
        """Makes the seat's instance where it is placed."""
        found = await self.reservation(reservation)
        placed = found.seat(seat)
        assert placed is not None
        assert found.slot is not None
        instance = Instance(
            metadata=self._meta(placed.instance),
            spec=InstanceSpec(
                reservation=reservation,
                seat=seat,
                definition=found.spec.definition,
                pool=found.status.pool or "default",
                worker=placed.worker,
                ports=placed.ports,
                start=found.slot.start,
                end=found.slot.end,
            ),
            status=InstanceStatus(phase=InstancePhase.PENDING, attempt=placed.attempt, **status),
        )
        return await self.put(instance)

    async def set_lab(self, reservation: str, seat: int = 1, **status: Any) -> Instance:
        """Overwrites some of an instance's status."""
        kv = await self.store.get(INSTANCE.key(instance_id(reservation, seat)))
        assert kv is not None
        instance = decode(INSTANCE, kv)
        return await self.put(
            instance.model_copy(update={"status": instance.status.model_copy(update=status)}).observed()
        )

    async def set_worker(self, name: str, phase: WorkerPhase | None = None, **spec: Any) -> Worker:
        """Changes a worker so that its pool's gate moves."""
        kv = await self.store.get(WORKER.key(name))
        assert kv is not None
        worker = decode(WORKER, kv)
        if phase is WorkerPhase.PROVISIONING:
            worker = worker.moved(phase, at=self.clock.now(), by="/lablet/worker-controller", reason="PowerOn")
        elif phase is not None:
            worker = worker.model_copy(update={"status": worker.status.model_copy(update={"phase": phase})})
        if spec:
            worker = worker.respecified(**spec)
        return await self.put(worker.observed(), gate=worker.spec.pool)

    def maintenance(self, start: float, end: float) -> Maintenance:
        return Maintenance.model_validate({"from": self.when(start), "to": self.when(end)})

    # -- judging -----------------------------------------------------------------------------------------------------

    async def faults(self, *, beside: Collection[str] = ()) -> list[str]:
        """What is over-committed from now on by the stored reservations and instances, in words. `beside`: reservations not
        counted. What a lab that stays too long takes from others is a fault only where one of them could still move and
        has not been told (`AtRisk`)."""
        return await over_committed(self, beside) + await remembered_otherwise(self.store)


@pytest.fixture(autouse=True)
def soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner takes a short rest for a quiet moment: `settle` waits until it has used all of them."""
    monkeypatch.setattr(owner, "QUIET_SECONDS", 0.002)


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An empty store with running caches. Nobody owns anything yet."""
    world = World(MemoryStore())
    async with world.caches:
        await world.caches.wait_synced()
        yield world
        await world.end()


@pytest.fixture
async def pool(world: World) -> World:
    """A pool `default` of two workers (8 cores, 20 nodes each), a definition of 4 cores and 4 nodes, and its owner."""
    await world.pool()
    await world.definition()
    await world.own()
    await world.settle()
    return world
