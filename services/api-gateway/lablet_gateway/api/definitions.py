"""Definitions: publish a lab file, find it again by name and version, download it, take it out of use."""

import re
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from lablet_common.intents import Nothing
from lablet_common.objects import get_content
from lablet_common.resources.definition import Definition, DefinitionSpec
from lablet_common.resources.kinds import DEFINITION
from lablet_common.store.repository import ResourcePage
from lablet_common.strangers import NotJson, read_json
from lablet_gateway import catalogue, problems, reads, topologies
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
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.rights import PREFIX, PUBLIC_TENANT
from lablet_gateway.topologies import Graph, graph_of
from lablet_gateway.uploads import Uploads

router = APIRouter(prefix=f"{PREFIX}/definitions", tags=["definitions"])
_YAML = {"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {
                "schema": {
                    "type": "object",
                    "examples": [{"lab": {"title": "OSPF basics"}, "nodes": [], "links": []}],
                    "description": "CML topology, schema 0.0.1 to 0.3.0, or a manifest of kind ProcessLab",
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["topology"],
                    "properties": {
                        "topology": {"type": "string", "format": "binary", "description": "The CML topology file"},
                        "definition": {
                            "type": "string",
                            "description": "JSON: name, version and fields of the spec that win over what is inferred",
                        },
                    },
                }
            },
        },
    }
}


@router.post(
    "", status_code=202, response_model=None, responses=accepting(Definition, 415, done=201), openapi_extra=_BODY
)
async def publish_definition(
    http: Request,
    parts: WithParts,
    caller: WithCaller,
    name: Annotated[str | None, Query(description="A DNS label; may also stand in the part `definition`")] = None,
    version: Annotated[str | None, Query(description="`major.minor.patch`; left out, the next patch version")] = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Publishes a lab file: as a YAML body, or as the part `topology` of a form beside a part `definition`. The file is
    kept by its digest; what it needs is inferred from it."""
    topology, overrides = await _read(http)
    given = {field: overrides.pop(field, None) for field in ("name", "version")}
    named, versioned = name or given["name"], version or given["version"]
    _check(named, versioned, topology, overrides)
    request = await Uploads(parts, caller, Ask("POST /definitions", key)).publish(named, versioned, topology, overrides)
    return await outcome_response(parts, request, prefer, done=201)


@router.get("", response_model=ListOf[Definition], responses=refusals(410))
async def list_definitions(parts: WithParts, caller: WithCaller, query: WithListQuery) -> Response:
    """The tenant's and the public ones, all versions."""
    found: ResourcePage[Definition] = await reads.page(parts, DEFINITION, query, caller.sees)
    return reads.list_response(found)


@router.get("/{name}", response_model=Definition, responses=refusals(404))
async def get_newest(name: str, parts: WithParts, caller: WithCaller) -> Response:
    """The newest version that is not deprecated; the tenant's own before a public one. `name@version` works too."""
    return resource_response(await _find(parts, caller, name))


@router.get("/{name}/versions/{version}", response_model=Definition, responses=refusals(404))
async def get_version(
    name: str, version: str, parts: WithParts, caller: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """One version, deprecated and archived ones too."""
    return resource_response(await _version(parts, caller, name, version, consistency))


@router.get(
    "/{name}/versions/{version}/topology",
    response_class=Response,
    responses={
        200: {"content": {"application/yaml": {"schema": {"type": "object"}}}, "description": "The file"},
        **refusals(404, 502),
    },
)
async def download_topology(name: str, version: str, parts: WithParts, caller: WithCaller) -> Response:
    """The lab file as it was published, to the byte."""
    definition = await _version(parts, caller, name, version, "linearizable")
    digest = definition.spec.topology.digest
    data = await get_content(parts.objects, definition.tenant, digest)
    headers = {
        "ETag": f'"{digest}"',
        "Content-Disposition": f'attachment; filename="{name}-{version}.yaml"',
    }
    return Response(data, headers=headers, media_type="application/yaml")


@router.get("/{name}/versions/{version}/graph", response_model=Graph, responses=refusals(404, 502))
async def get_graph(name: str, version: str, parts: WithParts, caller: WithCaller) -> Response:
    """The lab's nodes, where its author put them, and the links between: what it takes to draw it."""
    definition = await _version(parts, caller, name, version, "linearizable")
    return model_response(graph_of(await topologies.read(parts, definition.tenant, definition.spec.topology.digest)))


@router.post(
    "/{name}/versions/{version}/deprecate", status_code=202, response_model=None, responses=accepting(Definition, 412)
)
async def deprecate(
    name: str,
    version: str,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Takes a version out of use for new reservations that do not name it; what is booked stays."""
    ask = Ask(f"POST /definitions/{name}/versions/{version}/deprecate", key, if_match)
    request = await Intake(parts, caller, ask).act(
        DEFINITION, "deprecate.requested", f"{name}@{version}", body or Nothing()
    )
    return await outcome_response(parts, request, prefer)


@router.post(
    "/{name}/versions/{version}/approve", status_code=202, response_model=None, responses=accepting(Definition, 412)
)
async def approve(
    name: str,
    version: str,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """An operator's word that agents may run this version's processes on their hosts."""
    ask = Ask(f"POST /definitions/{name}/versions/{version}/approve", key, if_match)
    request = await Intake(parts, caller, ask).act(
        DEFINITION, "approve.requested", f"{name}@{version}", body or Nothing()
    )
    return await outcome_response(parts, request, prefer)


@router.post(
    "/{name}/versions/{version}/archive", status_code=202, response_model=None, responses=accepting(Definition, 412)
)
async def archive(
    name: str,
    version: str,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Ends a version for good: it can no longer be booked, and its lab file may be deleted. Refused while a reservation
    that has not ended needs it."""
    ask = Ask(f"POST /definitions/{name}/versions/{version}/archive", key, if_match)
    request = await Intake(parts, caller, ask).act(
        DEFINITION, "archive.requested", f"{name}@{version}", body or Nothing()
    )
    return await outcome_response(parts, request, prefer)


async def _find(parts: Parts, caller: Caller, wanted: str) -> Definition:
    found = await catalogue.find(parts, caller.tenant, wanted)
    if found is None:
        near = problems.nearest(wanted, await catalogue.names(parts, caller.tenant))
        raise problems.NOT_FOUND(f"there is no definition {wanted}: {near}", kind=DEFINITION.name, id=wanted)
    return found


async def _version(parts: Parts, caller: Caller, name: str, version: str, consistency: reads.Consistency) -> Definition:
    for tenant in dict.fromkeys((caller.tenant, PUBLIC_TENANT)):
        found = await reads.get(parts, DEFINITION, f"{name}@{version}", tenant, consistency)
        if found is not None:
            return cast("Definition", found)
    raise problems.unknown(DEFINITION.name, f"{name}@{version}")


async def _read(http: Request) -> tuple[bytes, dict[str, Any]]:
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in _YAML:
        return await http.body(), {}
    if media_type != "multipart/form-data":
        raise problems.UNSUPPORTED_MEDIA(
            "send the lab file as application/yaml, or a form with the parts topology and definition",
            errors=[problems.field_error("Content-Type", f"{media_type or 'nothing'} is not understood here")],
        )
    async with http.form(max_files=2, max_fields=2) as form:
        topology = await _part(form.get("topology"))
        definition = await _part(form.get("definition"))
        surplus = set(form) - {"topology", "definition"}
    if surplus:
        raise problems.invalid(min(surplus), "there is no such part", "send topology and definition")
    if topology is None:
        raise problems.invalid("topology", "the part is missing", "send the lab file as the part topology")
    return topology, read_overrides(definition)


async def _part(part: UploadFile | str | None) -> bytes | None:
    if isinstance(part, UploadFile):
        return await part.read()
    return None if part is None else part.encode()


def read_overrides(definition: bytes | None) -> dict[str, Any]:
    """The fields that the part `definition` sets. Raises 422."""
    if definition is None or not definition.strip():
        return {}
    try:
        given = read_json(definition)
    except NotJson as error:
        raise problems.invalid("definition", f"not JSON: {error}") from error
    if not isinstance(given, dict):
        raise problems.invalid("definition", "a JSON object is wanted")
    return given


def _check(name: Any, version: Any, topology: bytes, overrides: dict[str, Any]) -> None:
    errors = []
    if not name:
        errors.append(problems.field_error("name", "missing", "add ?name="))
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        errors.append(problems.field_error("name", f"{name!r} is no DNS label", "a to z, 0 to 9 and -, at most 63"))
    if version is not None and (not isinstance(version, str) or not _VERSION.fullmatch(version)):
        errors.append(problems.field_error("version", f"{version!r} is no version", "write it like 1.0.0"))
    if not topology.strip():
        errors.append(problems.field_error("topology", "the lab file is empty"))
    else:
        try:
            topology.decode()
        except UnicodeDecodeError as error:
            errors.append(problems.field_error("topology", f"not UTF-8 at byte {error.start}"))
    known = {info.alias or field for field, info in DefinitionSpec.model_fields.items()} - {
        "topology",
        "name",
        "version",
    }
    errors += [
        problems.field_error(f"definition.{field}", "there is no such field", problems.nearest(field, known))
        for field in sorted(set(overrides) - known)
    ]
    if errors:
        raise problems.several(errors)
