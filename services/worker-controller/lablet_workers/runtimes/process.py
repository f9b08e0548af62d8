"""The runtime of agents' hosts: labs of processes, asked for over NATS, as the `Runtime` port.

There is no password and no licence. What an agent's lab brings at its end (its nodes' output, and `result.json` with the
exit codes) stands in the place of node configurations.
"""

import json
import logging
from collections.abc import Container, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from lablet_common.agents import MOST_ANSWER_BYTES, Answer, LabRecord, Piece
from lablet_common.bus.line import AgentSilent, Line
from lablet_common.loads import Load
from lablet_common.resources.model import Model
from lablet_workers.runtimes.port import (
    LabMissing,
    LabProgress,
    LicenseInfo,
    Runtime,
    RuntimeFault,
    RuntimeInfo,
    Runtimes,
    RuntimeUnavailable,
)

log = logging.getLogger("lablet.workers.runtimes")

SCHEME = "agent://"
_UP = ("RUNNING", "EXITED")
_START_SECONDS = 20.0
_STOP_SECONDS = 30.0
_MOST_PIECES = 64
"""Of a node's output: 16 MB, where an agent keeps two."""
_PIECE_BYTES = MOST_ANSWER_BYTES // 2
_PARTS = 2
"""Files in which an agent keeps a node's output."""
M = TypeVar("M", bound=Model)


class _Info(Model):
    version: str
    ready: bool


class _Labs(Model):
    labs: dict[str, str]
    """Title → id."""


class _Imported(Model):
    lab: str


class _Exported(Model):
    manifest: str


def address_of(worker: str) -> str:
    return f"{SCHEME}{worker}"


class EveryRuntime:
    """Opens an agent's runtime by its address, and any other one as `others` does."""

    def __init__(self, others: Runtimes, line: Line) -> None:
        self._others = others
        self._line = line

    def open(self, url: str, password: str) -> Runtime:
        if url.startswith(SCHEME):
            return ProcessRuntime(url.removeprefix(SCHEME), self._line)
        return self._others.open(url, password)


class ProcessRuntime:
    """One agent's labs."""

    file_suffix = ""

    def __init__(self, worker: str, line: Line) -> None:
        self._worker = worker
        self._line = line

    async def _ask(self, verb: str, *, timeout: float = 10.0, **words: Any) -> Mapping[str, Any]:
        try:
            answer: Answer = await self._line.ask(self._worker, verb, timeout=timeout, **words)
        except AgentSilent as error:
            raise RuntimeUnavailable(str(error)) from error
        match answer.fault:
            case "":
                return answer.data
            case "missing":
                raise LabMissing(answer.message)
            case "failed":
                raise RuntimeUnavailable(answer.message)
            case _:
                raise RuntimeFault(answer.message)

    def _read(self, model: type[M], verb: str, told: Mapping[str, Any]) -> M:
        """A host is a stranger, too. Raises `RuntimeUnavailable` for what it should not have said."""
        try:
            return model.model_validate(told, extra="ignore")
        except ValidationError as error:
            why = error.errors()[0]
            place = ".".join(map(str, why["loc"]))
            raise RuntimeUnavailable(
                f"the agent {self._worker} answers {verb} with what cannot be read: {place}: {why['msg']}"
            ) from error

    async def info(self) -> RuntimeInfo:
        found = self._read(_Info, "info", await self._ask("info", timeout=3.0))
        return RuntimeInfo(found.version, found.ready)

    async def load(self) -> Load | None:
        try:
            return Load.model_validate(await self._ask("load", timeout=3.0), extra="ignore")
        except RuntimeUnavailable:
            raise
        except RuntimeFault:
            return None  # an agent that is older than the mesh
        except ValidationError as error:
            log.debug("an agent's load cannot be read", extra={"worker": self._worker, "cause": str(error)})
            return None

    async def secure(self, default_password: str, password: str) -> None:  # noqa: ARG002 - the port's signature
        return None

    async def license(self) -> LicenseInfo:
        return LicenseInfo("COMPLETED", "IN_COMPLIANCE", None)

    async def register(self, product: str, token: str) -> None:  # noqa: ARG002 - the port's signature
        return None

    async def deregister(self) -> None:
        return None

    async def labs(self, besides: Container[str] = ()) -> Mapping[str, str]:
        found = self._read(_Labs, "labs", await self._ask("labs")).labs
        return {lab: title for title, lab in found.items() if lab not in besides}

    async def import_lab(self, title: str, topology: bytes) -> str:
        told = await self._ask("import", title=title, manifest=topology.decode())
        return self._read(_Imported, "import", told).lab

    async def start(self, lab: str) -> None:
        await self._ask("start", lab=lab, timeout=_START_SECONDS)

    async def progress(self, lab: str) -> LabProgress:
        record = await self._record(lab)
        phases = {node.name: node.phase for node in record.nodes}
        completed = record.phase == "completed"
        return LabProgress(
            converged=completed or (record.phase == "running" and all(phase in _UP for phase in phases.values())),
            stopped=record.stopped,
            nodes=phases,
            completed=completed,
            exit_code=record.exit_code,
            failed=_failure(record),
        )

    async def _record(self, lab: str) -> LabRecord:
        return self._read(LabRecord, "progress", await self._ask("progress", lab=lab))

    async def configurations(self, lab: str) -> Mapping[str, bytes]:
        record = await self._record(lab)
        files: dict[str, bytes] = {}
        nodes: dict[str, Any] = {}
        for node in record.nodes:
            start, files[f"{node.name}.log"] = await self._output(lab, node.name)
            nodes[node.name] = {
                "phase": node.phase,
                "exitCode": node.exit_code,
                "restarts": node.restarts,
                "message": node.message,
                "outputFrom": start,
            }
        result = {"phase": record.phase, "exitCode": record.exit_code, "nodes": nodes}
        files["result.json"] = json.dumps(result, indent=1).encode()
        return files

    async def _output(self, lab: str, node: str) -> tuple[int, bytes]:
        """What is kept of a node's output, and the position at which that begins. Raises `RuntimeUnavailable` for more than
        any agent keeps: it would be collected without end. A node that goes on writing is not waited for: its output has been
        read to its end once each part has given less than was asked for."""
        position, begin, ends = 0, None, 0
        parts: list[bytes] = []
        for _ in range(_MOST_PIECES):
            told = await self._ask("output", lab=lab, node=node, position=position, limit=_PIECE_BYTES)
            found = self._read(Piece, "output", told)
            begin = found.start if begin is None else begin
            if not found.data:
                return begin, b"".join(parts)
            parts.append(found.content)
            position = found.start + len(parts[-1])
            ends += len(parts[-1]) < _PIECE_BYTES
            if ends == _PARTS:
                return begin, b"".join(parts)
        raise RuntimeUnavailable(f"the agent {self._worker} does not come to the end of the output of {node}")

    async def export(self, lab: str) -> bytes:
        return self._read(_Exported, "export", await self._ask("export", lab=lab)).manifest.encode()

    async def stop(self, lab: str) -> None:
        await self._ask("stop", lab=lab, timeout=_STOP_SECONDS)

    async def remove(self, lab: str) -> None:
        await self._ask("remove", lab=lab)

    async def close(self) -> None:
        return None


def _failure(record: LabRecord) -> str:
    """Why a lab that was to run until its slot's end never will; empty while it may."""
    if record.phase == "completed" or record.ends:
        return ""
    skipped = [node.name for node in record.nodes if node.phase == "SKIPPED"]
    ended = [
        f"{node.name} ended with {node.exit_code}" for node in record.nodes if node.phase == "EXITED" and node.exit_code
    ]
    return "; ".join([*ended, *(f"{name} could not start" for name in skipped)])
