"""What a running lab gives away before it is stopped: configurations and console logs, node by node.

A node that refuses costs its own files and nothing else: what each node gave, and why it gave nothing, stands in a report
beside the files. Nodes without a console or a configuration (a switch, a cable) are no fault. Whether a fault is worth
waiting for is the caller's to say; asking again is harmless.

Not guaranteed: one instant for all nodes. They are asked a few at a time while the lab runs.
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lablet_common.resources.definition import CollectKind
from lablet_workers.runtimes.port import LabMissing, LabNode, NodeByNode, Runtime, RuntimeFault, RuntimeUnavailable
from lablet_workers.staging import safe_name

REPORT = "collection.json"
_AT_ONCE = 8
_ENDINGS: Mapping[CollectKind, str] = {CollectKind.CONFIGURATIONS: ".cfg", CollectKind.CONSOLES: ".console.txt"}


@dataclass(frozen=True, slots=True)
class NodeHarvest:
    """What one node gave: file names by kind, and why something is missing."""

    node: str
    files: dict[CollectKind, bytes] = field(default_factory=dict)
    faults: dict[CollectKind, str] = field(default_factory=dict)
    unavailable: bool = False
    """A fault may be over in a moment."""


@dataclass(frozen=True, slots=True)
class Harvest:
    """What the nodes gave, in the lab's order."""

    nodes: tuple[NodeHarvest, ...]
    endings: Mapping[CollectKind, str] = field(default_factory=lambda: _ENDINGS)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Labels of the nodes that have not given everything they have."""
        return tuple(one.node for one in self.nodes if one.faults)

    @property
    def may_improve(self) -> bool:
        return any(one.unavailable for one in self.nodes)

    def files(self) -> dict[str, bytes]:
        """Content by file name, with the report; empty when there is nothing to tell."""
        found: dict[str, bytes] = {}
        entries = []
        for one in self.nodes:
            entry: dict[str, Any] = {"node": one.node}
            for kind, data in one.files.items():
                name = _free_name(one.node, self.endings[kind], found)
                found[name] = data
                entry[kind.value] = name
            if one.faults:
                entry["faults"] = {kind.value: reason for kind, reason in one.faults.items()}
            entries.append(entry)
        if found or self.incomplete:
            found[REPORT] = json.dumps({"nodes": entries}, indent=1).encode()
        return found


async def harvest(runtime: Runtime, lab: str, wanted: Collection[CollectKind]) -> Harvest:
    """Asks every node for what is wanted. Raises `LabMissing`, and `RuntimeUnavailable` when not even the nodes can be
    listed."""
    kinds = [kind for kind in _ENDINGS if kind in wanted]
    if not isinstance(runtime, NodeByNode):
        if CollectKind.CONFIGURATIONS not in kinds:
            return Harvest(())
        given = await runtime.configurations(lab)
        nodes = tuple(NodeHarvest(node, {CollectKind.CONFIGURATIONS: text}) for node, text in given.items())
        return Harvest(nodes, {CollectKind.CONFIGURATIONS: runtime.file_suffix})
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(node: LabNode) -> NodeHarvest:
        async with gate:
            return await _ask(runtime, lab, node, kinds)

    return Harvest(tuple(await asyncio.gather(*(ask(node) for node in await runtime.nodes(lab)))))


async def _ask(runtime: NodeByNode, lab: str, node: LabNode, kinds: Sequence[CollectKind]) -> NodeHarvest:
    files: dict[CollectKind, bytes] = {}
    faults: dict[CollectKind, str] = {}
    unavailable = False
    for kind in kinds:
        call = runtime.configuration if kind is CollectKind.CONFIGURATIONS else runtime.console_log
        try:
            data = await call(lab, node)
        except LabMissing:
            raise
        except RuntimeFault as fault:
            faults[kind] = str(fault)
            unavailable = unavailable or isinstance(fault, RuntimeUnavailable)
        else:
            if data:
                files[kind] = data
    return NodeHarvest(node.label, files, faults, unavailable)


def _free_name(label: str, ending: str, taken: Collection[str]) -> str:
    """The label as a file name; labels that come to the same name are numbered."""
    stem, count = safe_name(label), 1
    name = f"{stem}{ending}"
    while name in taken:
        count += 1
        name = f"{stem}-{count}{ending}"
    return name
