"""The JSON Schemas of the events' data, by the address that `dataschema` names, and AsyncAPI. Readable by everybody: whoever
gets an event can look up what it says."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from lablet_common.events.catalogue import EVENTS
from lablet_common.events.schemas import schema
from lablet_common.resources.model import Model
from lablet_gateway import problems
from lablet_gateway.answers import Responses, model_response, refusals
from lablet_gateway.reference import asyncapi
from lablet_gateway.reference.samples import steady
from lablet_gateway.rights import SCHEMAS

router = APIRouter(prefix=SCHEMAS, tags=["schemas"])
docs = APIRouter(include_in_schema=False)
_SCHEMA = "application/schema+json"
_OBJECT: dict[str, Any] = {
    "type": "object",
    "required": ["$id", "$schema"],
    "additionalProperties": True,
    "examples": [
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://lablet.io/schemas/io.lablet.reservation.scheduled.v1.json",
            "type": "object",
        }
    ],
}
_PUBLIC: Responses = {status: answer for status, answer in refusals(404).items() if status in (404, 422)}
_CACHE = {"Cache-Control": "public, max-age=300"}
_END = ".json"


class SchemaNames(Model):
    """Types of events; each has its schema at `/schemas/<type>.json`."""

    items: tuple[str, ...]


@router.get("", response_model=SchemaNames, responses={422: _PUBLIC[422]})
async def list_schemas() -> Response:
    """Every type of event."""
    return model_response(SchemaNames(items=tuple(sorted(EVENTS))))


@router.get(
    "/{name}",
    response_class=Response,
    responses={200: {"content": {_SCHEMA: {"schema": _OBJECT}}, "description": "JSON Schema 2020-12"}, **_PUBLIC},
)
async def get_schema(
    name: Annotated[str, Path(description="`<type>.json`", examples=["io.lablet.reservation.scheduled.v1.json"])],
) -> Response:
    """The JSON Schema of the data of one type of event."""
    event_type = name.removesuffix(_END)
    if event_type not in EVENTS:
        raise problems.NOT_FOUND(f"there is no event {event_type}: {problems.nearest(event_type, EVENTS)}")
    return Response(steady(schema(event_type)), media_type=_SCHEMA, headers=_CACHE)


@docs.get("/api/docs/asyncapi.json")
async def get_asyncapi() -> Response:
    """AsyncAPI 3 of the events on NATS."""
    return Response(steady(asyncapi.document()), media_type="application/json", headers=_CACHE)
