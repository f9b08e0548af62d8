"""The load of an agent of another release."""

from typing import Any

import pytest

from lablet_common.agents import Answer
from lablet_workers.runtimes.process import ProcessRuntime

USED = {"used": 1, "total": 2}
LOAD = {"cpuCores": USED, "memoryGb": USED, "storageGb": USED, "nodes": 3}


@pytest.mark.parametrize(("told", "nodes"), [(LOAD | {"gpus": 1}, 3), ({"cpu": "much"}, None)])
async def test_what_is_not_known_is_passed_over_and_what_cannot_be_read_is_no_load(
    told: Any, nodes: int | None
) -> None:
    class Told:
        async def ask(self, *_: Any, **__: Any) -> Answer:
            return Answer(data=told)

    line: Any = Told()
    load = await ProcessRuntime("w-1", line).load()
    assert (load.nodes if load is not None else None) == nodes
