"""A host's labs on real processes: a driver on a folder of its own, with a permission that the test holds."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lablet_common.process_lab import ProcessLab, SeatLab, render
from lablet_common.testing.etcd import free_ports
from lablet_workers.agent import permission
from lablet_workers.agent.child import LAB_VARIABLE
from lablet_workers.agent.driver import Account, ProcessDriver
from lablet_workers.agent.plan import LabRecord
from lablet_workers.agent.procfs import marked

PYTHON = sys.executable


@dataclass
class Host:
    """The driver and the words of a test."""

    root: Path
    account: Account | None = None
    driver: ProcessDriver = field(init=False)
    labs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = self.new_driver()
        self.permit(60)

    @property
    def permission(self) -> Path:
        return self.root / "permission.json"

    def new_driver(self) -> ProcessDriver:
        """Also what an agent that is started anew has."""
        return ProcessDriver(self.root / "labs", self.permission, self.account, grace_seconds=1.0)

    def permit(self, seconds: float) -> None:
        permission.write_permission(self.permission, permission.Permission("e1", permission.now() + seconds))

    async def bring(self, name: str, *nodes: dict[str, Any], **more: Any) -> str:
        """Imports a lab; ports are found."""
        made = ProcessLab.model_validate({"kind": "ProcessLab", "nodes": list(nodes), **more})
        ports = dict(zip([port.name for port in made.ports], free_ports(len(made.ports)), strict=True))
        seat = render(made, ports, seat=1, user="ada", worker="host")
        lab = await self.driver.import_lab(name, SeatLab.model_validate_json(seat.to_json()))
        self.labs.append(lab)
        return lab

    async def run(self, name: str, *nodes: dict[str, Any], **more: Any) -> str:
        lab = await self.bring(name, *nodes, **more)
        await self.driver.start(lab)
        return lab

    async def until(self, lab: str, condition: Callable[[LabRecord], Any], seconds: float = 10) -> LabRecord:
        deadline = time.monotonic() + seconds
        while not condition(record := self.driver.record(lab)):
            assert time.monotonic() < deadline, record
            await asyncio.sleep(0.01)
        return record

    async def over(self, lab: str, seconds: float = 10) -> LabRecord:
        return await self.until(lab, lambda record: record.over, seconds)

    def said(self, lab: str, node: str) -> str:
        return self.driver.output(lab, node, 0, 1_000_000).data.decode()

    def left(self, lab: str) -> list[int]:
        """Processes of the lab, its supervisor too."""
        return marked(LAB_VARIABLE, lab)

    async def gone(self, lab: str, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while left := self.left(lab):
            assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
            await asyncio.sleep(0.01)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.driver.stop_everything()
    assert not [pid for lab in made.labs for pid in made.left(lab)]


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run labs as another user")


def sh(command: str, name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "command": command} | more
