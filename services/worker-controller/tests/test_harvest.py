"""What a lab gives away at its end, node by node: one that refuses costs its own files alone, and everything is on record."""

import json
from typing import Any

import pytest

from lablet_common.objects import get_content
from lablet_common.resources.definition import CollectKind
from lablet_workers.harvest import REPORT, Harvest, NodeHarvest, harvest
from lablet_workers.instances.ending import COLLECTION_INCOMPLETE
from lablet_workers.runtimes.memory import MemoryLab, MemoryRuntime
from lablet_workers.runtimes.port import LabMissing, RuntimeFault, RuntimeUnavailable

BOTH = (CollectKind.CONFIGURATIONS, CollectKind.CONSOLES)


@pytest.fixture
def runtime() -> MemoryRuntime:
    lab = MemoryLab("lab", "ins-a-1", b"", running=True)
    lab.configurations = {"r1": b"hostname r1\n", "r2": b"hostname r2\n"}
    lab.console_logs = {"r1": b"r1> enable\n"}
    return MemoryRuntime(lab_by_id={"lab": lab})


def report(found: Harvest) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = json.loads(found.files()[REPORT])["nodes"]
    return nodes


async def test_every_node_gives_its_configuration_and_what_its_console_has_shown(runtime: MemoryRuntime) -> None:
    found = await harvest(runtime, "lab", BOTH)
    assert {name for name in found.files() if name != REPORT} == {"r1.cfg", "r1.console.txt", "r2.cfg"}
    assert found.files()["r1.console.txt"] == b"r1> enable\n"
    assert report(found) == [
        {"node": "r1", "configurations": "r1.cfg", "consoles": "r1.console.txt"},
        {"node": "r2", "configurations": "r2.cfg"},
    ]
    assert found.incomplete == ()


async def test_only_what_is_wanted_is_asked_for(runtime: MemoryRuntime) -> None:
    runtime.refusals["console_log r1"] = [RuntimeFault("never asked")]
    found = await harvest(runtime, "lab", (CollectKind.CONFIGURATIONS, CollectKind.EXPORT))
    assert set(found.files()) == {"r1.cfg", "r2.cfg", REPORT}


async def test_a_node_that_refuses_costs_its_own_files_alone_and_says_why(runtime: MemoryRuntime) -> None:
    runtime.refusals["configuration r1"] = [RuntimeFault("the node is DISCONNECTED")]
    found = await harvest(runtime, "lab", BOTH)
    assert found.incomplete == ("r1",)
    assert not found.may_improve
    assert set(found.files()) == {"r1.console.txt", "r2.cfg", REPORT}
    assert report(found)[0]["faults"] == {"configurations": "the node is DISCONNECTED"}


async def test_labels_that_come_to_one_file_name_are_numbered() -> None:
    nodes = tuple(NodeHarvest(label, {CollectKind.CONFIGURATIONS: label.encode()}) for label in ("r/1", "r 1", "r_1"))
    files = Harvest(nodes).files()
    assert [files[name] for name in ("r_1.cfg", "r_1-2.cfg", "r_1-3.cfg")] == [b"r/1", b"r 1", b"r_1"]


async def test_a_lab_that_is_gone_is_no_refusal_of_its_nodes(runtime: MemoryRuntime) -> None:
    runtime.refusals["configuration r2"] = [LabMissing("no lab")]
    with pytest.raises(LabMissing):
        await harvest(runtime, "lab", BOTH)


async def test_a_runtime_without_single_nodes_gives_its_configurations_as_a_whole() -> None:
    class Whole:
        file_suffix = ".log"

        async def configurations(self, lab: str) -> dict[str, bytes]:
            return {"main": lab.encode()}

    whole: Any = Whole()
    assert set((await harvest(whole, "lab", BOTH)).files()) == {"main.log", REPORT}
    assert (await harvest(whole, "lab", (CollectKind.CONSOLES,))).files() == {}


async def test_a_fault_that_stays_is_named_in_the_instance_and_the_rest_is_kept(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    (lab,) = fleet.runtime().lab_by_id.values()
    lab.configurations = {"r1": b"hostname r1\n", "r2": b"hostname r2\n"}
    fleet.runtime().refusals["configuration r1"] = [RuntimeFault("the node is STOPPED")]
    await fleet.at(121)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert done.status.condition(COLLECTION_INCOMPLETE).message == f"not everything of r1: see {REPORT}"
    kept = {ref.name: ref.digest for ref in done.status.artifacts if ref.role == "collected"}
    assert set(kept) == {"r2.cfg", REPORT}
    told = json.loads(await get_content(fleet.objects, "default", kept[REPORT]))
    assert told["nodes"][0] == {"node": "r1", "faults": {"configurations": "the node is STOPPED"}}


async def test_a_node_that_is_silent_for_a_while_is_asked_again(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    fleet.runtime().refusals["configuration r1"] = [RuntimeUnavailable("500"), RuntimeUnavailable("500")]
    await fleet.at(122)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert done.status.condition(COLLECTION_INCOMPLETE) is None
    assert "r1.cfg" in {ref.name for ref in done.status.artifacts}


async def test_a_node_that_stays_silent_does_not_cost_the_work_of_the_others(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(119)
    (lab,) = fleet.runtime().lab_by_id.values()
    lab.configurations = {"r1": b"hostname r1\n", "r2": b"hostname r2\n"}
    fleet.runtime().refusals["configuration r1"] = [RuntimeUnavailable("500")] * 10_000
    await fleet.at(125)
    assert await fleet.phase() == "Collecting", "it may still answer"
    await fleet.at(180)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert {ref.name for ref in done.status.artifacts if ref.role == "collected"} == {"r2.cfg", REPORT}
    assert done.status.condition(COLLECTION_INCOMPLETE) is not None
