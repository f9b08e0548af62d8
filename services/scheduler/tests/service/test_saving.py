"""Worker-hours saved on request: looked for beside the owner's work, carried out only as long as it holds."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from lablet_common.intents import Optimisation, OptimiseRequested
from lablet_common.resources import Reservation
from lablet_common.resources.kinds import RESERVATION
from lablet_common.store.changes import decode, encode
from lablet_scheduler import engine, saving
from lablet_scheduler.decide import Context
from lablet_scheduler.moves import moved
from lablet_scheduler.saving import in_order


@pytest.fixture
async def wasteful(world: Any) -> Any:
    """Two workers that boot for 20 minutes, each with a half-full hour at the same time: one would do."""
    await world.pool(workers=2, boot=20, recourse_moves=0)
    await world.definition()
    await world.own()
    world.names = [await world.ask(60, 120, seats=2)]
    await world.settle()
    world.names += [await world.ask(60, 120), await world.ask(60, 120)]
    await world.settle()
    await world.tell("cancel", world.names[1])
    await world.ask(120, 180, seats=1)
    await world.settle()
    first = await world.reservation(world.names[0])
    assert len({seat.worker for seat in first.status.placement}) == 1
    return world


@pytest.fixture
async def scattered(world: Any) -> Any:
    """As `wasteful`, made by cancelling: a seat of two on each of the workers is left."""
    await world.pool(workers=2, boot=20, recourse_moves=0)
    await world.definition()
    await world.own()
    world.names = [await world.ask(60, 120) for _ in range(4)]
    await world.settle()
    workers = {name: (await world.reservation(name)).status.placement[0].worker for name in world.names}
    assert sorted(workers.values()) == ["default-001", "default-001", "default-002", "default-002"]
    world.left = [
        next(name for name in world.names if workers[name] == worker) for worker in sorted(set(workers.values()))
    ]
    for name in world.names:
        if name not in world.left:
            await world.tell("cancel", name)
    await world.settle()
    return world


async def ask(world: Any, **body: Any) -> str:
    return await world.tell_pool(OptimiseRequested(**body))


async def answered(world: Any, request: str) -> Any:
    """The request once it is decided: the search runs in a thread, which `settle` does not see."""
    async with asyncio.timeout(20):
        while (found := await world.request(request)).phase == "Accepted":
            await world.settle_waiting()
    await world.settle()
    return found


def told(request: Any) -> Optimisation:
    return Optimisation.model_validate(request.status.answer)


async def workers_of(world: Any) -> set[str]:
    found = [await world.reservation(name) for name in world.left]
    return {seat.worker for one in found for seat in one.status.placement}


async def test_a_dry_run_tells_the_moves_and_the_saving_and_moves_nothing(scattered: Any) -> None:
    answer = told(await answered(scattered, await ask(scattered, dry_run=True, cost_per_hour_usd=3)))
    assert (answer.moved, answer.committed, answer.proven) == (1, False, True)
    assert answer.worker_hours_before - answer.worker_hours_after == pytest.approx(answer.worker_hours_saved, abs=0.02)
    assert answer.worker_hours_saved == pytest.approx(80 / 60, abs=0.02), "an hour, and twenty minutes of booting"
    assert answer.cost_saved_usd == pytest.approx(4, abs=0.05)
    assert len(await workers_of(scattered)) == 2


async def test_the_plan_is_carried_out_and_each_move_is_told(scattered: Any) -> None:
    answer = told(await answered(scattered, await ask(scattered)))
    assert (answer.moved, answer.committed) == (1, True)
    (worker,) = await workers_of(scattered)
    (move,) = answer.moves
    assert (move.to, move.reservation in scattered.left) == (worker, True)
    moved = await scattered.reservation(move.reservation)
    assert await scattered.facts(moved.id) == ["scheduled", "moved"]
    assert (moved.phase, moved.status.reason) == ("Scheduled", "Optimised")
    assert move.frm in moved.status.explanation.summary
    assert not await scattered.faults()
    owner, _ = scattered.owners["default"]
    assert set(owner.state.calendar.bookings()) == scattered.rebuilt(owner)
    again = told(await answered(scattered, await ask(scattered)))
    assert (again.moved, again.committed, again.worker_hours_saved) == (0, False, 0)


async def test_no_more_seats_move_than_allowed(wasteful: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = engine.optimise

    def look(*args: Any, **options: Any) -> Any:
        seen.append(options["max_moves"])
        return real(*args, **options)

    monkeypatch.setattr(engine, "optimise", look)
    answer = told(await answered(wasteful, await ask(wasteful, max_moves=1, budget_seconds=0.3)))
    assert seen == [1]
    assert answer.moved <= 1


async def test_a_seat_whose_lab_is_made_meanwhile_stays(scattered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab comes up between the look and the write: the transaction is refused, and the next plan leaves it alone."""
    made: list[str] = []

    async def start(_: Any, writes: Any) -> bool:
        names = [
            write.key.removeprefix(RESERVATION.prefix) for write in writes if write.key.startswith(RESERVATION.prefix)
        ]
        if names:
            made.extend(names)
            await scattered.start_lab(names[0])
        return bool(names)

    scattered.seen.before_txn.append(start)
    answer = told(await answered(scattered, await ask(scattered)))
    (began,) = made
    lab = await scattered.reservation(began)
    assert [await scattered.facts(began)] == [["scheduled"]], "it has not been moved"
    assert [move.reservation for move in answer.moves] == [name for name in scattered.left if name != began]
    assert await workers_of(scattered) == {lab.status.placement[0].worker}


async def test_the_owner_decides_other_requests_while_a_plan_is_looked_for(
    scattered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a plan that was overtaken is thrown away."""
    go_on, looks = threading.Event(), []
    real = engine.optimise

    def look(calendar: Any, *args: Any, **options: Any) -> Any:
        looks.append(len(list(calendar.bookings())))
        if len(looks) == 1:
            assert go_on.wait(20)
        return real(calendar, *args, **options)

    monkeypatch.setattr(engine, "optimise", look)
    request = await ask(scattered)
    while not looks:
        await scattered.settle_waiting()
    name = await scattered.ask(60, 120, seats=2)
    await scattered.settle_waiting()
    assert await scattered.phase(name) == "Scheduled"
    go_on.set()
    answer = told(await answered(scattered, request))
    assert looks == [2, 4], "the second look saw what was booked during the first"
    assert answer.moved == 0
    assert not await scattered.faults()


async def test_a_plan_made_before_the_fleet_changed_is_thrown_away(
    scattered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, looks = threading.Event(), []
    real = engine.optimise

    def look(*args: Any, **options: Any) -> Any:
        looks.append(1)
        if len(looks) == 1:
            assert go_on.wait(20)
        return real(*args, **options)

    (planned,) = told(await answered(scattered, await ask(scattered, dry_run=True))).moves
    monkeypatch.setattr(engine, "optimise", look)
    request = await ask(scattered)
    while not looks:
        await scattered.settle_waiting()
    await scattered.set_worker(planned.to, unschedulable={"reason": "dust", "by": "olaf"})
    go_on.set()
    answer = told(await answered(scattered, request))
    assert (len(looks), answer.moves) == (2, ())
    assert len(await workers_of(scattered)) == 2


async def test_it_gives_up_when_others_are_always_faster(scattered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "in_order", lambda *_: None)
    request = await answered(scattered, await ask(scattered, budget_seconds=0.2))
    assert request.phase == "Refused"
    assert request.status.problem.type.endswith("overtaken")


async def test_a_new_term_looks_anew(scattered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is lost while its plan is looked for; its thread ends, and the next owner decides the request."""
    looks: list[Any] = []
    real = engine.optimise

    def look(*args: Any, **options: Any) -> Any:
        looks.append(options["expired"])
        while len(looks) == 1 and not options["expired"]():
            pass
        return real(*args, **options)

    monkeypatch.setattr(engine, "optimise", look)
    request = await ask(scattered, budget_seconds=20)
    while not looks:
        await scattered.settle_waiting()
    _, task = scattered.owners["default"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await scattered.own()
    assert told(await answered(scattered, request)).committed
    assert looks[0](), "the search of the lost owner was told to end"


def test_moves_that_can_only_change_places_stand_in_one_block() -> None:
    calendar = engine.Calendar(
        [engine.PoolPolicy("default", grace=0)], [engine.WorkerView(f"w-{n}", "default", 8, 64, 100) for n in (1, 2, 3)]
    )
    full = engine.Demand(cpu_cores=8)
    places = {"a": "w-1", "b": "w-2", "c": "w-3"}
    bookings = {name: engine.Booking(name, 1, worker, 6000, 6060, full) for name, worker in places.items()}
    calendar.book_all([bookings["a"], bookings["b"]])
    said = engine.Explanation("moved", considered=3, removed={})

    def moved(name: str, to: str) -> engine.Move:
        from dataclasses import replace

        return engine.Move(bookings[name], replace(bookings[name], worker=to), said)

    swap = [moved("a", "w-2"), moved("b", "w-1")]
    assert in_order(calendar, swap) == [swap]
    chain = [moved("a", "w-2"), moved("b", "w-3")]
    assert in_order(calendar, chain) == [[chain[1]], [chain[0]]], "who makes room goes first"
    assert in_order(calendar, [moved("c", "w-1")]) is None, "it is not there"
    calendar.book(bookings["c"])
    assert in_order(calendar, chain) is None, "somebody is in the way"


async def test_every_move_compares_that_no_lab_has_been_made(scattered: Any) -> None:
    compared: list[Any] = []

    async def look(compares: Any, writes: Any) -> bool:
        if any(write.key.startswith(RESERVATION.prefix) for write in writes):
            compared.extend(compare for compare in compares if compare.key.startswith("/instances/"))
        return False

    scattered.seen.before_txn.append(look)
    answer = told(await answered(scattered, await ask(scattered)))
    kv = await scattered.store.get(RESERVATION.key(answer.moves[0].reservation))
    (seat,) = decode(RESERVATION, kv).status.placement
    assert [(compare.key, compare.operand) for compare in compared] == [(f"/instances/{seat.instance}", 0)]


async def test_searches_that_wait_keep_nobody_behind_them_waiting(
    scattered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, found = threading.Event(), engine.optimise

    def look(*args: Any, **options: Any) -> engine.Replan:
        go_on.wait(20)
        return found(*args, **options)

    monkeypatch.setattr(engine, "optimise", look)
    scattered.settings = scattered.settings.model_copy(update={"scheduler_batch_size": 2})
    await scattered.own()
    searches = [await ask(scattered, dry_run=True) for _ in range(5)]
    names = [await scattered.ask(start, start + 60) for start in (300, 360, 420)]
    try:
        async with asyncio.timeout(5):
            while await scattered.store.get(RESERVATION.key(names[-1])) is None:
                await scattered.settle_waiting()
    finally:
        go_on.set()
    for search in searches:
        assert (await answered(scattered, search)).phase == "Decided"


async def test_a_class_that_is_moved_again_and_again_does_not_outgrow_what_can_be_stored(scattered: Any) -> None:
    one = await scattered.reservation(scattered.left[0])
    (seat,) = one.status.placement
    placement = tuple(seat.model_copy(update={"seat": number, "instance": f"ins-{number}"}) for number in range(1, 101))
    large = one.model_copy(update={"status": one.status.model_copy(update={"placement": placement})})
    (booking,) = scattered.owners["default"][0].state.calendar.of(one.id)
    why = engine.Explanation("moved from default-001 to default-002, so that fewer workers have to be on", 2, {})
    steps = [engine.Move(replace(booking, seat=number), replace(booking, seat=number), why) for number in range(1, 101)]
    context = Context(now=scattered.when(0), by="/lablet/scheduler")
    for _ in range(60):
        resource = moved(large, steps, context, reason="Optimised").resource
        assert isinstance(resource, Reservation)
        large = resource
    assert large.status.message.endswith("and 92 more seats")
    assert len(encode(large)) < 96 * 1024
