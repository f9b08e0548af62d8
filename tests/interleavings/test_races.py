"""The scheduler and the worker-controller decide about the same seat at the same time, each from what it has last read: in
every order of their reads and writes, no lab is on two workers, and none is torn down inside a granted extension.

Both sides are the real code; only their caches are a read of the store instead, so that they are as stale as they can be.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lablet_common.clock import ManualClock
from lablet_common.intents import ReservationChange
from lablet_common.objects import MemoryObjectStore
from lablet_common.ownership import Fence
from lablet_common.references import Older
from lablet_common.resources import Definition, Instance, Metadata, Reservation, Worker, WorkerPool
from lablet_common.resources.instance import InstanceSpec, InstanceStatus
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    POOL,
    RESERVATION,
    WORKER,
    Kind,
    gate_key,
    kind_of,
)
from lablet_common.resources.reservation import SeatPlacement, SeatState, Slot
from lablet_common.store import Get, MemoryStore, Store, Transaction
from lablet_common.store.changes import decode, encode
from lablet_common.testing.interleaving import Actor, OrderFault, Scene, explore
from lablet_scheduler import engine, heal
from lablet_scheduler.accounts import Accounts
from lablet_scheduler.change import changed
from lablet_scheduler.commits import Refused, step_of, write
from lablet_scheduler.decide import Context, Decision
from lablet_scheduler.moves import by_reservation, moved
from lablet_scheduler.state import PoolState
from lablet_workers import labs
from lablet_workers.estate import Estate
from lablet_workers.labs import Labs
from lablet_workers.settings import WorkerControllerSettings

START = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)
END = START + timedelta(hours=1)
NAME, SEAT = "rsv-a", "ins-a-1"
_SETTINGS = WorkerControllerSettings()
_LOOKS = 3
"""Times that an actor looks again after somebody else was first."""
_READ = (RESERVATION, INSTANCE, WORKER, POOL, DEFINITION, ARTIFACT)


class Known:
    """What was read at one revision, as a service's caches would show it."""

    def __init__(self, reads: dict[Kind, list[Any]], gate: int) -> None:
        self.gate = gate
        self._reads = reads

    @classmethod
    async def of(cls, store: Store) -> "Known":
        """One call: everything as it is now."""
        found = await store.txn([], [*(Get(kind.prefix, prefix=True) for kind in _READ), Get(gate_key("default"))])
        *lists, gate = found.reads
        reads = {kind: [decode(kind, kv) for kv in kvs] for kind, kvs in zip(_READ, lists, strict=True)}
        return cls(reads, gate[0].mod_revision if gate else 0)

    def __getitem__(self, kind: Kind) -> Any:
        items = self._reads.get(kind, [])
        by_id = {one.id: one for one in items}
        return SimpleNamespace(
            kind=kind,
            items=lambda: items,
            get=lambda name, tenant="default": by_id.get(name),
            by=lambda index, value: [one for one in items if index == "worker" and one.spec.worker == value],
        )

    def beside(self, _prefix: str) -> Older:
        """Nobody here has left so much that references stand beside their artifact."""
        return Older()

    def definition(self, _tenant: str, name: str) -> Definition | None:
        return cast("Definition | None", self[DEFINITION].get(name))

    async def reached(self, _: int) -> None:
        """The next look reads anew."""


def _request(at: datetime) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(event_id="evt", received_at=at))


@dataclass
class World:
    store: MemoryStore
    scheduler: Fence
    workers: Fence

    # -- the scheduler -----------------------------------------------------------------------------------------------

    async def _decide(
        self, store: Store, now: datetime, decide: Callable[[PoolState, Context], Decision | None]
    ) -> None:
        for _ in range(_LOOKS):
            known = await Known.of(store)
            state = PoolState(known[POOL].get("default"), known.definition)
            for worker in known[WORKER].items():
                state.put_worker(worker, now)
            for instance in known[INSTANCE].items():
                state.put_instance(instance, now)
            for reservation in known[RESERVATION].items():
                state.put_reservation(reservation, now)
            decision = decide(state, Context(now, "/lablet/scheduler"))
            if decision is None or decision.resource is None:
                return
            step = step_of(decision, None, at=now, by="/lablet/scheduler")
            done = await write(store, self.scheduler, gate_key("default"), known.gate, [step], Accounts(store))
            if not isinstance(done, Refused):
                return

    async def replan(self, store: Store) -> None:
        """The seat's worker is down for maintenance in its slot: it moves."""
        lead = timedelta(minutes=35)
        before = START - timedelta(minutes=20)
        await self._decide(store, before, lambda state, now: heal.heal(state, state.reservations[NAME], now, lead))

    async def save(self, store: Store) -> None:
        """The owner moves the seat by itself, or the optimiser has planned to."""

        def decide(state: PoolState, context: Context) -> Decision | None:
            before = state.calendar.booking(NAME, 1)
            if before is None or before.worker == "default-002" or before.started:
                return None
            after = engine.Booking(**{**_fields(before), "worker": "default-002"})
            said = engine.Explanation("moved", considered=2, removed={})
            ((name, moves),) = by_reservation([engine.Move(before, after, said)])
            return moved(state.reservations[name], moves, context, reason="Consolidated")

        await self._decide(store, START - timedelta(minutes=20), decide)

    async def heal(self, store: Store) -> None:
        """The seat's lab has failed with its worker: it gets another place for what is left of its slot."""
        lead = timedelta(minutes=35)
        before = END - timedelta(minutes=1)
        await self._decide(store, before, lambda state, now: heal.heal(state, state.reservations[NAME], now, lead))

    async def replan_late(self, store: Store) -> None:
        """As `replan`, when the lab has run for long."""
        lead = timedelta(minutes=35)
        before = END - timedelta(minutes=1)
        await self._decide(store, before, lambda state, now: heal.heal(state, state.reservations[NAME], now, lead))

    async def extend(self, store: Store) -> None:
        """Asked for a minute before the end."""
        await self._extend(store, END - timedelta(minutes=1))

    async def extend_early(self, store: Store) -> None:
        """Asked for while the lab is being made."""
        await self._extend(store, START - timedelta(minutes=20))

    async def _extend(self, store: Store, at: datetime) -> None:
        asked = ReservationChange(end=END + timedelta(minutes=30))
        await self._decide(
            store, at, lambda state, now: changed(state, state.reservations[NAME], asked, _request(now.now), now)
        )

    # -- the worker-controller ---------------------------------------------------------------------------------------

    async def _labs(self, store: Store, now: datetime) -> Labs:
        known = await Known.of(store)
        estate = Estate(
            "default", self.workers, store=store, caches=cast("Any", known), clock=ManualClock(now),
            settings=_SETTINGS, providers=cast("Any", None), runtimes=cast("Any", None),
            objects=MemoryObjectStore(), box=cast("Any", None), source="/lablet/worker-controller",
        )  # fmt: skip
        return Labs(estate, lambda _: None, lambda _: None)

    async def start(self, store: Store) -> None:
        """The slot is near: the seat's instance is made where the reservation says."""
        for _ in range(_LOOKS):
            looking = await self._labs(store, START - timedelta(minutes=20))
            await looking.look_at_reservation(NAME)
            if await self.store.get(INSTANCE.key(SEAT)) is not None:
                return

    async def tear_down(self, store: Store) -> None:
        """The slot is over, as far as the instance knows."""
        for _ in range(_LOOKS):
            await (await self._labs(store, END)).look_at_instance(SEAT)
            instance = await self._one(INSTANCE, SEAT)
            if instance is not None and (instance.spec.end > END or instance.slot_ended):
                return

    async def live(self, store: Store) -> None:
        """The lab is made, and torn down while it still waits for its worker."""
        await self.start(store)
        await self.tear_down(store)

    async def end(self, store: Store) -> None:
        """The slot's first end has come, as far as the instance knows."""
        for _ in range(2):
            await (await self._labs(store, END)).look_at_instance(SEAT)

    # -- judging -----------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """From the store alone, after every call."""
        reservation = await self._one(RESERVATION, NAME)
        instance = await self._one(INSTANCE, SEAT)
        if instance is None:
            return
        (seat,) = reservation.status.placement
        gone = instance.status.released or instance.is_final
        assert gone or instance.spec.worker == seat.worker, (
            f"the lab is on {instance.spec.worker}, its reservation says {seat.worker}"
        )
        longer = reservation.slot.end > END
        assert not (instance.slot_ended and longer), "the lab was torn down inside a granted extension"
        assert not (instance.status.phase == "Stopping" and longer), "the lab was torn down inside a granted extension"
        given_up = instance.status.phase == "Terminated" and seat.state is SeatState.PLACED
        assert not (given_up and longer), "the seat was given up although its place and its slot still stand"

    async def _one(self, kind: Kind, name: str) -> Any:
        found = await self.store.get(kind.key(name))
        return None if found is None else decode(kind, found)


def _fields(booking: engine.Booking) -> dict[str, Any]:
    return {name: getattr(booking, name) for name in booking.__dataclass_fields__}


def meta(name: str) -> Metadata:
    return Metadata(id=name, uid=f"uid-{name}", created_at=START - timedelta(days=1))


def resources(*, instance: dict[str, Any] | None, maintained: bool, extended: bool) -> list[Any]:
    """Two workers, one seat on the first; its lab has begun, or its worker is to be maintained in its slot. A failed lab's
    worker is lost. `extended`: the slot has become longer, and its instance does not know yet."""
    failed = instance is not None and instance["phase"] == "Failed"
    pool = {"template": "sim", "max": 2, "turnaround_minutes": 0, "preparation_minutes": 0}
    found: list[Any] = [
        WorkerPool.model_validate({"metadata": meta("default"), "spec": pool, "status": {"phase": "Active"}}),
        Definition.model_validate(
            {
                "metadata": meta("lab@1.0.0"),
                "spec": {
                    "name": "lab", "version": "1.0.0", "topology": {"digest": "0" * 64, "bytes": 1},
                    "requirements": {"cpu_cores": 4, "memory_gb": 4, "node_count": 2},
                },
                "status": {"phase": "Published"},
            }
        ),
    ]  # fmt: skip
    for number in (1, 2):
        span = {"from": START - timedelta(minutes=10), "to": END}
        spec = {
            "pool": "default", "template": "sim", "capacity": {"cpu_cores": 8, "memory_gb": 32, "storage_gb": 100},
            "max_nodes": 20, "license": "ENTERPRISE", "maintenance": [span] if maintained and number == 1 else [],
        }  # fmt: skip
        phase = "Failed" if failed and number == 1 else "Ready"
        worker = {"metadata": meta(f"default-{number:03}"), "spec": spec, "status": {"phase": phase}}
        found.append(Worker.model_validate(worker))
    slot = Slot(start=START, end=END + timedelta(minutes=30) if extended else END)
    reservation = Reservation.model_validate(
        {
            "metadata": meta(NAME),
            "spec": {"definition": "lab@1.0.0", "start": START, "end": END, "duration_minutes": 60},
            "status": {"phase": "Active" if instance else "Scheduled", "pool": "default", "slot": slot,
                       "placement": [SeatPlacement(seat=1, worker="default-001", instance=SEAT)]},
        }
    )  # fmt: skip
    found.append(reservation)
    if instance is not None:
        spec = InstanceSpec(
            reservation=NAME, seat=1, definition="lab@1.0.0", pool="default", worker="default-001", start=START, end=END
        )
        status = InstanceStatus.model_validate({"ran": True, **instance})
        found.append(Instance(metadata=meta(SEAT), spec=spec, status=status))
    return found


RUNNING = {"phase": "Running"}
FAILED = {"phase": "Failed", "reason": "WorkerLost", "released": True}
ASKED = {"phase": "Collecting", "reason": "CollectRequested", "deadline": END + timedelta(hours=1)}


def scene(
    *names: str, instance: dict[str, Any] | None = None, maintained: bool = False, extended: bool = False
) -> Callable[[], Awaitable[Scene]]:
    async def make() -> Scene:
        store = MemoryStore()
        txn = Transaction()
        for resource in resources(instance=instance, maintained=maintained, extended=extended):
            txn.put(kind_of(resource).key_of(resource), encode(resource))
        await txn.put(gate_key("default"), b"x").commit(store)
        fences = [
            Fence(key, await store.put(key, b"test"))
            for key in ("/ownership/scheduler/default", "/ownership/w/default")
        ]
        world = World(store, *fences)
        actors: dict[str, Actor] = {name: getattr(world, name) for name in names}
        return Scene(store, actors, world.check)

    return make


RACES = {
    "replan and start": scene("replan", "start", maintained=True),
    "replan, a saving move and start": scene("replan", "start", "save", maintained=True),
    "a saving move and start": scene("save", "start"),
    "extend and tear down": scene("extend", "tear_down", instance=RUNNING),
    "extend and the end of a failed lab": scene("extend", "end", instance=FAILED),
    "heal an extended seat and the end of its failed lab": scene("heal", "end", instance=FAILED, extended=True),
    "extend and the end of a collection": scene("extend", "end", instance=ASKED),
    "extend and start": scene("extend_early", "start"),
    "extend, and the whole life of a lab": scene("extend_early", "live"),
    "replan, and the whole life of a lab": scene("replan", "live", maintained=True),
    "replan and tear down a lab that runs": scene("replan_late", "tear_down", instance=RUNNING, maintained=True),
    "replan and the end of a failed lab": scene("heal", "end", instance=FAILED),
    "replan, extend and the end of a failed lab": scene("heal", "extend", "end", instance=FAILED),
}


@pytest.mark.parametrize("race", RACES)
async def test_in_every_order_no_lab_is_on_two_workers_nor_torn_down_inside_an_extension(race: str) -> None:
    orders = await explore(RACES[race])
    alone = (
        race == "replan and tear down a lab that runs"
    )  # the replan finds nothing that it may move, and writes nothing
    assert orders >= (3 if alone else 6), "both sides read before either writes, in some of the orders"


@pytest.mark.parametrize(
    ("race", "rule", "fault"),
    [
        ("replan and start", "the absence of the instance", "the lab is on default-001"),
        ("a saving move and start", "the absence of the instance", "the lab is on default-001"),
        ("replan and start", "the reservation as it was read", "the lab is on default-001"),
        ("extend and tear down", "the instances as they were read", "torn down inside a granted extension"),
        ("extend and tear down", "the reservation as it was read", "torn down inside a granted extension"),
        ("extend and the end of a failed lab", "the reservation as it was read", "given up although its place"),
        (
            "extend and the end of a collection",
            "the instances as they were read",
            "torn down inside a granted extension",
        ),
        (
            "extend and the end of a collection",
            "the reservation as it was read",
            "torn down inside a granted extension",
        ),
        ("extend, and the whole life of a lab", "the absence of the instance", "given up although its place"),
        ("extend, and the whole life of a lab", "the reservation as it was read", "given up although its place"),
        ("replan, and the whole life of a lab", "the absence of the instance", "the lab is on default-001"),
        ("replan, and the whole life of a lab", "the reservation as it was read", "the lab is on default-001"),
        (
            "replan, extend and the end of a failed lab",
            "the reservation as it was read",
            "given up although its place",
        ),
        (
            "replan, extend and the end of a failed lab",
            "the instances as they were read",
            "given up although its place",
        ),
    ],
)
async def test_without_a_comparison_the_explorer_finds_the_order_that_breaks_it(
    race: str, rule: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these comparisons is needed: without it, some order goes wrong."""

    def compares_nothing(*_: Any) -> None:
        """As if it had been forgotten."""

    if rule == "the absence of the instance":
        monkeypatch.setattr(Transaction, "require_absent", lambda txn, key: _unless_instance(txn, key))
    elif rule == "the reservation as it was read":
        monkeypatch.setattr(labs, "unchanged_in", compares_nothing)
    else:
        monkeypatch.setattr("lablet_scheduler.commits.unchanged_in", compares_nothing)
    with pytest.raises(OrderFault, match=fault):
        await explore(RACES[race])


def _unless_instance(txn: Transaction, key: str) -> Transaction:
    """As if it had been forgotten, by the scheduler: whoever makes the instance still compares."""
    if key.startswith(INSTANCE.prefix) and not any(op.key == key for op in txn.operations):
        makes = asyncio.current_task()
        assert makes is not None
        if not any(name in str(makes.get_coro()) for name in ("start", "live")):
            return txn
    return txn.require(key, mod_revision=0)
