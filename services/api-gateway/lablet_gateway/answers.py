"""How outcomes are told: resources with their ETag, accepted requests with their address, refusals as problems.

`Prefer: wait=N` waits for the owner's decision; without it, or when it takes longer, the answer is 202 with the address
under which the outcome will be found. Preconditions: `If-Match` names the revision that a change is meant for.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from fastapi import Header
from starlette.responses import Response

from lablet_common.resources.kinds import KINDS, Kind
from lablet_common.resources.model import Model, Resource
from lablet_common.resources.request import Problem, Request, RequestPhase
from lablet_gateway import problems, reads
from lablet_gateway.faults import MEDIA_TYPE
from lablet_gateway.parts import Parts
from lablet_gateway.problems import Refused
from lablet_gateway.rights import PREFIX

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d+(?:\.\d+)?)\"?(?=$|[,;\s])", re.IGNORECASE)
_UNDECIDED = "Pending"

IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The ETag of the state that the change is meant for, or *")
]
Prefer = Annotated[
    str | None, Header(description="`wait=N`: wait up to N seconds for the decision", examples=["wait=5"])
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body get the same answer, for a day; another body under it is refused (422)",
    ),
]


class ProblemDocument(Model):
    """RFC 9457. `errors` names the fields at fault; some types carry further members, such as `explanation`."""

    model_config = Model.model_config | {"extra": "allow"}

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
    errors: tuple[dict[str, str], ...] = ()
    request_id: str | None = None


class _Answer(TypedDict, total=False):
    model: type[Any]
    description: str
    content: dict[str, Any]
    headers: dict[str, Any]


Responses = dict[int | str, dict[str, Any]]
_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
_WORDS = {
    401: "No token, or one that proves nothing",
    403: "No right to this",
    404: "Not there, or not the caller's",
    408: "The body did not come in time",
    409: "Against the state of the resource",
    410: "The revision of the cursor has been compacted",
    412: "The resource is at another revision than If-Match says",
    413: "The body is too large",
    415: "Another media type is wanted",
    422: "A field is at fault: see errors[]",
    428: "If-Match is missing",
    429: "Too many: come back after Retry-After",
    502: "The stored object does not have the content that its digest says",
    503: "A dependency is away (see dependency), or too much waits: come back after Retry-After",
}


def refusals(*statuses: int) -> Responses:
    """OpenAPI entries of the problems that a route answers, beside those that all do."""
    return {
        status: {"description": _WORDS[status], "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}}
        for status in sorted({401, 403, 422, 429, 503, *statuses, *({408} if 413 in statuses else ())})
    }


def accepting(outcome: Any, *statuses: int, done: int = 200) -> Responses:
    """OpenAPI entries of a route that opens a request."""
    location = {"Location": {"description": "Address of the outcome", "schema": {"type": "string"}}}
    return {
        done: {"model": outcome, "description": "Decided while the caller waited (`Prefer: wait`)"},
        202: {"model": Request, "description": "Accepted; the outcome follows", "headers": location},
        **refusals(404, 409, 413, *statuses),
    }


def etag_of(resource: Resource[Any, Any]) -> str | None:
    version = resource.metadata.resource_version
    return None if version is None else f'"{version}"'


def resource_response(
    resource: Resource[Any, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The resource as JSON with its ETag."""
    response = Response(resource.public().to_json(), status, dict(headers or {}), media_type="application/json")
    if etag := etag_of(resource):
        response.headers["ETag"] = etag
    return response


def model_response(model: Model, status: int = 200) -> Response:
    return Response(model.to_json(), status, media_type="application/json")


def check_match(if_match: str | None, resource: Resource[Any, Any] | None, *, required: bool) -> int | None:
    """The revision that the change is meant for and that its owner has to find, too; None: any. What nobody has decided on
    yet changes by that alone, so a change of it is meant for whatever it will be. Raises 428 where `If-Match` is needed and
    missing, 412 where it names another state."""
    if if_match is None:
        if required and resource is not None:
            raise problems.PRECONDITION_REQUIRED(
                "send If-Match with the ETag of the state that the change is meant for",
                errors=[problems.field_error("If-Match", "missing", "read the resource and send its ETag")],
            )
        return None
    wanted = [tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")]
    present = None if resource is None else resource.metadata.resource_version
    if present is None or ("*" not in wanted and present not in wanted):
        state = "it does not exist" if resource is None else f"it is at {present}"
        raise problems.STALE(f"If-Match says {if_match}, but {state}: read it again", resourceVersion=present)
    assert resource is not None
    return None if "*" in wanted or resource.phase == _UNDECIDED else resource.revision


def wait_of(prefer: str | None, longest: float) -> float | None:
    """Real seconds that the caller wants to wait; None: not at all. What cannot be understood is no preference."""
    found = _WAIT.search(prefer or "")
    if found is None:
        return None
    return min(float(found[1]), longest)


def path_of(subject: str) -> str | None:
    """The address of `<kind>/<id>`."""
    kind, _, name = subject.partition("/")
    match kind:
        case "definition" if "@" in name:
            name, _, version = name.partition("@")
            return f"{PREFIX}/definitions/{name}/versions/{version}"
        case "series":
            return f"{PREFIX}/series/{name}"
        case "definition" | "artifact" | "reservation" | "instance" | "worker" | "pool" | "template" | "request":
            return f"{PREFIX}/{kind}s/{name}"
        case _:
            return None


async def outcome_response(
    parts: Parts,
    request: Request,
    prefer: str | None,
    *,
    done: int = 200,
    wait_by_default: float | None = None,
    shown: reads.Shown = reads.whole,
) -> Response:
    """The answer to whoever asked for something: its outcome if it comes in time, else where it will be found. Raises
    the owner's refusal as `Refused`. `shown`: what they see of what came of it; where that is nothing, they are told that
    it was decided."""
    wait = wait_of(prefer, parts.settings.gateway_max_wait_seconds)
    if wait is None:
        wait = wait_by_default
    if wait is None:
        return accepted_response(request)
    applied = {"Preference-Applied": f"wait={wait:g}"}
    waited = not request.is_final
    if waited:
        request = await parts.decisions.wait(request, wait)
    if request.status.phase is RequestPhase.ACCEPTED:
        return accepted_response(request, applied)
    if request.status.phase is RequestPhase.REFUSED:
        raise refusal_in(request)
    subject = request.status.resource or request.spec.subject
    kind, _, name = subject.partition("/")
    resource = _decided_on(parts, request, KINDS[kind], name) if waited else None
    if resource is None:
        resource = await reads.get(parts, KINDS[kind], name, request.tenant)
    seen = None if resource is None else shown(resource)
    if seen is None:
        return resource_response(request, 200, applied)
    if address := path_of(subject):
        applied["Location"] = address
    return resource_response(seen, done, applied)


def _decided_on(parts: Parts, request: Request, kind: Kind, name: str) -> Resource[Any, Any] | None:
    """The resource from memory, where that has reached the decision which the caller waited for."""
    if kind not in parts.caches or parts.caches.revision < request.revision:
        return None
    resource: Resource[Any, Any] | None = parts.caches[kind].get(name, request.tenant)
    return resource


def refusal_in(request: Request) -> Refused:
    """A refused request's problem, with the addresses of the request and of what it left behind."""
    problem = request.status.problem or Problem(
        type=problems.CONFLICT.uri, title="Refused", status=409, detail=request.status.message or ""
    )
    more: dict[str, Any] = dict(problem.extensions) | {"request": f"{PREFIX}/requests/{request.id}"}
    if request.status.resource and (address := path_of(request.status.resource)):
        more["resource"] = address
    return Refused(problem.model_copy(update={"extensions": more}))


def accepted_response(request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """202: where the outcome will be found."""
    where = {"Location": f"{PREFIX}/requests/{request.id}", "Retry-After": "1", **(headers or {})}
    return resource_response(request, 202, where)
