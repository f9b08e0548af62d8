"""What-if: the same answers as the real thing, and nothing left behind."""

import json
from typing import Any

import pytest

from lablet_common.intents import INTENTS, ReservationRequested, SimulateRequested
from lablet_common.requests import accept, build_request, digest_of, request_key
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.worker import Capacity, TemplateSpec
from lablet_scheduler.decide import Context
from lablet_scheduler.simulate import simulation


def wish(world: Any, start: float | None = 60, end: float = 120, seats: int = 1, **more: Any) -> ReservationRequested:
    return ReservationRequested(
        id="rsv-any",
        owner="anna",
        definition=more.pop("definition", "ospf@1.0.0"),
        pools=("default",),
        seats=seats,
        start=None if start is None else world.when(start),
        end=None if start is None else world.when(end),
        duration_minutes=int(end - (start or 0)),
        asap=start is None,
        **more,
    )


async def simulate(world: Any, *wishes: ReservationRequested, **fleet: Any) -> dict[str, Any]:
    body = SimulateRequested(wishes=wishes, **fleet)
    request = build_request(
        INTENTS["io.lablet.reservation.simulate.requested.v1"],
        "simulation-1",
        body,
        key=request_key("default", "anna", "simulate", body.to_json().decode()),
        tenant="default",
        principal="anna",
        shard="default",
        digest=digest_of(body.to_dict()),
        at=world.clock.now(),
    )
    await accept(world.store, request)
    await world.settle()
    decided = await world.request(request.id)
    assert decided.status.answer is not None, decided.status
    return decided.status.answer


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [found["outcome"] for found in answer["reservations"]]


async def test_each_wish_sees_those_before_it_and_nothing_is_booked(pool: Any) -> None:
    answer = await simulate(pool, wish(pool, seats=4), wish(pool), wish(pool, seats=50), cost_per_hour_usd=3.0)
    assert outcomes(answer) == ["placed", "waitlisted", "rejected"]
    placed, waits, _ = answer["reservations"]
    assert placed["addedWorkerHours"] == answer["workerHoursAdded"] == 2.0
    assert answer["costAddedUsd"] == 6.0
    assert waits["explanation"]["earliest"]["start"] == "2027-03-01T09:00:00Z"
    assert await pool.all(RESERVATION) == []
    assert list(pool.owners["default"][0].state.calendar.bookings()) == []


async def test_a_what_if_answers_as_the_real_thing_then_does(pool: Any) -> None:
    await pool.ask(seats=3)
    await pool.settle()
    told = await simulate(pool, wish(pool, seats=1), wish(pool, None, 60, seats=2))
    real = [await pool.ask(seats=1), await pool.ask(None, 60, seats=2)]
    await pool.settle()
    slots = [(await pool.reservation(name)).slot.to_dict() for name in real]
    assert [found["slot"] for found in told["reservations"]] == slots


async def test_more_workers_or_larger_ones_take_what_did_not_fit(pool: Any) -> None:
    await pool.ask(seats=4)
    await pool.settle()
    assert outcomes(await simulate(pool, wish(pool))) == ["waitlisted"]
    assert outcomes(await simulate(pool, wish(pool), workers=1)) == ["placed"]
    large = TemplateSpec(
        instance_type="x", capacity=Capacity(cpu_cores=64, memory_gb=256, storage_gb=999), license="ENTERPRISE",
        max_nodes=100, boot_minutes=0,
    )  # fmt: skip
    answer = await simulate(pool, wish(pool), shape=large)
    assert (outcomes(answer), answer["displaced"], answer["workers"]) == (["placed"], 0, 2)
    assert answer["workerHoursAfter"] < answer["workerHoursBefore"], "one large worker holds all"


async def test_fewer_workers_displace_what_no_longer_fits(pool: Any) -> None:
    for _ in range(4):
        await pool.ask()
    await pool.settle()
    answer = await simulate(pool, wish(pool), workers=-1)
    assert (answer["workers"], answer["displaced"], outcomes(answer)) == (1, 2, ["waitlisted"])


async def test_an_unknown_definition_is_rejected_in_words(pool: Any) -> None:
    answer = await simulate(pool, wish(pool, definition="none@1.0.0"))
    assert outcomes(answer) == ["rejected"]
    assert "none@1.0.0" in answer["reservations"][0]["explanation"]["summary"]


async def test_the_longest_answer_fits_into_a_request(pool: Any) -> None:
    """400 dates that all wait have the longest words."""
    wishes = [wish(pool, seats=4), *(wish(pool, seats=4) for _ in range(399))]
    answer = await simulate(pool, *wishes)
    assert outcomes(answer) == ["placed"] + ["waitlisted"] * 399
    assert len(json.dumps(answer)) < 192 * 1024
    assert all(found["explanation"]["summary"] for found in answer["reservations"])


async def test_a_long_rehearsal_leaves_the_event_loop_its_turns_and_adds_up(pool: Any) -> None:
    request = await pool.of(await pool.ask())
    await pool.settle()
    wishes = tuple(wish(pool, 120 * number, 120 * number + 60, seats=number % 2 + 1) for number in range(1, 41))
    state, context = pool.owners["default"][0].state, Context(now=pool.when(0), by="/lablet/scheduler")
    steps = simulation(state, request, SimulateRequested(wishes=wishes), context)
    turns = [next(steps) for _ in range(5)]
    with pytest.raises(StopIteration) as ended:
        next(steps)
    assert turns == [None] * 5
    answer = ended.value.value
    assert sum(one.added_worker_hours for one in answer.reservations) == answer.worker_hours_added
    assert answer.worker_hours_after - answer.worker_hours_before == answer.worker_hours_added == 40
