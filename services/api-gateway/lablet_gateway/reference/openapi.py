"""OpenAPI, completed: each answer has an example, each refusal names the types of problem that it can have.

FastAPI knows routes, parameters and models. What a problem document looks like for a status, and what a resource
typically looks like, is said here.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from lablet_gateway import problems
from lablet_gateway.answers import ProblemDocument
from lablet_gateway.faults import MEDIA_TYPE
from lablet_gateway.problems import ProblemType
from lablet_gateway.reference.samples import sample
from lablet_gateway.reference.story import REQUEST, RESERVATION

Document = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_OWNERS = "no-capacity"
_CAPACITY = {
    "type": problems.BASE + _OWNERS,
    "title": "No capacity",
    "status": 409,
    "detail": "2 seats from 2027-03-01T09:00:00Z find no place in pool default; the earliest slot is 2027-03-01T11:00:00Z",
    "explanation": {"considered": 10, "removed": {"capacity": 6, "license": 4}, "binding": "memoryGb",
                    "earliest": "2027-03-01T11:00:00Z"},
    "request": f"/api/v1/requests/{REQUEST}",
    "requestId": "f3d0c8a4",
}  # fmt: skip
_DETAILS: Mapping[str, str] = {
    "unauthenticated": "send a token: Authorization: Bearer …",
    "forbidden": "the role learner of tenant default has no right to this",
    "not-found": f"there is no reservation {RESERVATION}",
    "request-timeout": "the body did not come in time: send it again, on a connection of its own",
    "conflict": "somebody else was first: read again and repeat",
    "illegal-transition": f"Reservation {RESERVATION} is Completed and cannot become Cancelled",
    "gone": "the list's revision has been compacted: begin again without cursor",
    "precondition-failed": 'If-Match says "1200", but it is at 1234: read it again',
    "too-large": "the body has 9000000 bytes; the most is 8388608",
    "unsupported-media-type": "send a CloudEvent: ce- headers, application/cloudevents+json or a batch",
    "invalid": "durationMinutes: Input should be greater than 0",
    "idempotency-key-reused": "the key was used before for another body",
    "precondition-required": "send If-Match with the ETag of the state that the change is meant for",
    "too-many-requests": "more than the token may ask for: come back after Retry-After",
    "internal": "something went wrong here; the log has it under the request id",
    "corrupt-object": "the stored object does not have the content that its digest says",
    "overloaded": "2,000 requests wait for the scheduler (shard default) already: come back in a moment",
    "unavailable": "etcd does not answer: no endpoint answered",
}
_MORE: Mapping[str, Mapping[str, Any]] = {
    "unavailable": {"dependency": "etcd"},
    "overloaded": {"service": "scheduler", "shard": "default", "waiting": 2000},
    "invalid": {"errors": [{"path": "durationMinutes", "message": "Input should be greater than 0"}]},
    "not-found": {"kind": "reservation", "id": RESERVATION},
}


def problem_types() -> dict[int, list[ProblemType]]:
    """The gateway's types by status."""
    by_status: dict[int, list[ProblemType]] = {}
    for found in vars(problems).values():
        if isinstance(found, ProblemType):
            by_status.setdefault(found.status, []).append(found)
    return by_status


def complete(document: Document) -> Document:
    """Adds problem document and examples to what FastAPI made; the document itself is changed and returned."""
    schemas = document["components"]["schemas"]
    schemas["ProblemDocument"] = ProblemDocument.model_json_schema(by_alias=True, ref_template=_REFERENCE)
    types = problem_types()
    document["components"]["examples"] = _all_problems(types)
    for operations in document["paths"].values():
        for operation in operations.values():
            for body in operation.get("requestBody", {}).get("content", {}).values():
                _exemplify(body, schemas)
            for status, answer in operation["responses"].items():
                for media_type, media in answer.get("content", {}).items():
                    if media_type == MEDIA_TYPE:
                        media["examples"] = _problems(int(status), types)
                    else:
                        _exemplify(media, schemas)
    return document


def _exemplify(media: Document, schemas: Mapping[str, Any]) -> None:
    schema = media.get("schema")
    if not schema or "example" in media or "examples" in media or schema.get("type") == "string":
        return
    media["example"] = sample(schema, schemas)


def _problems(status: int, types: Mapping[int, list[ProblemType]]) -> Document:
    names = [found.slug for found in types.get(status, [])]
    if status == HTTPStatus.CONFLICT:
        names.append(_OWNERS)
    return {name: {"$ref": f"#/components/examples/{name}"} for name in names}


def _all_problems(types: Mapping[int, list[ProblemType]]) -> Document:
    told = {
        found.slug: {"summary": found.title, "value": _problem(found)} for group in types.values() for found in group
    }
    return told | {_OWNERS: {"summary": "The owner's refusal, with its explanation", "value": _CAPACITY}}


def _problem(kind: ProblemType) -> Document:
    return {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": _DETAILS.get(kind.slug, kind.title),
        "instance": "/api/v1/reservations",
        "requestId": "f3d0c8a4",
        **_MORE.get(kind.slug, {}),
    }
