"""What goes wrong on the way, turned into problem documents: one table for the whole API.

Whatever is not in the table is a defect: it is logged with its trace and answered 500 without details.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lablet_common.objects import ObjectMismatch, ObjectMissing, ObjectStoreError
from lablet_common.requests import KeyReused
from lablet_common.resources.machine import IllegalTransition
from lablet_common.resources.request import Problem
from lablet_common.store import Compacted, Conflict, InvalidRequest, StoreUnavailable
from lablet_common.store.changes import Unreadable
from lablet_common.store.repository import InvalidCursor, NotFound
from lablet_common.store.selectors import SelectorError
from lablet_gateway import problems
from lablet_gateway.admission import Crowded
from lablet_gateway.eventlog import EventLogUnavailable
from lablet_gateway.gathering import Overloaded
from lablet_gateway.problems import Refused, field_error
from lablet_gateway.rights import PREFIX

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
_REMEDIES = {
    "missing": "add it",
    "extra_forbidden": "remove it, or correct its name",
    "json_invalid": "send valid JSON",
}
_PLACES = {"body", "query", "header", "path"}
_CLAIM = f"{PREFIX}/claims/"


def problem_body(problem: Problem, instance: str | None = None) -> dict[str, Any]:
    """The document as it is sent: extensions stand beside the standard members."""
    body = problem.to_dict()
    body.update(body.pop("extensions", {}))
    if not body.get("errors"):
        body.pop("errors", None)
    if instance:
        body["instance"] = instance
    return body


def tellable(path: str) -> str:
    """The path without the code of a claim link: whoever reads that in a log or a span, before it was used, has the seat."""
    return f"{_CLAIM}{{code}}" if path.startswith(_CLAIM) else path


def problem_response(problem: Problem, request: Request, headers: Mapping[str, str] = {}) -> Response:
    body = problem_body(problem, tellable(request.url.path))
    if request_id := request.scope.get("lablet.request_id"):
        body["requestId"] = request_id
    return JSONResponse(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=dict(headers))


def describe(errors: Sequence[Any], prefix: str = "") -> list[dict[str, str]]:
    """pydantic's findings as `errors[]`: paths in camelCase as sent, with the field that a `fault` names."""
    described = []
    for error in errors:
        location = list(error["loc"])
        if location and location[0] in _PLACES:
            location = location[1:]
        kind = error["type"]
        if kind == "json_invalid":
            location = []
        message = error["msg"].removeprefix("Value error, ")
        if kind == "fault":
            location.append(error["ctx"]["field"])
        path = prefix
        for part in location:
            if isinstance(part, int):
                path += f"[{part}]"
            else:
                path += f".{part}" if path else str(part)
        described.append(field_error(path or "body", message, _REMEDIES.get(kind, "")))
    return described


def invalid_input(errors: Sequence[Any], prefix: str = "") -> Refused:
    """422 naming every field at fault."""
    described = describe(errors, prefix)
    detail = "; ".join(f"{error['path']}: {error['message']}" for error in described[:5])
    return problems.INVALID(detail, errors=described)


def refusal_of(error: Exception) -> Refused | None:
    """The problem that an exception stands for; None for a defect."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            return invalid_input(error.errors())
        case ValidationError():
            return invalid_input(error.errors())
        case StoreUnavailable():
            return problems.unavailable("etcd", f"etcd does not answer: {error}")
        case Overloaded():
            return problems.unavailable(
                "etcd", f"etcd is slower than what is asked of it: {error}; come back in a moment"
            )
        case Crowded():
            return problems.OVERLOADED(
                str(error),
                headers={"Retry-After": "2"},
                service=error.service,
                shard=error.shard,
                waiting=error.waiting,
            )
        case EventLogUnavailable():
            return problems.unavailable("nats", f"NATS does not answer: {error}")
        case ObjectMissing():
            return problems.NOT_FOUND(str(error))
        case ObjectMismatch():
            return problems.CORRUPT(str(error))
        case ObjectStoreError():
            return problems.unavailable("s3", f"the object store does not answer: {error}")
        case Compacted():
            return problems.GONE("the list's revision has been compacted: begin again without cursor")
        case InvalidCursor():
            return problems.invalid("cursor", str(error), "take nextCursor as it stands, or leave it out")
        case SelectorError():
            return problems.INVALID(str(error), errors=[field_error("selector", str(error))])
        case KeyReused():
            return problems.KEY_REUSED(
                str(error),
                errors=[field_error("Idempotency-Key", "used before for another body", "take a new key")],
                request=error.request.id,
            )
        case NotFound():
            return problems.unknown(error.kind, error.id)
        case IllegalTransition():
            return problems.ILLEGAL_TRANSITION(str(error))
        case Conflict():
            return problems.CONFLICT("somebody else was first: read again and repeat")
        case InvalidRequest():
            return problems.INVALID(str(error))
        case Unreadable():
            return problems.INTERNAL("something that is stored cannot be read; the log names it under the request id")
        case HTTPException():
            return _http(error)
        case _:
            return None


def _http(error: HTTPException) -> Refused:
    known = {
        400: problems.invalid("body", "it cannot be read as what its Content-Type says"),
        404: problems.NOT_FOUND("there is nothing at this address"),
        405: problems.METHOD_NOT_ALLOWED("this address does not take that method", headers=error.headers or {}),
        408: problems.BODY_LATE(
            "the body did not come in time: send it again, on a connection of its own", headers={"Connection": "close"}
        ),
        413: problems.TOO_LARGE("the body is larger than this address takes"),
    }
    if error.status_code in known:
        return known[error.status_code]
    kind = problems.ProblemType(f"http-{error.status_code}", "Refused", error.status_code)
    return kind(str(error.detail), headers=error.headers or {})


async def answer(request: Request, error: Exception) -> Response:
    """What is said about it. A defect is logged with its trace."""
    refused = refusal_of(error)
    known = {"request_id": request.scope.get("lablet.request_id"), "path": tellable(request.url.path)}
    if refused is None:
        _log.error("a request failed", exc_info=error, extra=known | {"method": request.method})
        refused = problems.INTERNAL("something went wrong here; the log has it under the request id")
    elif refused.problem.status >= 500 and not isinstance(error, Overloaded | Crowded):  # those are counted: `SHED`
        _log.warning("a request could not be served", extra=known | {"cause": str(error)})
    return problem_response(refused.problem, request, refused.headers)


def install(app: FastAPI) -> None:
    """Registers the table with the application."""
    for kind in (
        Refused,
        RequestValidationError,
        ValidationError,
        StoreUnavailable,
        Overloaded,
        Crowded,
        EventLogUnavailable,
        ObjectStoreError,
        Compacted,
        InvalidRequest,
        SelectorError,
        KeyReused,
        NotFound,
        IllegalTransition,
        Conflict,
        Unreadable,
        HTTPException,
        Exception,
    ):
        app.add_exception_handler(kind, answer)
