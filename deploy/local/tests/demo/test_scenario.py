"""The morning as data, its fleet and its recorder."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from lablet_common.store import MemoryStore
from lablet_local.cli import app
from lablet_local.cloud.sizes import read_sizes
from lablet_local.demo.console import knock, type_into
from lablet_local.demo.fleet import WORKERS, NoPorts, free_block, write_templates
from lablet_local.demo.record import Recorder
from lablet_local.demo.run import SPEED
from lablet_local.demo.scenario import AGENTS, EXAM, LABS, NOTEBOOK, OSPF, POOL, VLAN, morning

NODES = {OSPF: 3, VLAN: 6, EXAM: 4}


def test_a_seed_gives_the_same_morning_and_another_one_another() -> None:
    assert morning(1) == morning(1)
    assert morning(1) != morning(2)


@pytest.mark.parametrize("seed", range(20))
def test_every_morning_has_what_it_must_show(seed: int) -> None:
    plan = morning(seed)
    by_name = {one.name: one for one in plan.bookings}
    assert len(by_name) == len(plan.bookings)
    assert {one.definition for one in plan.bookings} == {*LABS, NOTEBOOK}
    assert {one.pool for one in plan.bookings if one.definition == NOTEBOOK} == {AGENTS}
    assert {one.pool for one in plan.bookings if one.definition != NOTEBOOK} == {POOL}
    assert all(one.pool == AGENTS for one in plan.bookings if one.seats == 1), "whoever books alone is on an agent"
    assert by_name["class"].seats == 20
    assert by_name["exam"].seats == 12
    assert by_name["hackathon"].seats * NODES[EXAM] > WORKERS * 20, "it can never fit"
    assert by_name[plan.cancelled].seats == by_name["study-group"].seats
    late = [one for one in plan.bookings if one.during_failover]
    assert len(late) >= 3
    assert all(one.end > one.start > one.asked + 18 for one in plan.bookings), "there is time to start a worker"
    ran = [one for one in plan.bookings if one.name not in ("hackathon", "second-class", plan.cancelled)]
    assert sum(one.seats for one in ran) >= 40


def test_the_help_tells_the_speed_at_which_it_runs() -> None:
    group: Any = typer.main.get_command(app)
    (speed,) = [one for one in group.commands["demo"].params if one.name == "speed"]
    assert f"[default: {SPEED:g}]" in speed.help


def test_ports_that_something_listens_on_are_left_out() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NoPorts):
            free_block(port, port, 1)


def test_the_fleets_file_is_one_that_the_mesh_reads(tmp_path: Path) -> None:
    path = write_templates(tmp_path / "deep" / "workers.yaml")
    described = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert described["pools"][0]["max"] == WORKERS
    ports = described["templates"][0]["port_range"]
    assert ports["end"] - ports["start"] == 199
    assert read_sizes(path)["sim.large"].memory_gb == 64


async def test_the_recorder_has_what_stands_and_what_stood() -> None:
    store, recorder = MemoryStore(), Recorder()
    seen: list[str] = []
    recorder.listen(lambda commit: seen.append(commit.key))
    await store.put("/reservations/a", b'{"status": {"phase": "Pending"}}')
    await store.put("/ownership/x", b"scheduler-1")
    await store.delete("/reservations/a")
    following = asyncio.create_task(recorder.follow(store))
    async with asyncio.timeout(5):
        while len(seen) < 3:
            await recorder.news()
    following.cancel()
    assert seen == ["/reservations/a", "/ownership/x", "/reservations/a"]
    assert recorder.present == {"/ownership/x": "scheduler-1"}
    assert recorder.of("/reservations/") == []


async def test_a_port_that_does_not_answer_is_a_finding() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    visit = await knock("ins-a-1", "r1_serial", "127.0.0.1", port)
    assert not visit.answered
    assert visit.note


async def test_typing_waits_for_the_prompt_after_each_line() -> None:
    heard: list[bytes] = []

    async def console(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(b"R1#")
        writer.close()

    async with await asyncio.start_server(console, "127.0.0.1", 0) as server:
        said = await type_into("127.0.0.1", server.sockets[0].getsockname()[1], "configure terminal")
    assert heard == [b"\r\n", b"configure terminal\r\n"]
    assert said == "R1#R1#"
