"""Publishing a lab file: from an upload in staging to an immutable definition with what it needs.

Whatever the author leaves out is inferred from the file; what the author gives wins. The same content under the same name is
the same version; other content becomes the next patch version. Everything wrong with a file is told at once, with line,
node and field.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from pydantic import ValidationError

from lablet_artifacts import manifests, topology
from lablet_artifacts.references import LAB_FILE, add_in, look, topology_of
from lablet_artifacts.rendering import SEAT_VALUES
from lablet_artifacts.retiring import Retirement
from lablet_artifacts.topology.problems import MOST_PROBLEMS
from lablet_common.intake import PROBLEMS, Decision, refused, target_of, verb_of
from lablet_common.intents import DefinitionPublish
from lablet_common.objects import ObjectMismatch, ObjectMissing, ObjectStore, digest_of, get_content
from lablet_common.process_lab import RUNTIME
from lablet_common.requests import Undecided
from lablet_common.resources.artifact import object_key
from lablet_common.resources.definition import (
    Approval,
    Definition,
    DefinitionPhase,
    DefinitionSpec,
    DefinitionStatus,
    TopologyRef,
)
from lablet_common.resources.kinds import DEFINITION
from lablet_common.resources.model import Metadata
from lablet_common.resources.request import Problem
from lablet_common.store import Store, Transaction
from lablet_common.store.repository import Repository

_RUNTIME_VERSION = re.compile(r"v?\d{1,9}(\.\d{1,9}){0,5}([-+ ].{0,64})?")
_FIXED = frozenset({"name", "version", "topology", "untilCompleted"})


def version_key(version: str) -> tuple[int, ...]:
    """Versions are compared as versions."""
    return tuple(int(part) for part in version.split("."))


def next_version(versions: Sequence[str]) -> str:
    """The next patch after the highest; the first is 1.0.0."""
    if not versions:
        return "1.0.0"
    major, minor, patch = max(map(version_key, versions))
    return f"{major}.{minor}.{patch + 1}"


def infer_spec(
    name: str,
    version: str,
    data: bytes,
    overrides: dict[str, Any],
    node_types: Mapping[str, topology.NodeType] | None = None,
) -> DefinitionSpec:
    """The definition's spec from the file and what the author gives; `node_types` wins over the shipped table. Raises
    `topology.LabFileError` for a bad file and `ValidationError` for a bad override."""
    is_manifest = manifests.is_manifest(data)
    inferred = (
        manifests.inferred(manifests.read_manifest(data)) if is_manifest else _inferred_from_topology(data, node_types)
    )
    given = dict(overrides)
    for part in ("requirements", "runtime"):
        if isinstance(given.get(part), dict):
            given[part] = inferred[part] | given[part]
    form: Literal["cml", "process"] = "process" if is_manifest else "cml"
    fixed = {
        "name": name,
        "version": version,
        "topology": TopologyRef(digest=digest_of(data), bytes=len(data), format=form).to_dict(),
        "untilCompleted": inferred.get("untilCompleted", False),
    }
    spec = DefinitionSpec.model_validate(inferred | given | fixed)
    _check_runtime(spec)
    misplaced = sorted({port["name"] for port in inferred["ports"]} ^ {port.name for port in spec.ports})
    if misplaced:
        said = f"the port {misplaced[0]} must stand both in the file and among the ports"
        raise topology.RenderError([topology.Problem(said, "add it where it is missing, or take it away", "ports")])
    if len({port.name for port in spec.ports}) < len(spec.ports):
        twice = Counter(port.name for port in spec.ports).most_common(1)[0][0]
        said = f"the port {twice} stands there more than once"
        raise topology.RenderError([topology.Problem(said, "name each port once", "ports")])
    return spec


def _check_runtime(spec: DefinitionSpec) -> None:
    """Raises where the file is not one that the named runtime could run."""
    wanted = RUNTIME if spec.topology.format == "process" else "cml"
    if spec.runtime.name != wanted:
        said = f"the runtime {spec.runtime.name} cannot run this file, which is for {wanted}"
        raise topology.TopologyError([topology.Problem(said, "leave runtime.name out", "runtime.name")])
    for field, version in (("minVersion", spec.runtime.min_version), ("maxVersion", spec.runtime.max_version)):
        if version is not None and not _RUNTIME_VERSION.fullmatch(version):
            said = f"{version!r} is no version that could be compared"
            raise topology.TopologyError([topology.Problem(said, "write it like 2.9 or 2.9.1", f"runtime.{field}")])


def _inferred_from_topology(data: bytes, node_types: Mapping[str, topology.NodeType] | None) -> dict[str, Any]:
    lab = topology.read_topology(data)
    ports = topology.find_ports(lab)
    # what cannot be rendered for any seat is refused now, and not when the seat is due
    topology.render(data, {port.name: 65535 for port in ports}, dict.fromkeys(SEAT_VALUES, "1"))
    needs = topology.infer_requirements(lab, node_types)
    return {
        "title": lab.title,
        "description": lab.description,
        "requirements": {
            "cpuCores": needs.cpu_cores,
            "memoryGb": needs.memory_gb,
            "storageGb": needs.storage_gb,
            "nodeCount": needs.node_count,
        },
        "ports": [{"name": port.name, "protocol": port.protocol} for port in ports],
        "runtime": {
            "minVersion": topology.min_cml_version(lab.schema),
            "nodeDefinitions": list(topology.node_definitions(lab)),
        },
    }


class Publisher:
    """Decides what is asked of definitions. `node_types`: what this installation's images take, where it differs."""

    def __init__(
        self, store: Store, objects: ObjectStore, node_types: Mapping[str, topology.NodeType] | None = None
    ) -> None:
        self._objects = objects
        self._node_types = node_types
        self._store = store
        self._definitions: Repository[Definition] = Repository(store, DEFINITION)
        self._retirement = Retirement(store)

    async def decide(self, undecided: Undecided, now: datetime, by: str) -> Decision:
        """The outcome of one request. Raises `ObjectStoreUnavailable`: then it stays in the inbox."""
        _, verb = verb_of(undecided)
        if verb == "publish.requested":
            return await self._publish(undecided, now)
        if verb == "deprecate.requested":
            return await self._deprecate(undecided, now, by)
        if verb == "approve.requested":
            return await self._approve(undecided, now)
        if verb == "archive.requested":
            return await self._retirement.decide(undecided, now, by)
        return refused("unknown-intent", "Unknown intent", f"{undecided.request.spec.type} is not known here", 422)

    async def _publish(self, undecided: Undecided, now: datetime) -> Decision:
        request = undecided.request
        asked = DefinitionPublish.model_validate(request.spec.data)
        versions = await self._versions(request.tenant, asked.name)
        taken = next((known for known in versions if known.spec.version == asked.version), None)
        if taken is not None and taken.spec.topology.digest != asked.digest:
            return _taken(taken)
        try:
            data = await self._uploaded(asked, request.tenant, versions)
        except (ObjectMissing, ObjectMismatch):
            return refused("upload-missing", "Upload missing", "the uploaded file is gone: upload it again", 422)
        if digest_of(data) != asked.digest:
            return refused("digest-mismatch", "Digest mismatch", "the uploaded file is not the one announced", 422)
        unknown = sorted(_FIXED & set(asked.overrides))
        if unknown:
            return refused(
                "invalid-definition", "Invalid definition", f"{unknown[0]} cannot be given here", 422, path=unknown[0]
            )
        version = asked.version or next_version([known.spec.version for known in versions])
        approval = Approval(by=request.spec.principal, at=now) if asked.approved else None
        try:
            spec = await asyncio.to_thread(infer_spec, asked.name, version, data, asked.overrides, self._node_types)
        except topology.LabFileError as error:
            return _bad_file(error)
        except ValidationError as error:
            return _bad_override(error)
        if taken is not None:
            return _already(taken, approval) if taken.spec == spec else _taken(taken)
        same = [one for one in versions if one.spec == spec.model_copy(update={"version": one.spec.version})]
        if same and asked.version is None:
            return _already(same[-1], approval)
        made = _definition(undecided, spec, now, approval)
        # The artifact is read first: content that is on its way out is waited for, and a deletion that begins now is a
        # conflict. Content that is there is put too: what has been put just now is not swept before the artifact stands.
        referring = await self._referring(made, now)
        await self._objects.put(object_key(request.tenant, asked.digest), data, LAB_FILE)
        return Decision("Published", made, also=referring)

    async def _uploaded(self, asked: DefinitionPublish, tenant: str, versions: Sequence[Definition]) -> bytes:
        """The upload, or the same content from a version that has it already. Raises `ObjectMissing`."""
        try:
            return await self._objects.get(asked.staging)
        except ObjectMissing:
            if any(known.spec.topology.digest == asked.digest for known in versions):
                return await get_content(self._objects, tenant, asked.digest)
            raise

    async def _referring(self, made: Definition, now: datetime) -> Transaction:
        """The definition's file as an artifact that it refers to."""
        txn = Transaction()
        spec, reference = topology_of(made)
        add_in(txn, await look(self._store, made.tenant, spec.digest, (reference,)), made.tenant, spec, reference, now)
        return txn

    async def _deprecate(self, undecided: Undecided, now: datetime, by: str) -> Decision:
        name = target_of(undecided)
        known = await self._definitions.get(name, undecided.request.tenant)
        if known is None:
            return refused("unknown-definition", "Unknown definition", f"there is no definition {name}", 404)
        if known.phase is DefinitionPhase.DEPRECATED:
            return Decision("AlreadyDeprecated")
        reason = str(undecided.request.spec.data.get("reason") or "") or None
        moved = known.moved(DefinitionPhase.DEPRECATED, at=now, by=by, reason="DeprecateRequested", message=reason)
        return Decision("Deprecated", moved)

    async def _approve(self, undecided: Undecided, now: datetime) -> Decision:
        """Who may ask has been checked at the door: operators of the fleet."""
        name = target_of(undecided)
        known = await self._definitions.get(name, undecided.request.tenant)
        if known is None:
            return refused("unknown-definition", "Unknown definition", f"there is no definition {name}", 404)
        if known.status.approved is not None:
            return Decision("AlreadyApproved", about=known)
        spec = undecided.request.spec
        approval = Approval(by=spec.principal, at=now)
        return Decision("Approved", known.observed("approved", cause=spec.event_id, approved=approval))

    async def _versions(self, tenant: str, name: str) -> list[Definition]:
        """All versions of a name, oldest first."""
        found = [one for one in (await self._definitions.list(tenant=tenant)).items if one.spec.name == name]
        return sorted(found, key=lambda one: version_key(one.spec.version))


def _taken(known: Definition) -> Decision:
    said = f"{known.id} exists with other content: a version is immutable, publish another one"
    return refused("version-taken", "Version taken", said, 409, path="version")


def _already(known: Definition, approval: Approval | None) -> Decision:
    """The same content again: the outcome names the version that has it. An operator's word counts all the same."""
    if approval is not None and known.status.approved is None:
        return Decision("AlreadyPublished", known.observed("approved", approved=approval))
    return Decision("AlreadyPublished", about=known)


def _definition(undecided: Undecided, spec: DefinitionSpec, now: datetime, approval: Approval | None) -> Definition:
    request = undecided.request
    metadata = Metadata(
        id=f"{spec.name}@{spec.version}",
        uid=str(uuid4()),
        tenant=request.tenant,
        owner=request.spec.principal,
        created_at=now,
        correlation_id=request.metadata.correlation_id or request.id,
        trace_parent=request.spec.trace_parent,
    )
    status = DefinitionStatus(phase=DefinitionPhase.PUBLISHED, approved=approval)
    made = Definition(metadata=metadata, spec=spec, status=status)
    return made.observed("published", cause=request.spec.event_id)


def _bad_file(error: topology.LabFileError) -> Decision:
    faults = []
    for fault in error.problems:
        entry = {"path": fault.field or "topology", "message": fault.message, "remedy": fault.remedy}
        if fault.line is not None:
            entry["line"] = str(fault.line)
        if fault.node is not None:
            entry["node"] = fault.node
        faults.append(entry)
    problem = Problem(
        type=f"{PROBLEMS}invalid-topology",
        title="Invalid lab file",
        status=422,
        detail=str(error),
        errors=tuple(faults),
    )
    return Decision("InvalidTopology", problem=problem)


def _bad_override(error: ValidationError) -> Decision:
    faults = tuple(
        {"path": ".".join(map(str, fault["loc"])), "message": fault["msg"], "remedy": "correct it or leave it out"}
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:MOST_PROBLEMS]
    )
    problem = Problem(
        type=f"{PROBLEMS}invalid-definition",
        title="Invalid definition",
        status=422,
        detail="; ".join(f"{fault['path']}: {fault['message']}" for fault in faults),
        errors=faults,
    )
    return Decision("InvalidDefinition", problem=problem)
