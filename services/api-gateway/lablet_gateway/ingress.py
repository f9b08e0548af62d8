"""Events from outside become requests, by the same doors as the routes: one event, one intent, one outcome.

The idempotency key is the event's source and id, so that a repeated event is one request. What an event may ask needs
the same right as the route that asks for the same. A problem with one event is told for that event only.
"""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from lablet_common.events import CloudEvent, InvalidEvent, data_of, kind_and_id
from lablet_common.events.derive import MAX_OPTIONAL_LENGTH
from lablet_common.intents import (
    INTENTS,
    AssessmentCompleted,
    DefinitionPublish,
    Intent,
    OptimiseRequested,
    PoolApply,
    PoolOptimise,
    ReservationChange,
    ReservationCreate,
    SimulateRequested,
    SimulationCreate,
    TemplateApply,
    WorkerRegister,
)
from lablet_common.requests import Accepted
from lablet_common.resources.kinds import DEFINITION, POOL, RESERVATION, SERIES, TEMPLATE
from lablet_common.resources.model import Model
from lablet_common.resources.request import Problem, Request
from lablet_common.terms import SeriesCancel, SeriesChange, SeriesCreate
from lablet_gateway import optimisation, problems, simulation
from lablet_gateway.answers import path_of
from lablet_gateway.asking import Ask
from lablet_gateway.caller import Caller
from lablet_gateway.envelopes import Inbound
from lablet_gateway.faults import invalid_input, problem_body, refusal_of
from lablet_gateway.fleet import FleetIntake
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts
from lablet_gateway.problems import Refused
from lablet_gateway.reserving import Reserving
from lablet_gateway.rights import PREFIX
from lablet_gateway.terms import SeriesIntake
from lablet_gateway.uploads import Uploads

_ROUTE = "POST /events"
_RESERVE = "io.lablet.reservation.requested.v1"
_DEPENDENCY_DOWN = 500
M = TypeVar("M", bound=Model)


class EventResult(Model):
    """What became of one event."""

    id: str | None = None
    source: str | None = None
    result: Literal["accepted", "refused", "ignored"]
    request: str | None = None
    """Address of the request, under which the outcome will be found."""
    resource: str | None = None
    """`<kind>/<id>`."""
    problem: dict[str, Any] | None = None


async def take(parts: Parts, caller: Caller, inbound: Inbound) -> EventResult:
    """Accepts the event or says why not. Raises what is no fault of the event's: a dependency that is away."""
    named: dict[str, Any] = {"id": inbound.id, "source": inbound.source}
    if inbound.event is None:
        refused = inbound.refused or problems.invalid("body", "not an event")
        return EventResult(result="refused", problem=problem_body(refused.problem), **named)
    try:
        request = await _accept(parts, caller, inbound.event)
    except Exception as error:
        known = refusal_of(error)
        if known is None or known.problem.status >= _DEPENDENCY_DOWN:
            raise
        return EventResult(result="refused", problem=problem_body(known.problem), **named)
    return EventResult(result="ignored", **named) if request is None else _accepted(inbound, request)


async def take_all(parts: Parts, caller: Caller, batch: Sequence[Inbound]) -> list[EventResult]:
    """A batch, in its order: new reservations that follow each other are accepted together, everything else (which may
    be about the same thing) one after the other."""
    results: list[EventResult] = []
    for together, run in itertools.groupby(batch, _is_new_reservation):
        if together:
            results += await _take_new(parts, caller, list(run))
        else:
            results += [await take(parts, caller, inbound) for inbound in run]
    return results


async def _take_new(parts: Parts, caller: Caller, run: Sequence[Inbound]) -> list[EventResult]:
    """What needs no look at the store before it is accepted goes in one piece; the rest, and whatever is to be said about
    an acceptance, as if each had come alone."""
    plain = {at: request for at, one in enumerate(run) if (request := _plain(parts, caller, one)) is not None}
    outcomes = zip(plain, await parts.acceptance.ask_all(tuple(plain.values())), strict=True)
    done = {at: _accepted(run[at], found.request) for at, found in outcomes if isinstance(found, Accepted)}
    rest = [at for at in range(len(run)) if at not in done]
    done |= zip(rest, await asyncio.gather(*(take(parts, caller, run[at]) for at in rest)), strict=True)
    return [done[at] for at in range(len(run))]


def _plain(parts: Parts, caller: Caller, inbound: Inbound) -> Request | None:
    assert inbound.event is not None
    try:
        ask, data = _envelope(caller, inbound.event)
        return Reserving(parts, caller.asking(_RESERVE), ask).plain(_body(ReservationCreate, data))
    except Exception:  # noqa: BLE001 - `take` meets it again and tells it; the others of the batch are not to pay for it
        return None


def _accepted(inbound: Inbound, request: Request) -> EventResult:
    return EventResult(
        id=inbound.id,
        source=inbound.source,
        result="accepted",
        request=f"{PREFIX}/requests/{request.id}",
        resource=request.status.resource or request.spec.subject,
    )


def _is_new_reservation(inbound: Inbound) -> bool:
    return inbound.event is not None and inbound.event.get_type() == _RESERVE


async def _accept(parts: Parts, caller: Caller, event: CloudEvent) -> Request | None:
    intent = INTENTS.get(event.get_type())
    if intent is None:
        if parts.settings.events_accept_unknown:
            return None
        near = problems.nearest(event.get_type(), INTENTS)
        raise problems.invalid("type", f"{event.get_type()} is nothing that can be asked", near)
    ask, data = _envelope(caller, event)
    if intent.body is SimulateRequested:
        return await simulation.ask(parts, caller.asking(intent.type), ask, _body(SimulationCreate, data))
    if intent.body is OptimiseRequested:
        body = _body(PoolOptimise, data)
        return await optimisation.ask(parts, caller.asking(intent.type), ask, _target(intent, event), body)
    if intent.kind is SERIES:
        return await _ask_series(SeriesIntake(parts, caller.asking(intent.type), ask), intent, event, data)
    return await _ask((parts, caller.asking(intent.type), ask), intent, event, data)


def _envelope(caller: Caller, event: CloudEvent) -> tuple[Ask, dict[str, Any]]:
    """Under which key it asks, and its data. Raises 403 for another tenant's, 422."""
    tenant = event.get_extension("tenant")
    if tenant not in (None, caller.tenant):
        raise problems.FORBIDDEN(f"the event is for tenant {tenant}; the token is of {caller.tenant}")
    correlation = event.get_extension("correlationid")
    if correlation is not None and len(str(correlation)) > MAX_OPTIONAL_LENGTH:
        raise problems.invalid("correlationid", f"it is longer than {MAX_OPTIONAL_LENGTH} characters")
    key = f"{event.get_source().replace(' ', '%20')} {event.get_id()}"
    try:
        return Ask(_ROUTE, key, correlation=str(correlation) if correlation else None), data_of(event)
    except InvalidEvent as error:
        raise problems.invalid("data", str(error)) from error


async def _ask_series(intake: SeriesIntake, intent: Intent, event: CloudEvent, data: dict[str, Any]) -> Request:
    if intent.verb == "requested":
        return await intake.book(_body(SeriesCreate, data))
    name = _target(intent, event)
    if intent.body is SeriesChange:
        return await intake.alter(name, _body(SeriesChange, data))
    return await intake.cancel(name, _body(SeriesCancel, data))


async def _ask(who: tuple[Parts, Caller, Ask], intent: Intent, event: CloudEvent, data: dict[str, Any]) -> Request:
    if intent.kind is RESERVATION and intent.verb == "requested":
        return await Reserving(*who).reserve(_body(ReservationCreate, data))
    if intent.body is DefinitionPublish:
        return await Uploads(*who).publish_staged(_body(DefinitionPublish, data))
    name = _target(intent, event)
    if intent.body is PoolApply:
        return await FleetIntake(*who).apply(POOL, name, _body(PoolApply, data))
    if intent.body is TemplateApply:
        return await FleetIntake(*who).apply(TEMPLATE, name, _body(TemplateApply, data))
    if intent.body is ReservationChange:
        return await Intake(*who).change(name, _body(ReservationChange, data))
    if intent.body is WorkerRegister:
        return await FleetIntake(*who).register(name, _body(WorkerRegister, data))
    if intent.kind is DEFINITION and "@" not in name:
        raise problems.invalid("subject", f"{name} names no version", "write definition/name@version")
    if issubclass(intent.body, AssessmentCompleted):
        return await Intake(*who).assessed(intent, name, _body(intent.body, data))
    return await Intake(*who).act(intent.kind, intent.verb, name, _body(intent.body, data))


def _target(intent: Intent, event: CloudEvent) -> str:
    kind, name = kind_and_id(event)
    if kind != intent.kind.name or not name or path_of(f"{kind}/{name}") is None:
        raise problems.invalid("subject", f"{event.get_subject()!r} names no {intent.kind.name}",
                               f"write {intent.kind.name}/<id>")  # fmt: skip
    return name


def _body(model: type[M], data: dict[str, Any]) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid_input(error.errors(), "data") from error


def refusal_of_result(result: EventResult) -> Refused | None:
    """A single event's refusal as an answer of its own."""
    if result.problem is None:
        return None
    known = {"type", "title", "status", "detail", "errors"}
    problem = Problem.model_validate({name: v for name, v in result.problem.items() if name in known})
    more = {name: value for name, value in result.problem.items() if name not in known}
    return Refused(problem.model_copy(update={"extensions": more}))
