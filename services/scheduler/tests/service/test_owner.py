"""The owner's loop: order, conflicts, fencing, lost answers, new terms, and rest."""

import asyncio
import itertools
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

import lablet_scheduler.owner
from lablet_common.ownership import Fence, NotOwner, Ownership
from lablet_common.resources import Metadata, schema
from lablet_common.resources.kinds import RESERVATION, Service, gate_key, inbox_key
from lablet_common.resources.request import RequestPhase
from lablet_common.resources.reservation import (
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
    SeatPlacement,
    Slot,
)
from lablet_common.resources.worker import WorkerPhase
from lablet_common.store import OutcomeUnknown, Put, StoreUnavailable
from lablet_scheduler import dates, decide, engine
from lablet_scheduler.engine import Calendar
from lablet_scheduler.owner import PoolOwner

_SEATS = 4
"""Seats that the pool of two workers takes at one time."""


def writes_reservation(writes: Any, name: str = "") -> bool:
    return any(write.key.startswith(RESERVATION.key(name)) for write in writes)


async def test_the_inbox_is_decided_in_the_order_of_acceptance(world: Any) -> None:
    await world.pool()
    await world.definition()
    names = [await world.ask() for _ in range(2 * _SEATS)]
    await world.own()
    await world.settle()
    phases = [await world.phase(name) for name in names]
    assert phases == ["Scheduled"] * _SEATS + ["Waitlisted"] * _SEATS


async def test_decisions_of_one_pass_share_a_transaction(world: Any) -> None:
    await world.pool(workers=5)
    await world.definition()
    names = [await world.ask() for _ in range(10)]
    await world.own()
    await world.settle()
    assert len({(await world.reservation(name)).revision for name in names}) == 1


async def test_a_full_inbox_is_committed_as_it_is_decided_and_leaves_the_event_loop_its_turns(world: Any) -> None:
    """On a machine that is short of time, a pass that decided all before it committed any outlasted its own lease."""
    await world.pool(workers=30)
    await world.definition()
    written: list[int] = []

    async def count(_: Any, writes: Any) -> bool:
        written.append(sum(write.key.startswith(RESERVATION.prefix) for write in writes))
        return False

    world.seen.before_txn.append(count)
    for _ in range(50):
        await world.ask()
    await world.own()
    await world.settle()
    assert written == [32, 18]


async def test_each_seat_is_booked_once_and_each_reservation_parsed_by_nobody(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decided here is known here: neither its commit nor the watch that tells of it makes the calendar anew."""
    await world.pool(workers=10)
    await world.definition()
    await world.own()
    await world.settle()
    released, parsed = list[str](), list[type]()
    release, read = Calendar.release, schema.read

    def counting_release(self: Calendar, reservation: str, seat: int | None = None) -> Any:
        released.append(reservation)
        return release(self, reservation, seat)

    def counting_read(model: Any, data: bytes) -> Any:
        parsed.append(model)
        return read(model, data)

    monkeypatch.setattr(Calendar, "release", counting_release)
    monkeypatch.setattr(schema, "read", counting_read)
    names = [await world.ask() for _ in range(10)]
    await world.settle()
    assert [await world.phase(name) for name in names] == ["Scheduled"] * 10
    assert not set(released) & set(names)
    assert Reservation not in parsed
    assert not await world.faults()


async def test_deciding_asks_the_store_once(pool: Any) -> None:
    """Its inbox, its gate and its limits come with the watch that it follows anyway."""
    before = pool.seen.calls
    await pool.ask()
    await pool.settle()
    assert pool.seen.calls == before + 1


async def test_a_conflict_of_one_leaves_the_others_committed_and_the_calendar_right(world: Any) -> None:
    """While three are being decided, the second is cleared away by somebody else."""
    await world.pool()
    await world.definition()
    names = [await world.ask(seats=2) for _ in range(3)]
    pointer = (await world.store.range("/inbox/scheduler/default/")).items
    second = next(kv for kv in pointer if names[1].removeprefix("rsv-") in kv.key)

    async def clear(_: Any, writes: Any) -> bool:
        if writes_reservation(writes):
            await world.store.delete(second.key)
            return True
        return False

    world.seen.before_txn.append(clear)
    owner = await world.own()
    await world.settle()
    assert [await world.phase(names[0]), await world.phase(names[2])] == ["Scheduled", "Scheduled"]
    assert await world.store.get(RESERVATION.key(names[1])) is None
    assert set(owner.state.calendar.bookings()) == world.rebuilt(owner)
    assert not await world.faults()


async def test_an_owner_whose_key_was_taken_writes_nothing_more_and_goes(pool: Any) -> None:
    before = pool.store.revision
    _, task = pool.owners["default"]

    async def take_over(_: Any, writes: Any) -> bool:
        if writes_reservation(writes):
            await pool.store.delete("/ownership/scheduler/default")
            await pool.store.put("/ownership/scheduler/default", b"two")
            return True
        return False

    pool.seen.before_txn.append(take_over)
    name = await pool.ask()
    with pytest.raises(NotOwner):
        await pool.settle()
    assert task.done()
    assert await pool.store.get(RESERVATION.key(name)) is None
    assert (await pool.of(name)).phase == RequestPhase.ACCEPTED
    assert pool.store.revision == before + 3, "the request, and the key that was deleted and put"


async def test_when_the_gate_moves_between_look_and_commit_it_is_decided_again(pool: Any) -> None:
    """The worker that was chosen fails in that moment."""

    async def fail(_: Any, writes: Any) -> bool:
        if writes_reservation(writes):
            await pool.set_worker("default-001", WorkerPhase.FAILED)
            return True
        return False

    pool.seen.before_txn.append(fail)
    names = [await pool.ask(30, 60) for _ in range(3)]
    await pool.settle()
    assert not pool.seen.before_txn
    assert [await pool.phase(name) for name in names] == ["Scheduled", "Scheduled", "Waitlisted"]
    for name in names[:2]:
        reservation = await pool.reservation(name)
        assert reservation.seat(1).worker == "default-002"
        assert await pool.facts(name) == ["scheduled"], "never placed on the lost worker first"


async def test_a_refusal_that_meets_a_moved_gate_is_made_again_without_being_told(pool: Any) -> None:
    async def move(_: Any, writes: Any) -> bool:
        await pool.store.put(gate_key("default"), b"somebody")
        return True

    pool.seen.before_txn.append(move)
    said = await pool.tell("cancel", "rsv-unknown")
    await pool.settle()
    assert not pool.seen.before_txn
    assert (await pool.request(said)).phase == RequestPhase.REFUSED


async def test_nobody_gets_the_old_place_of_a_move_that_is_refused(pool: Any) -> None:
    """An instance comes up between the look and the transaction, and the next in the line would have fitted."""
    name = await pool.ask(60, 120, seats=4)
    await pool.settle()

    async def start(_: Any, writes: Any) -> bool:
        if writes_reservation(writes, name):
            await pool.start_lab(name)
            return True
        return False

    pool.seen.before_txn.append(start)
    said = await pool.change(name, start=200)
    following = await pool.ask(60, 120, seats=4)
    await pool.settle()
    assert not pool.seen.before_txn
    assert (await pool.request(said)).phase == RequestPhase.REFUSED
    assert (await pool.reservation(name)).slot.start == pool.when(60)
    assert await pool.phase(following) == "Waitlisted"
    assert not await pool.faults()


async def test_old_news_do_not_bring_an_ended_reservation_back(pool: Any) -> None:
    name = await pool.ask()
    await pool.settle()
    old = await pool.reservation(name)
    await pool.tell("cancel", name)
    await pool.settle()
    state = pool.owners["default"][0].state
    assert not state.put_reservation(old, pool.clock.now())
    assert not list(state.calendar.bookings())
    assert name not in state.reservations


async def test_after_a_lost_answer_the_term_ends_and_the_next_decides_nothing_twice(pool: Any) -> None:
    first = await pool.ask(seats=2)
    await pool.settle()
    _, task = pool.owners["default"]

    async def lose(_: Any, writes: Any) -> bool:
        if writes_reservation(writes):
            pool.store.lose_answer = True
            return True
        return False

    pool.seen.before_txn.append(lose)
    names = [await pool.ask(seats=2), await pool.ask(seats=2)]
    with pytest.raises(OutcomeUnknown):
        await pool.settle()
    assert task.done()
    owner = await pool.own(replica="two")
    await pool.settle()
    assert [await pool.phase(name) for name in [first, *names]] == ["Scheduled", "Scheduled", "Waitlisted"]
    assert [await pool.facts(name) for name in names] == [["scheduled"], ["waitlisted"]]
    assert not await pool.faults()
    assert set(owner.state.calendar.bookings()) == pool.rebuilt(owner)


async def test_a_lost_answer_costs_no_more_than_a_new_term_of_the_same_owner(pool: Any) -> None:
    """`Ownership` gives the shard up and takes it anew: what was doubtful can never happen after that."""
    pool.owners["default"][1].cancel()
    await asyncio.gather(pool.owners.pop("default")[1], return_exceptions=True)
    await pool.store.delete("/ownership/scheduler/default")
    terms: list[PoolOwner] = []

    async def serve(_: str, fence: Any) -> None:
        terms.append(pool.owner("default", fence))
        await terms[-1].run()

    async def lose(_: Any, writes: Any) -> bool:
        if writes_reservation(writes):
            pool.store.lose_answer = True
            return True
        return False

    ownership = Ownership(pool.store, Service.SCHEDULER, "one", ttl_seconds=5, shards=lambda: ["default"])
    pool.seen.before_txn.append(lose)
    names = [await pool.ask(seats=2) for _ in range(3)]
    running = asyncio.create_task(ownership.run(serve))
    try:
        async with asyncio.timeout(10):
            while len(terms) < 2 or (await pool.store.range("/inbox/")).items:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted([await pool.phase(name) for name in names]) == ["Scheduled", "Scheduled", "Waitlisted"]
    assert not await pool.faults()


async def test_a_new_term_goes_on_where_the_last_one_stopped(world: Any) -> None:
    await world.pool(workers=10)
    await world.definition()
    world.settings = world.settings.model_copy(update={"scheduler_batch_size": 4})
    names = [await world.ask() for _ in range(30)]
    stopped = asyncio.Event()

    async def stop(_: Any, writes: Any) -> bool:
        if writes_reservation(writes) and (await world.store.range(RESERVATION.prefix)).count >= 8:
            world.owners["default"][1].cancel()
            stopped.set()
            return True
        return False

    world.seen.before_txn.append(stop)
    await world.own()
    await stopped.wait()
    await asyncio.gather(world.owners["default"][1], return_exceptions=True)
    decided = (await world.store.range(RESERVATION.prefix)).count
    assert 8 <= decided < 30
    owner = await world.own(replica="two")
    await world.settle()
    assert [await world.facts(name) for name in names] == [["scheduled"]] * 20 + [["waitlisted"]] * 10
    assert set(owner.state.calendar.bookings()) == world.rebuilt(owner)


async def test_while_etcd_is_away_nothing_is_lost_and_nothing_spins(pool: Any) -> None:
    await pool.ask(seats=3)
    await pool.settle()
    name = await pool.ask(seats=1)
    pool.store.unavailable = True
    pool.owners["default"][0].wake()
    calls = pool.seen.calls
    await asyncio.sleep(0.5)
    assert pool.seen.calls - calls < 12
    pool.store.unavailable = False
    await pool.settle()
    assert await pool.phase(name) == "Scheduled"


async def test_when_etcd_goes_between_two_writes_the_calendar_keeps_the_first(pool: Any) -> None:
    """What this owner has committed counts, also before its caches have seen it."""
    writes = 0

    async def fail_the_second(_: Any, operations: Any) -> bool:
        nonlocal writes
        writes += writes_reservation(operations)
        if writes == 2:
            pool.store.fail_next(1, StoreUnavailable("no endpoint answered"))
        return writes == 2

    pool.seen.before_txn.append(fail_the_second)
    first = await pool.ask(seats=1)
    await pool.tell("cancel", first)  # a second transaction, as it is about the same reservation
    others = [await pool.ask(seats=2) for _ in range(3)]
    await pool.settle()
    assert not pool.seen.before_txn
    assert await pool.facts(others[0]) == ["scheduled"], "what was granted and not written is off the calendar"
    assert await pool.phase(first) == "Cancelled"
    assert sorted([await pool.phase(name) for name in others]) == ["Scheduled", "Scheduled", "Waitlisted"]
    assert not await pool.faults()


async def test_an_intent_of_a_revision_that_never_was_holds_up_nobody_for_long(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd was restored from a backup, and NATS still holds what was told before."""
    monkeypatch.setattr(lablet_scheduler.owner, "_TOLD_SECONDS", 0.02)
    pool.owners["default"][0].wake(10**9)
    name = await pool.ask()
    await pool.settle()
    assert await pool.phase(name) == "Scheduled"


async def test_an_idle_owner_calls_nobody(pool: Any) -> None:
    await pool.ask(500, 600, seats=2)
    await pool.ask(500, 600, seats=4)
    await pool.settle()
    await asyncio.sleep(0.05)
    calls = pool.seen.calls
    await asyncio.sleep(0.3)
    assert pool.seen.calls == calls


async def test_an_owner_whose_inbox_leads_nowhere_is_idle_all_the_same(pool: Any) -> None:
    """Somebody has deleted the request and not its pointer: nothing comes of looking again."""
    await pool.store.put(inbox_key("scheduler", "default", "req-gone"), b'{"tenant":"default","request":"req-gone"}')
    name = await pool.ask(500, 600)
    async with asyncio.timeout(5):
        while await pool.store.get(RESERVATION.key(name)) is None:
            await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    calls = pool.seen.calls
    await asyncio.sleep(0.3)
    assert pool.seen.calls == calls


async def test_a_wake_up_without_news_asks_nobody(pool: Any) -> None:
    await pool.ask(500, 600)
    await pool.settle()
    calls = pool.seen.calls
    pool.owners["default"][0].wake()
    await asyncio.sleep(0.05)
    assert pool.seen.calls == calls


async def test_the_periodic_look_finds_what_nobody_told(world: Any) -> None:
    world.settings = world.settings.model_copy(update={"resync_seconds": 0.05})
    await world.pool()
    await world.definition()
    await world.own()
    name = await world.ask()  # nobody carries the intent
    async with asyncio.timeout(5):
        while await world.store.get(RESERVATION.key(name)) is None:
            await asyncio.sleep(0.005)


async def test_a_pool_that_is_gone_ends_the_term_and_not_the_process(world: Any) -> None:
    await world.definition()
    await world.own("nowhere")
    with pytest.raises(NotOwner):
        await world.owners["nowhere"][1]


async def test_the_gate_is_only_compared_never_written(pool: Any) -> None:
    before = await pool.store.get(gate_key("default"))
    for _ in range(5):
        await pool.ask()
    await pool.settle()
    assert await pool.store.get(gate_key("default")) == before


async def test_five_hundred_requests_share_their_transactions(world: Any) -> None:
    await world.pool(workers=50)
    await world.definition()
    for number in range(500):
        start = 60 * (1 + number % 8)
        await world.ask(start, start + 60, seats=1 + number % 3)
    writes = 0
    txn = world.store.txn

    async def counted(compares: Any, success: Any, failure: Any = ()) -> Any:
        nonlocal writes
        writes += any(isinstance(part, Put) for part in success)
        return await txn(compares, success, failure)

    world.store.txn = counted
    await world.own()
    async with asyncio.timeout(60):
        while (await world.store.range("/inbox/", limit=1)).count:
            await asyncio.sleep(0.001)
    assert writes <= 40, "three operations each, a hundred or so to a transaction"
    assert not await world.faults()


async def _booked(world: Any, count: int) -> None:
    """Reservations that stand in the store already, an hour each."""
    workers = await world.pool(workers=10, cpu=64, nodes=1000)
    await world.definition(cpu=1, nodes=1, ports=0)
    for number in range(count):
        start = world.when(60 * (1 + number // 100))
        slot = Slot(start=start, end=start + timedelta(hours=1))
        name = f"rsv-{number:04d}"
        seat = SeatPlacement(seat=1, worker=workers[number % 10].id, ports={}, instance=f"ins-{name}-1")
        status = ReservationStatus(phase=ReservationPhase.SCHEDULED, pool="default", slot=slot, placement=(seat,))
        spec = ReservationSpec(
            definition="ospf@1.0.0", pools=("default",), start=slot.start, end=slot.end, duration_minutes=60
        )
        metadata = Metadata(id=name, uid=name, created_at=world.clock.now())
        await world.put(Reservation(metadata=metadata, spec=spec, status=status))


async def test_a_new_owner_answers_who_asks_before_it_has_looked_at_everything(world: Any) -> None:
    await _booked(world, 500)
    asked = await world.ask()
    left: list[int] = []

    async def look(_: Any, writes: Any) -> bool:
        decides = any(RESERVATION.key(asked) == write.key for write in writes)
        if decides:
            left.append(len(world.owners["default"][0]._agenda.rest))
        return decides

    world.seen.before_txn.append(look)
    owner = await world.own()
    await world.settle()
    assert await world.phase(asked) == "Scheduled"
    assert left[0] > 0
    assert not owner._agenda.rest, "and then it looks at the rest"


async def test_looking_at_everything_leaves_the_event_loop_its_turns(world: Any) -> None:
    """The lease is kept, and news come in, on the same loop; who asks meanwhile waits for one slice and not for the round."""
    await _booked(world, 500)
    owner = await world.own()
    await world.settle()
    owner._agenda.look_at_everything()
    owner.wake()
    left = [len(owner._agenda.rest)]
    while left[-1]:
        await asyncio.sleep(0)
        left.append(len(owner._agenda.rest))
    assert left[0] == 500
    assert max(before - after for before, after in itertools.pairwise(left)) <= 25


@pytest.mark.parametrize(("soon", "at_once"), [(False, 16), (True, 1)])
async def test_trying_those_who_wait_leaves_the_event_loop_its_turns(
    world: Any, monkeypatch: pytest.MonkeyPatch, soon: bool, at_once: int
) -> None:
    await world.pool(workers=1)
    await world.definition(minutes=50_000)
    await world.own()
    month = 31 * 24 * 60
    await world.ask(10, 10 + month, seats=2)
    starts = [None if soon else number * 10 for number in range(1, 51)]
    names = [await world.ask(start, 20 if start is None else start + 10) for start in starts]
    await world.settle()
    assert {await world.phase(name) for name in names} == {"Waitlisted"}
    turns, tried, each = itertools.count(), Counter[int](), engine.retry_each
    now = [next(turns)]

    def watched(*arguments: Any) -> Any:
        for one in each(*arguments):
            tried[now[0]] += 1
            yield one

    monkeypatch.setattr(engine, "retry_each", watched)
    world.owners["default"][0]._agenda.freed = True
    world.owners["default"][0].wake()
    while tried.total() < len(names):
        await asyncio.sleep(0)
        now[0] = next(turns)
    assert max(tried.values()) <= at_once


async def test_the_calendar_is_built_with_rests_in_between_and_misses_no_news_meanwhile(world: Any) -> None:
    await _booked(world, 1000)
    await world.caches.wait_synced()
    while world.caches.revision < (await world.store.status()).revision:
        await asyncio.sleep(0)
    owner = world.owner("default", Fence("/ownership/scheduler/default", 1))
    stops = owner._agenda.listen()
    building = asyncio.create_task(owner._agenda.build())
    turns = 0
    while not building.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 2:
            await world.store.delete(RESERVATION.key("rsv-0000"))
            await world.worker("default-011")
    assert turns > 10, "whoever shares the loop gets turns"
    while world.caches.revision < (await world.store.status()).revision:
        await asyncio.sleep(0)
    owner._agenda.take_news()
    assert set(owner.state.calendar.bookings()) == world.rebuilt(owner)
    assert len(owner.state.reservations) == 999
    assert "default-011" in owner.state.workers
    for stop in stops:
        stop()


async def test_a_new_owner_heals_what_was_lost_before_it_answers_who_asks(world: Any) -> None:
    """However many slots begin before that of the seat whose worker is lost."""
    await world.pool(workers=0)
    await world.definition(cpu=1, nodes=1, ports=0)
    await world.worker("default-001", cpu=251, nodes=1000)
    await world.worker("default-002")
    for number in range(251):
        lost = number == 250
        slot = Slot(start=world.when(30 if lost else 10), end=world.when(100))
        name = f"rsv-{number:04d}"
        worker = "default-002" if lost else "default-001"
        seat = SeatPlacement(seat=1, worker=worker, ports={}, instance=f"ins-{name}-1")
        status = ReservationStatus(phase=ReservationPhase.SCHEDULED, pool="default", slot=slot, placement=(seat,))
        spec = ReservationSpec(
            definition="ospf@1.0.0", pools=("default",), start=slot.start, end=slot.end, duration_minutes=90
        )
        metadata = Metadata(id=name, uid=name, created_at=world.clock.now())
        await world.put(Reservation(metadata=metadata, spec=spec, status=status))
    await world.set_worker("default-002", WorkerPhase.FAILED)
    asks = await world.ask(30, 100)
    await world.own()
    await world.settle()
    assert (await world.reservation("rsv-0250")).seat(1).worker == "default-001", "it gets the one place that is left"
    assert await world.phase(asks) == "Waitlisted"


@pytest.mark.parametrize("kind", ["reservation", "series"])
async def test_a_request_at_which_deciding_fails_is_refused_and_ends_nobodys_term(
    pool: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    find = decide.find_in_turn

    def fail(state: Any, draft: Any, context: Any) -> Any:
        found = find(state, draft, context)
        if draft.metadata.labels.get("fault"):
            state.calendar.book_all(found[0].bookings())
            raise OverflowError("too far")
        return found

    monkeypatch.setattr(decide, "find_in_turn", fail)
    monkeypatch.setattr(dates, "find_in_turn", fail)
    ask = pool.ask if kind == "reservation" else pool.ask_series
    before = await pool.ask(seats=1)
    poison = await ask(labels={"fault": "yes"}, seats=2)
    after = await pool.ask(seats=3)
    await pool.settle()
    assert [await pool.phase(name) for name in (before, after)] == ["Scheduled", "Scheduled"]
    refusal = (await pool.of(poison)).status.problem
    assert (refusal.type.rpartition("/")[2], refusal.status) == ("undecidable", 500)
    assert (await pool.of(poison)).id in refusal.detail
    assert not pool.owners["default"][1].done()
    assert not await pool.faults()


async def test_a_series_at_which_deciding_fails_half_way_is_left_as_it_is(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dates, "confirm", lambda *_: {}["fault"])
    name = await pool.ask_series()
    with pytest.raises(KeyError):
        await pool.settle()
    assert (await pool.of(name)).phase == "Accepted"
