"""JSON Schemas of every event's data, generated from the models: what `dataschema` points to."""

from functools import cache
from typing import Any

from lablet_common.events.catalogue import EVENTS, EventType


@cache
def schema(event_type: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one type's data. Raises `KeyError` for a type that is not in the catalogue."""
    return _schema(EVENTS[event_type])


def schemas() -> dict[str, dict[str, Any]]:
    """Type → schema, for every type of the catalogue."""
    return {name: schema(name) for name in EVENTS}


def _schema(event: EventType) -> dict[str, Any]:
    # A field with a default may be left out on both sides (fields without a value are not written), which is what the
    # validating form of the schema says.
    body = event.data.model_json_schema(by_alias=True, mode="validation")
    if event.is_state:
        body["properties"] = body["properties"] | {
            "previousPhase": {"type": "string", "description": "The phase before this commit; absent for a new one."}
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": event.schema_url} | body
