"""AsyncAPI 3 of what lies on NATS, from the catalogue of events: what Lablet tells, and what can be asked of it.

Source: asyncapi.com, specification 3.0.0. Channels between the services themselves (intents, dead letters) are not part of
the contract and not described.
"""

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from lablet_common.events.catalogue import EVENTS, EventType
from lablet_common.intents import INTENTS
from lablet_common.version import __version__
from lablet_gateway.reference.story import RESERVATION

Document = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_ATTRIBUTES: dict[str, str] = {
    "ce-specversion": "1.0",
    "ce-id": "State events: `<kind>/<uid>/<mod_revision>`; a repeat bears the same. Yours: unique for your source",
    "ce-source": "`/lablet/<service>`; your own, where you ask",
    "ce-type": "The message's name",
    "ce-subject": "`<kind>/<id>`",
    "ce-time": "RFC 3339, lab time",
    "ce-datacontenttype": "application/json",
    "ce-dataschema": "Address of the JSON Schema of the data",
    "ce-sequence": "Revision of the commit, 20 digits; drop what is not above the last one of its subject",
    "ce-partitionkey": "The pool, `-` without one",
    "ce-tenant": "Whose it is",
    "ce-correlationid": "The first request that led to it",
    "ce-causationid": "The event or request that led to it",
    "ce-traceparent": "Trace of its origin",
    "ce-dataref": "Instead of data over 64 KiB: address of the resource as it stands now; `ce-sequence` is what was told",
    "ce-replayed": "`true` when it tells a present state once more",
}
_REQUIRED = ["ce-specversion", "ce-id", "ce-source", "ce-type"]
_TENANT = {"description": "Whose events; a NATS user sees its own tenant's only"}
_TOKENS = {
    "tenant": _TENANT,
    "pool": {"description": "The pool, `-` where there is none"},
    "id": {"description": "Id of the resource"},
}
_DESCRIPTION = """Every committed change of a resource is a CloudEvent on NATS JetStream (stream EVENTS); outside systems ask
by CloudEvents of their own (stream INGRESS) and hear refusals on a result subject. Binary mode: attributes are headers,
percent-encoded as CloudEvents' NATS binding says; structured mode is understood. Tokens of a subject escape `.`, `*`, `>`,
space and `%` as %XX. Delivery is at least once: compare `sequence` for each subject. The same events go out over HTTP:
`GET /api/v1/events/stream` and webhooks (see the OpenAPI document)."""


@cache
def document() -> Document:
    """The whole description. The same object every time: do not change it."""
    told = [event for event in EVENTS.values() if not event.intent and event.kind != "ingress"]
    asked = [EVENTS[intent.type] for intent in INTENTS.values()]
    refused = [event for event in EVENTS.values() if event.kind == "ingress"]
    kinds = sorted({event.kind for event in told})
    words = sorted({event.kind for event in asked})
    channels = {f"event.{kind}": _channel(f"lablet.event.{{tenant}}.{kind}.{{pool}}.{{id}}", _TOKENS,
                                          [event for event in told if event.kind == kind]) for kind in kinds}  # fmt: skip
    channels |= {f"ingress.{word}": _channel(f"lablet.ingress.{{tenant}}.{word}", {"tenant": _TENANT},
                                             [event for event in asked if event.kind == word]) for word in words}  # fmt: skip
    channels["ingress-result"] = _channel("lablet.ingress-result.{tenant}", {"tenant": _TENANT}, refused)
    operations = {f"tell.{kind}": _operation("send", f"event.{kind}", f"What happens to {kind}s") for kind in kinds}
    operations |= {f"take.{word}": _operation("receive", f"ingress.{word}", f"What can be asked of a {word}")
                   for word in words}  # fmt: skip
    operations["refuse"] = _operation("send", "ingress-result", "An event was not taken, and why")
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Lablet", "version": __version__, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {
            "mesh": {
                "host": "localhost:4222",
                "protocol": "nats",
                "description": "NATS with JetStream; a user and a password for each tenant's systems",
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {event.type: _message(event) for event in (*told, *asked, *refused)},
            "schemas": _schemas([*told, *asked, *refused]),
            "securitySchemes": {"user": {"type": "userPassword"}},
        },
    }


def _channel(address: str, parameters: Document, events: list[EventType]) -> Document:
    return {
        "address": address,
        "parameters": parameters,
        "messages": {event.type: {"$ref": f"#/components/messages/{event.type}"} for event in events},
    }


def _operation(action: str, channel: str, summary: str) -> Document:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _message(event: EventType) -> Document:
    about = "a request to change it" if event.intent else "told with the state" if event.is_state else "a note"
    model = event.data.__name__
    return {
        "name": event.type,
        "title": f"{event.kind} {event.fact}",
        "summary": f"{event.kind} {event.fact.replace('.', ' ')}: {about}",
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
        "payload": {"$ref": _REFERENCE.format(model=f"{model}Told" if event.is_state else model)},
        "examples": [{"name": "headers", "headers": _headers(event)}],
    }


def _headers(event: EventType) -> Document:
    subject = f"reservation/{RESERVATION}" if event.kind == "reservation" else f"{event.kind}/…"
    return {
        "ce-specversion": "1.0",
        "ce-id": "course-7-1" if event.intent else f"{event.kind}/0c9d3f2e-6b1a-4f57-9a55-3c1f6f0f2a11/1234",
        "ce-source": "/lms" if event.intent or event.service is None else f"/lablet/{event.service}",
        "ce-type": event.type,
        "ce-subject": subject,
    }


def _schemas(events: list[EventType]) -> Document:
    models = list(dict.fromkeys(event.data for event in events))
    _, generated = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    schemas: Document = dict(generated["$defs"])
    for model in dict.fromkeys(event.data for event in events if event.is_state):
        whole = dict(schemas[model.__name__])
        before = {"type": "string", "description": "The phase before this commit; absent for a new one."}
        schemas[f"{model.__name__}Told"] = whole | {"properties": whole["properties"] | {"previousPhase": before}}
    schemas["CloudEventHeaders"] = {
        "type": "object",
        "required": _REQUIRED,
        "properties": {name: {"type": "string", "description": words} for name, words in _ATTRIBUTES.items()},
    }
    return schemas
