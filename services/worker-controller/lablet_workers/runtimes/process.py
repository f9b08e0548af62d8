"""The runtime of agents' hosts: labs of processes, asked for over NATS, as the `Runtime` port.

There is no password and no licence. What an agent's lab brings at its end (its nodes' output, and `result.json` with the
exit codes) stands in the place of node configurations.
"""

import base64
import json
import logging
from collections.abc import Container, Mapping
from typing import Any

from pydantic import ValidationError

from lablet_common.agents import MOST_ANSWER_BYTES, Answer
from lablet_common.bus.line import AgentSilent, Line
from lablet_common.loads import Load
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

    async def info(self) -> RuntimeInfo:
        found = await self._ask("info", timeout=3.0)
        return RuntimeInfo(str(found["version"]), bool(found["ready"]))

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
        found = (await self._ask("labs"))["labs"].items()
        return {str(lab): str(title) for title, lab in found if str(lab) not in besides}

    async def import_lab(self, title: str, topology: bytes) -> str:
        return str((await self._ask("import", title=title, manifest=topology.decode()))["lab"])

    async def start(self, lab: str) -> None:
        await self._ask("start", lab=lab, timeout=_START_SECONDS)

    async def progress(self, lab: str) -> LabProgress:
        record = await self._ask("progress", lab=lab)
        phases = {str(node["name"]): str(node["phase"]) for node in record["nodes"]}
        codes = {str(node["name"]): node["exit_code"] for node in record["nodes"]}
        completed = record["phase"] == "completed"
        return LabProgress(
            converged=completed or (record["phase"] == "running" and all(phase in _UP for phase in phases.values())),
            stopped=bool(record["stopped"]),
            nodes=phases,
            completed=completed,
            exit_code=record["exit_code"],
            failed=_failure(record, codes),
        )

    async def configurations(self, lab: str) -> Mapping[str, bytes]:
        record = await self._ask("progress", lab=lab)
        files: dict[str, bytes] = {}
        nodes: dict[str, Any] = {}
        for node in record["nodes"]:
            name = str(node["name"])
            start, files[f"{name}.log"] = await self._output(lab, name)
            nodes[name] = {
                "phase": node["phase"],
                "exitCode": node["exit_code"],
                "restarts": node["restarts"],
                "message": node["message"],
                "outputFrom": start,
            }
        result = {"phase": record["phase"], "exitCode": record["exit_code"], "nodes": nodes}
        files["result.json"] = json.dumps(result, indent=1).encode()
        return files

    async def _output(self, lab: str, node: str) -> tuple[int, bytes]:
        """What is kept of a node's output, and the position at which that begins."""
        position, begin = 0, None
        parts: list[bytes] = []
        while True:
            found = await self._ask("output", lab=lab, node=node, position=position, limit=MOST_ANSWER_BYTES // 2)
            data = base64.b64decode(found["data"])
            begin = int(found["start"]) if begin is None else begin
            if not data:
                return begin, b"".join(parts)
            parts.append(data)
            position = int(found["start"]) + len(data)

    async def export(self, lab: str) -> bytes:
        return str((await self._ask("export", lab=lab))["manifest"]).encode()

    async def stop(self, lab: str) -> None:
        await self._ask("stop", lab=lab, timeout=_STOP_SECONDS)

    async def remove(self, lab: str) -> None:
        await self._ask("remove", lab=lab)

    async def close(self) -> None:
        return None


def _failure(record: Mapping[str, Any], codes: Mapping[str, int | None]) -> str:
    """Why a lab that was to run until its slot's end never will; empty while it may."""
    if record["phase"] == "completed" or record["ends"]:
        return ""
    bad = {name: code for name, code in codes.items() if code}
    skipped = [str(node["name"]) for node in record["nodes"] if node["phase"] == "SKIPPED"]
    ended = [
        f"{n['name']} ended with {bad[n['name']]}"
        for n in record["nodes"]
        if n["phase"] == "EXITED" and n["name"] in bad
    ]
    return "; ".join([*ended, *(f"{name} could not start" for name in skipped)])
