"""Saving worker-hours on request: asked of the scheduler of the pool, answered from the request."""

import asyncio
from typing import Any

from lablet_common.intents import Optimisation, OptimiseRequested
from lablet_common.requests import Inbox, decide_in
from lablet_common.store import Transaction

PATH = "/api/v1/pools/default:optimise"
FOUND = Optimisation(
    pool="default", moves=(), moved=0, worker_hours_before=4, worker_hours_after=4, worker_hours_saved=0
)


async def answer_as_the_scheduler_would(world: Any) -> OptimiseRequested:
    inbox = Inbox(world.store, "scheduler", "default")
    while not (pending := await inbox.pending()):
        await asyncio.sleep(0)
    txn = Transaction()
    decide_in(txn, pending[0], at=world.now, by="/lablet/scheduler", reason="Optimised", answer=FOUND.to_dict())
    await txn.commit(world.store)
    return OptimiseRequested.model_validate(pending[0].request.spec.data)


async def test_the_answer_comes_back_and_the_scheduler_gets_the_limits(world: Any) -> None:
    deciding = asyncio.create_task(answer_as_the_scheduler_would(world))
    answer = await world.client("operator@default").post(
        PATH, json={"dryRun": True, "maxMoves": 3, "budgetSeconds": 0.5}
    )
    assert (answer.status_code, answer.json()) == (200, FOUND.to_dict())
    asked = await deciding
    assert (asked.dry_run, asked.max_moves, asked.budget_seconds) == (True, 3, 0.5)


async def test_without_a_body_the_plan_is_to_be_carried_out(world: Any) -> None:
    deciding = asyncio.create_task(answer_as_the_scheduler_would(world))
    assert (await world.client().post(PATH)).status_code == 200
    assert (await deciding).dry_run is False


async def test_what_makes_no_sense_is_refused_at_the_door(world: Any) -> None:
    client = world.client()
    assert (await client.post("/api/v1/pools/nowhere:optimise")).status_code == 404
    answer = await client.post(PATH, json={"budgetSeconds": 3600})
    assert [error["path"] for error in answer.json()["errors"]] == ["budgetSeconds"]
    assert await world.inbox() == []


async def test_who_does_not_wait_finds_the_answer_in_the_request(world: Any) -> None:
    answer = await world.client().post(PATH, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    (waiting,) = await world.inbox()
    assert waiting.spec.type == "io.lablet.pool.optimise.requested.v1"
    assert waiting.spec.service == "scheduler"
