"""A worker whose host nobody can switch off: what ran there is ended on it, or an operator says that it is off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lablet_workers.providers.static import StaticProvider
from lablet_workers.runtimes.memory import MemoryRuntime

HOST = "http://10.9.9.1"


@pytest.fixture
async def rack(fresh: Callable[[], Any], tmp_path: Path) -> Any:
    """A pool with one static host for its one worker; `rack.hosts` is its file."""
    fleet = fresh()
    fleet.hosts = tmp_path / "hosts.yaml"
    fleet.hosts.write_text(f"hosts: [{{worker: default-001, url: '{HOST}'}}]")
    fleet.provider = StaticProvider(fleet.hosts)
    fleet.runtimes.by_url[HOST] = MemoryRuntime()
    await fleet.seed(max=1)
    await fleet.define()
    await fleet.start()
    return fleet


def host(rack: Any) -> MemoryRuntime:
    found: MemoryRuntime = rack.runtimes.by_url[HOST]
    return found


async def test_a_lab_runs_on_it_and_the_host_is_left_on_with_its_licence(rack: Any) -> None:
    await rack.book("a", 60, 120)
    await rack.at(70)
    assert await rack.phase() == "Running"
    await rack.at(150)
    assert (await rack.worker()).phase == "Offline"
    assert host(rack).registration == "COMPLETED"
    await rack.book("b", 200, 240)
    await rack.at(205)
    assert await rack.phase("b") == "Running"


async def test_a_silent_host_is_never_taken_for_off_until_an_operator_says_so(rack: Any) -> None:
    await rack.book("a", 60, 300)
    await rack.at(70)
    host(rack).up = False
    await rack.at(200)
    worker, instance = await rack.worker(), await rack.instance()
    assert worker.phase == "Terminating"
    assert (instance.phase, instance.status.released) == ("Failed", False), "it may still run there"
    rack.hosts.write_text(f"hosts: [{{worker: default-001, url: '{HOST}', off: true}}]")
    await rack.at(205)
    assert "CleanedUp" in [move.reason for move in (await rack.worker()).status.history]
    assert (await rack.instance()).status.released


async def test_a_host_that_answers_again_is_emptied_of_our_labs_only_and_used_again(rack: Any) -> None:
    await rack.book("a", 60, 300)
    await rack.at(70)
    theirs = await host(rack).import_lab("somebody's own", b"x")
    await host(rack).start(theirs)
    host(rack).up = False
    await rack.at(100)
    assert (await rack.worker()).phase == "Terminating"
    host(rack).up = True
    await rack.at(115)
    assert (await rack.worker()).phase == "Ready", "the password that was set before still opens"
    assert await rack.phase() == "Running"
    assert host(rack).lab_by_id[theirs].running
    assert len(host(rack).lab_by_id) == 2
    assert rack.imports == ["ins-a-1", "somebody's own", "ins-a-1"]


async def test_a_worker_without_a_host_waits_and_has_failed_by_its_deadline(rack: Any) -> None:
    rack.hosts.write_text("hosts: []")
    await rack.book("a", 60, 120)
    await rack.at(50)
    assert (await rack.worker()).phase == "Provisioning"
    await rack.at(90)
    assert "DeadlineMissed" in [move.reason for move in (await rack.worker()).status.history]
