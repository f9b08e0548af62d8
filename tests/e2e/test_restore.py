"""In the middle of a day everything that etcd and JetStream hold is lost, and comes back with the product's own commands as
it was some time before; machines and labs went on meanwhile. The mesh finds them again and the day comes to its end.

Judged by the demo's checks and those of fault runs, on etcd's history since the restore and the simulators' own logs since
the morning.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lablet_local.chaos.checks import at_rest, one_outcome, under_way
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.machines import one_machine_a_worker
from lablet_local.chaos.run import gather
from lablet_local.chaos.seats import none_given_up
from lablet_local.demo.checks import ground, stream
from lablet_local.demo.checks.store import never_double_booked
from lablet_local.demo.evidence import Evidence, read_present
from lablet_local.mesh import LocalMesh

pytestmark = [pytest.mark.mesh, pytest.mark.long, pytest.mark.timeout(300)]

SPEED = 240.0
SERVICES = ("api-gateway-1", "scheduler-1", "worker-controller-1", "artifact-service-1")
STORES = ("nats", "etcd")
CONVERGE_SECONDS = 90.0


async def lablet(mesh: LocalMesh, *arguments: str) -> str:
    """As an operator types it on the mesh's machine."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LABLET_", "NATS_", "ETCD_"))
    }
    run = await asyncio.to_thread(
        subprocess.run,
        [str(Path(sys.executable).with_name("lablet")), *arguments],
        env=environment | {"LABLET_CONNECTION": str(mesh.connection)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class Day:
    """What was booked, by what becomes of it."""

    def __init__(self, door: Any) -> None:
        self.door = door
        self.booked: dict[str, str] = {}

    async def book(self, name: str, lead: int, minutes: int, seats: int = 1) -> None:
        """Raises `AssertionError` unless it gets its place at once."""
        slot = await self.door.slot(lead, minutes)
        answer = await self.door.reserve({"definition": "ospf-basics", "seats": seats, **slot})
        assert answer.status_code == 201, answer.text
        assert answer.json()["status"]["phase"] == "Scheduled"
        self.booked[name] = answer.json()["metadata"]["id"]

    def path(self, name: str) -> str:
        return f"/reservations/{self.booked[name]}"

    async def until(self, name: str, *phases: str) -> Any:
        return await self.door.until_phase(self.path(name), *phases, seconds=60)

    async def running(self, name: str) -> None:
        """All labs of it run."""
        reservation = await self.door.get(self.path(name))
        for seat in reservation["status"]["placement"]:
            await self.door.until_phase(f"/instances/{seat['instance']}", "Running", seconds=60)

    def labs(self, name: str, machines: tuple[Any, ...]) -> list[ground.Run]:
        """The lives of its labs, as the simulators saw them."""
        title = self.booked[name].replace("rsv-", "ins-")
        seen = ground.read(Evidence(machines=machines)).runs
        return [run for run in seen if run.title.rpartition("-")[0] == title]


@contextlib.asynccontextmanager
async def written_down(mesh: LocalMesh) -> AsyncIterator[Chronicle]:
    chronicle = Chronicle(mesh.members.etcd_endpoints)
    writing = asyncio.create_task(chronicle.run())
    try:
        yield chronicle
    finally:
        writing.cancel()
        await asyncio.wait({writing})


async def evidence_at_the_end(mesh: LocalMesh, chronicle: Chronicle) -> Evidence:
    """Waits until nothing is under way any more, and reads it all."""
    async with asyncio.timeout(CONVERGE_SECONDS):
        while any(under_way(Evidence(present=await read_present(mesh.etcd_endpoint)))):
            await asyncio.sleep(0.5)
    return await gather(mesh, chronicle)


async def test_a_day_goes_on_from_a_backup_with_what_really_runs(
    tmp_path: Path, open_door: Callable[[LocalMesh, float], Any]
) -> None:
    saved = tmp_path / "backup"
    async with LocalMesh(tmp_path / "mesh", speed=SPEED) as mesh:
        day = Day(await open_door(mesh, SPEED))
        await day.door.publish("ospf-basics")
        await day.book("long", lead=25, minutes=240, seats=2)
        await day.book("short", lead=25, minutes=35)
        await day.book("next", lead=60, minutes=200)
        await day.book("cancelled", lead=70, minutes=200)
        await day.book("late", lead=200, minutes=30)
        await asyncio.gather(day.running("long"), day.running("short"))

        assert "resources and settings of revision" in await lablet(mesh, "admin", "backup", str(saved))
        streams = json.loads((saved / "streams.json").read_text())
        told = json.loads((saved / "backup.json").read_text())["told"]
        assert {"reservation", "instance"} <= told.keys()
        assert 0 < max(one["message"] for one in told.values()) <= streams["EVENTS"]["last"]

        await day.book("forgotten", lead=20, minutes=200)
        await day.door.call("DELETE", day.path("cancelled"), headers={"if-match": "*"})
        await day.until("cancelled", "Cancelled")
        await day.until("short", "Completed")
        await asyncio.gather(day.running("next"), day.running("forgotten"))

        await asyncio.gather(*map(mesh.stop_process, SERVICES))
        await asyncio.gather(*map(mesh.stop_process, STORES))
        shutil.rmtree(mesh.folder.etcd / "data")
        shutil.rmtree(mesh.folder.nats / "store")
        await asyncio.gather(*map(mesh.resume_process, STORES))
        async with written_down(mesh) as chronicle:
            assert "resources and settings restored" in await lablet(mesh, "admin", "restore", str(saved))
            before = tuple(await mesh.witness())
            assert all(day.labs(name, before) for name in ("long", "short", "next", "forgotten"))
            assert [run.end is None for run in day.labs("long", before)] == [True, True], "labs went on meanwhile"
            await asyncio.gather(*map(mesh.resume_process, SERVICES))
            assert (await day.door.call("GET", day.path("forgotten"))).status_code == 404
            await day.book("new", lead=15, minutes=30)
            await asyncio.gather(day.running("long"), day.running("next"))
            for name in day.booked.keys() - {"forgotten"}:
                await day.until(name, "Completed", "Cancelled", "Failed", "Expired")
            evidence = await evidence_at_the_end(mesh, chronicle)
    found = ground.read(evidence)
    checks = [
        one_outcome(evidence),
        at_rest(evidence),
        none_given_up(evidence),
        never_double_booked(evidence),
        *ground.never_doubled(evidence, found),
        one_machine_a_worker(evidence),
        *stream.checks(evidence),
    ]
    for check in checks:
        print(f"{'ok' if check.ok else 'NOT'} {check.source}: {check.claim}: {check.detail}")
    assert [f"{check.claim}: {check.detail}" for check in checks if not check.ok] == []
    starts = {name: len(day.labs(name, evidence.machines)) for name in day.booked}
    print(starts)
    assert starts == {"long": 2, "short": 1, "next": 1, "cancelled": 1, "late": 1, "forgotten": 1, "new": 1}, (
        "each lab once"
    )
    (orphan,) = day.labs("forgotten", evidence.machines)
    assert orphan.end is not None
    for name in ("long", "next", "cancelled", "late", "new"):
        assert evidence.present[f"/reservations/{day.booked[name]}"]["status"]["phase"] == "Completed", name
