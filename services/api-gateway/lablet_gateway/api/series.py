"""Series: a term of classes as one recurrence rule. See every date's fit, book, change and cancel by date."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from lablet_common.resources.kinds import SERIES
from lablet_common.resources.series import Series
from lablet_common.store.repository import ResourcePage
from lablet_common.terms import SeriesCancel, SeriesChange, SeriesCreate
from lablet_gateway import reads, rehearsal, terms
from lablet_gateway.answers import (
    IdempotencyKey,
    IfMatch,
    Prefer,
    accepting,
    model_response,
    outcome_response,
    refusals,
    resource_response,
)
from lablet_gateway.asking import Ask
from lablet_gateway.caller import WithCaller
from lablet_gateway.parts import WithParts
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/series", tags=["series"])
Scope = Annotated[
    Literal["this", "following", "all"], Query(description="`this` date, this and the `following`, or `all`")
]


@router.post("", status_code=202, response_model=None, responses=accepting(Series, done=201))
async def book(
    body: SeriesCreate,
    parts: WithParts,
    caller: WithCaller,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only tell how each date would fit")] = False,
) -> Response:
    """Asks for every date of a rule. With `mode` `all` (the default) all dates are placed or none; with `fits` those that
    fit, and the rest is reported. 202 with the address of the outcome, or with `Prefer: wait=N` 201 with the series, or
    the refusal that names the dates. With `dryRun` 200 and how each date would fit; nothing is booked."""
    if dry_run:
        return model_response(await rehearsal.rehearse(parts, caller, Ask("POST /series?dryRun", key), body))
    request = await terms.SeriesIntake(parts, caller, Ask("POST /series", key)).book(body)
    return await outcome_response(parts, request, prefer, done=201)


@router.get("", response_model=ListOf[Series], responses=refusals(410))
async def list_series(parts: WithParts, caller: WithCaller, query: WithListQuery) -> Response:
    """Series, by id. Their reservations: `/reservations?fieldSelector=spec.series=<id>`."""
    found: ResourcePage[Series] = await reads.page(parts, SERIES, query, caller.sees)
    return reads.list_response(found)


@router.get("/{series_id}", response_model=Series, responses=refusals(404))
async def get_series(
    series_id: str, parts: WithParts, caller: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """The series with its dates; Pending, from its request, while nobody has begun with it."""
    return resource_response(await terms.visible(parts, caller, series_id, consistency))


@router.patch("/{series_id}", status_code=202, response_model=None, responses=accepting(Series, 412, 428))
async def change_series(
    series_id: str,
    body: SeriesChange,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Another slot, length, number of seats, definition or roster for this date, this and the following, or all. In a
    series of `all` or none nothing is changed where a date would not fit; else the dates that do not fit stay as they
    are, and the outcome names them. Dates that have begun stay, too."""
    ask = Ask(f"PATCH /series/{series_id}", key, if_match)
    request = await terms.SeriesIntake(parts, caller, ask).alter(series_id, body, must_match=True)
    return await outcome_response(parts, request, prefer)


@router.delete("/{series_id}", status_code=202, response_model=None, responses=accepting(Series, 412))
async def cancel_series(
    series_id: str,
    parts: WithParts,
    caller: WithCaller,
    scope: Scope = "all",
    date: Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}$", description="Which date; not for `all`")] = None,
    reason: Annotated[str, Query(max_length=256, description="Kept in the history and the audit")] = "",
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Gives dates back. A date that has begun runs to its end, unless it is named with `scope=this`."""
    ask = Ask(f"DELETE /series/{series_id}", key, if_match)
    body = SeriesCancel(scope=scope, date=date, reason=reason)
    request = await terms.SeriesIntake(parts, caller, ask).cancel(series_id, body)
    return await outcome_response(parts, request, prefer)
