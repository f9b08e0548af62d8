"""What a process lab's nodes have written: from the agent while the lab is on its host, afterwards from what was collected.

Positions count from a node's first byte. What its host no longer keeps is skipped, and the answer begins further on. The two
places tell the same bytes, so a reader may go on from one in the other.
"""

import base64
import json
from typing import Any

from pydantic import ValidationError

from lablet_common.agents import Piece
from lablet_common.bus.line import AgentSilent, Line
from lablet_common.objects import ObjectMissing, get_content
from lablet_common.process_lab import RUNTIME
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import WORKER
from lablet_common.resources.model import Model
from lablet_common.resources.worker import Worker
from lablet_gateway import problems
from lablet_gateway.parts import Parts

RESULT = "result.json"
_SLACK_SECONDS = 5.0
_BEFORE = (InstancePhase.PENDING,)


class Output(Model):
    """A part of a node's output: from `start` up to `next`."""

    instance: str
    node: str
    start: int
    next: int
    over: bool
    """The lab has ended: what comes after `next` is all there will be."""
    data: str
    """Bytes, in base64."""


async def read(parts: Parts, instance: Instance, node: str | None, position: int, limit: int, wait: float) -> Output:
    """Waits up to `wait` seconds for something new. Raises 404 for an unknown node, 409 for a lab of devices, 422 where there
    are several nodes and none is named, 503 while its agent is silent."""
    if node is None:
        labels = [known.label for known in instance.status.nodes]
        if len(labels) > 1:
            raise problems.invalid("node", f"there are several: {', '.join(labels)}", "name one of them")
        node = labels[0] if labels else ""
    stored = {ref.name: ref.digest for ref in instance.status.artifacts if ref.role == "collected"}
    if f"{node}.log" in stored:
        return await _collected(parts, instance, node, stored, position, limit)
    lab = instance.status.lab
    _must_write(parts, instance)
    if lab is None or not node or instance.is_final or instance.status.phase in _BEFORE or parts.line is None:
        over = instance.is_final
        return Output(instance=instance.id, node=node, start=position, next=position, over=over, data="")
    return await _living(parts.line, instance, lab.worker, lab.id, node, position, limit, wait)


def _must_write(parts: Parts, instance: Instance) -> None:
    """Raises 409 where the host is known and runs devices: no agent is there that could be asked."""
    host = parts.caches[WORKER].get(instance.spec.worker)
    if isinstance(host, Worker) and host.spec.runtime != RUNTIME:
        raise problems.CONFLICT(f"{instance.id} is a lab of devices, and those write to their consoles: see its access")


async def _living(
    line: Line, instance: Instance, worker: str, lab: str, node: str, position: int, limit: int, wait: float
) -> Output:
    words: dict[str, Any] = {"lab": lab, "node": node, "position": position, "limit": limit, "wait": wait}
    try:
        answer = await line.ask(worker, "output", timeout=wait + _SLACK_SECONDS, **words)
    except AgentSilent as error:
        raise problems.UNAVAILABLE(f"{error}: its lab may run all the same", dependency="agent") from error
    if answer.fault == "missing":
        raise problems.NOT_FOUND(answer.message, kind="node", id=node)
    if answer.fault:
        raise problems.UNAVAILABLE(answer.message, dependency="agent")
    try:
        found = Piece.model_validate(answer.data, extra="ignore")
    except ValidationError as error:
        raise problems.UNAVAILABLE(
            f"the agent {worker} answers what cannot be read: its lab may run all the same", dependency="agent"
        ) from error
    following = found.start + len(found.content)
    # what is over may still have more to read than fits into one answer
    over = found.over and following == found.start
    return Output(instance=instance.id, node=node, start=found.start, next=following, over=over, data=found.data)


async def _collected(
    parts: Parts, instance: Instance, node: str, stored: dict[str, str], position: int, limit: int
) -> Output:
    try:
        content = await get_content(parts.objects, instance.tenant, stored[f"{node}.log"])
        result = json.loads(await get_content(parts.objects, instance.tenant, stored[RESULT]))
    except (ObjectMissing, KeyError) as error:
        raise problems.NOT_FOUND(f"the output of {node} is no longer kept", kind="node", id=node) from error
    begin = int(result["nodes"][node]["outputFrom"])
    start = max(position, begin)
    data = content[start - begin : start - begin + limit]
    following = start + len(data)
    over = following >= begin + len(content)
    return Output(
        instance=instance.id,
        node=node,
        start=start,
        next=following,
        over=over,
        data=base64.b64encode(data).decode(),
    )
