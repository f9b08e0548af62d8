"""The dry run of a series: every date with its fit, in the pools of its list, and what the whole would cost.

Each pool is asked for the dates that the ones before it could not take, as it would be in earnest. Not rehearsed: quotas.
"""

from dataclasses import replace
from datetime import timedelta

from lablet_common.intents import ReservationRequested, SimulateRequested, Simulation
from lablet_common.recurrence import dates_of
from lablet_common.requests import digest_of
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import POOL
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.worker import WorkerPool
from lablet_common.terms import RehearsedDate, SeriesCreate, SeriesRehearsal
from lablet_gateway import answers, problems, reads, simulation
from lablet_gateway.asking import Ask
from lablet_gateway.caller import Caller
from lablet_gateway.optimisation import cost_of
from lablet_gateway.parts import Parts
from lablet_gateway.terms import SeriesIntake, pools_of


async def rehearse(parts: Parts, caller: Caller, asked: Ask, body: SeriesCreate) -> SeriesRehearsal:
    """Raises 422 as the real thing would, and 503 when an owner does not answer in time."""
    definition = await SeriesIntake(parts, caller, replace(asked, key=None)).check(body)
    length = timedelta(minutes=body.minutes)
    found = {
        start: RehearsedDate(date=day, start=start, end=start + length, fits=False)
        for day, start in dates_of(body.rule, body.timezone, body.start, body.except_dates)
    }
    hours = cost = 0.0
    for number, pool in enumerate(pools_of(body)):
        left = [one for one in found.values() if not one.fits]
        if not left:
            break
        ask = replace(asked, route=f"{asked.route} {number}")
        answer = await _simulated(parts, caller, ask, body, definition, pool, left)
        for one, said in zip(left, answer.reservations, strict=True):
            fits = said.outcome == "placed"
            told = {"fits": fits, "pool": pool if fits else None, "reason": said.explanation.summary}
            found[one.start] = one.model_copy(update=told)
        hours += answer.worker_hours_added
        cost += answer.cost_added_usd
    dates = tuple(found.values())
    fitting = sum(one.fits for one in dates)
    granted = fitting == len(dates) or (body.mode == "fits" and fitting > 0)
    return SeriesRehearsal(
        dates=dates, granted=granted, worker_hours_added=round(hours, 2), cost_added_usd=round(cost, 2)
    )


async def _simulated(
    parts: Parts,
    caller: Caller,
    asked: Ask,
    body: SeriesCreate,
    definition: Definition,
    pool: str,
    dates: list[RehearsedDate],
) -> Simulation:
    wishes = tuple(
        ReservationRequested(
            id=f"what-if-{number}",
            owner=caller.name,
            definition=definition.id,
            pools=(pool,),
            seats=body.seats,
            start=one.start,
            end=one.end,
            duration_minutes=body.minutes,
            priority=body.priority,
            worker_selector=body.worker_selector,
        )
        for number, one in enumerate(dates, 1)
    )
    known = await reads.get(parts, POOL, pool)
    cost = await cost_of(parts, known) if isinstance(known, WorkerPool) else 0.0
    data = SimulateRequested(wishes=wishes, cost_per_hour_usd=cost)
    digest = digest_of({"pool": pool, "series": body.to_dict()})
    request = await simulation.put(parts, caller, asked, pool, data, digest)
    if not request.is_final:
        seconds = min(simulation.WAIT_SECONDS, parts.settings.gateway_max_wait_seconds)
        request = await parts.decisions.wait(request, seconds)
    return _answer(request, pool)


def _answer(request: Request, pool: str) -> Simulation:
    if request.status.phase is RequestPhase.REFUSED:
        raise answers.refusal_in(request)
    if request.status.answer is None:
        words = f"nobody has answered for pool {pool} in time"
        raise problems.unavailable("scheduler", words)
    return Simulation.model_validate(request.status.answer)
