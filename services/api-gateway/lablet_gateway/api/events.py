"""Events in (CloudEvents over HTTP), events out (server-sent), and the story of one resource."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import KINDS
from lablet_common.resources.model import Model
from lablet_common.store.selectors import LabelSelector, SelectorError
from lablet_gateway import envelopes, problems, story
from lablet_gateway.answers import refusals
from lablet_gateway.caller import WithCaller
from lablet_gateway.ingress import EventResult, refusal_of_result, take_all
from lablet_gateway.listening import EventStreamResponse
from lablet_gateway.parts import WithParts
from lablet_gateway.rights import FLEET_TENANT, PREFIX, PUBLIC_TENANT
from lablet_gateway.sight import FLEET, CallersSight
from lablet_gateway.streams import Entry, Filter, entry_of
from lablet_gateway.underway import aside

router = APIRouter(prefix=f"{PREFIX}/events", tags=["events"])
_TENANT_OF = {"definition": PUBLIC_TENANT}
_STORY_LIMIT = 10_000
_PATIENCE_SECONDS = 2.0
"""How long a listener waits for a replica to see the log that it has not followed while nobody listened."""
_TEXT = {"type": "string", "minLength": 1}
_EVENT = {
    "type": "object",
    "required": ["id", "source", "type", "specversion"],
    "properties": {"id": _TEXT, "source": _TEXT, "type": _TEXT, "specversion": {"const": "1.0"}, "data": {}},
    "additionalProperties": True,
    "examples": [
        {
            "specversion": "1.0",
            "id": "course-7-1",
            "source": "/lms",
            "type": "io.lablet.reservation.requested.v1",
            "correlationid": "course-7",
            "data": {"definition": "ospf-basics", "asap": True, "durationMinutes": 60},
        }
    ],
}
_FRAMES = """: still here
id: 1772348400000000-16

id: 1772348400000000-17
data: {"specversion": "1.0", "id": "reservation/0c9d3f2e/1234", "type": "io.lablet.reservation.scheduled.v1", …}

"""
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents+json": {"schema": _EVENT},
            envelopes.BATCH: {"schema": {"type": "array", "items": _EVENT, "maxItems": envelopes.MAX_BATCH}},
            "application/json": {"schema": {"description": "Binary mode: the data, the attributes as ce- headers"}},
        },
    }
}


class EventResults(Model):
    """Per event of a batch, in its order."""

    results: tuple[EventResult, ...]


@router.post(
    "",
    status_code=202,
    response_model=EventResult | EventResults,
    openapi_extra=_BODY,
    responses={
        202: {"description": "Accepted: one result, or for a batch one per event"},
        207: {"model": EventResults, "description": "Some events of the batch were refused; the others are accepted"},
        **refusals(404, 409, 413, 415),
    },
)
async def publish_events(http: HttpRequest, parts: WithParts, caller: WithCaller) -> Response:
    """CloudEvents 1.0, binary, structured or batch; each an intent. The event's source and id are its idempotency key.
    A single event that is refused is answered with its problem; a batch of which nothing was accepted with 422."""
    inbound, is_batch = envelopes.read(http.headers, await http.body())
    results = await take_all(parts, caller, inbound)
    if not is_batch:
        refused = refusal_of_result(results[0])
        if refused is not None:
            raise refused
        headers = {"Location": results[0].request} if results[0].request else {}
        return Response(results[0].to_json(), 202, headers, media_type="application/json")
    refusals_seen = sum(result.result == "refused" for result in results)
    if results and refusals_seen == len(results):
        errors = [problems.field_error(f"[{at}]", str((result.problem or {}).get("detail", "")))
                  for at, result in enumerate(results)]  # fmt: skip
        raise problems.INVALID(
            "no event of the batch was accepted", errors=errors, results=[result.to_dict() for result in results]
        )
    body = EventResults(results=tuple(results)).to_json()
    return Response(body, 207 if refusals_seen else 202, media_type="application/json")


@router.get(
    "",
    response_class=Response,
    responses={
        200: {
            "content": {envelopes.BATCH: {"schema": {"type": "array", "items": _EVENT}}},
            "description": "The events, oldest first, as a CloudEvents batch",
        },
        **refusals(),
    },
)
async def tell_story(
    parts: WithParts,
    caller: WithCaller,
    subject: Annotated[str, Query(description="`<kind>/<id>`", examples=["reservation/rsv-…"])],
    limit: Annotated[int, Query(ge=1, le=_STORY_LIMIT, description="How many at most, oldest first")] = 1000,
) -> Response:
    """What was published about one resource, in `sequence` order, each event once; where the log has forgotten how it came
    to its present or archived state, that state as a `replayed` event with the moves that led to it."""
    kind, _, name = subject.partition("/")
    if kind not in KINDS or not name:
        raise problems.invalid("subject", f"{subject!r} names no resource", "write <kind>/<id>")
    sight = CallersSight(parts, caller)
    tenants = {caller.tenant, _TENANT_OF.get(kind, FLEET_TENANT if kind in FLEET else caller.tenant)}
    found: dict[tuple[str, str], Entry] = {}
    for tenant in sorted(tenants):
        latest = await story.present(parts, tenant, kind, name)
        if latest is not None and isinstance(latest[1], Instance):
            owner = await story.seats_reservation(parts, latest[1])
            sight.know(owner)
        for logged in await parts.events.story(tenant, kind, name, limit):
            entry = entry_of(logged, parts.hub.epoch)
            shown = None if entry is None else sight(entry)
            if shown is not None:
                found.setdefault(shown.origin, shown)
        shown = None if latest is None else sight(latest[0])
        if shown is not None:
            found.setdefault(shown.origin, shown)
    told = sorted(found.values(), key=lambda entry: entry.place[1])
    documents = b",".join(entry.body for entry in told[:limit])
    return Response(b"[%b]" % documents, media_type=envelopes.BATCH)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _FRAMES}},
            "description": "Each `data` is a CloudEvent in the JSON format; an id without data says how far the stream "
            "has come; an event `reset` says: list again",
        },
        **refusals(429),
    },
)
async def stream(
    http: HttpRequest,
    parts: WithParts,
    caller: WithCaller,
    kind: Annotated[list[str] | None, Query(description="Only these kinds")] = None,
    ids: Annotated[list[str] | None, Query(alias="id", description="Only these resources")] = None,
    correlation: Annotated[str, Query(description="Only what follows from this request")] = "",
    label: Annotated[str, Query(description="A label selector on the resource")] = "",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", description="Goes on after this one")] = None,
) -> Response:
    """State events as they are published. Resumes after `Last-Event-ID` without gap or repeat for as long as the log
    reaches back; beyond that an event `reset` comes first. Ends when the token has expired or was revoked."""
    if parts.hub.crowd >= parts.settings.gateway_max_streams:
        raise problems.TOO_MANY("this replica serves as many event streams as it may", headers={"Retry-After": "5"})
    kinds = frozenset(part for value in kind or [] for part in value.split(",") if part)
    unknown = kinds - set(KINDS) - {"scaling"}
    if unknown:
        raise problems.invalid("kind", f"there is no kind {min(unknown)}", problems.nearest(min(unknown), KINDS))
    try:
        labels = LabelSelector.parse(label)
    except SelectorError as error:
        raise problems.invalid("label", str(error)) from error
    wanted = Filter(kinds, frozenset(part for value in ids or [] for part in value.split(",") if part),
                    correlation, labels)  # fmt: skip
    with aside():
        place = await parts.hub.arrive(last_event_id, _PATIENCE_SECONDS)
    frames = parts.hub.frames(place, wanted, CallersSight(parts, caller), parts.settings.gateway_heartbeat_seconds)
    return EventStreamResponse(frames, parts.settings.gateway_stream_patience_seconds, http.scope["lablet.stands"])
