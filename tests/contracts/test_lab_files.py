"""Every lab file goes the whole way: read and rendered by the one service, imported by the adapter of the other into the
simulated controller, with the ports where the seat expects them."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lablet_artifacts.publishing import infer_spec
from lablet_artifacts.topology import find_ports, read_topology, render
from lablet_workers.runtimes.cml import CmlRuntime, CmlRuntimes
from lablet_workers.runtimes.parts import parts_of

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "examples" / "labs").glob("*.yaml"), *(ROOT.parent / "shared" / "labs").glob("*.yaml")])
PASSWORD = "a-password-of-the-test"


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    secret = tmp_path_factory.mktemp("cml") / "password"
    secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
    command = [sys.executable, "-m", "lablet_local.cml", "--host", "127.3.9.2", "--port", "0", "--die-with-parent"]
    process = subprocess.Popen([*command, "--password-file", str(secret)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
async def runtime(controller: str) -> AsyncIterator[CmlRuntime]:
    opened = CmlRuntimes("admin").open(controller, PASSWORD)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_it_is_published_rendered_and_imported_with_all_its_nodes(runtime: CmlRuntime, path: Path) -> None:
    data = path.read_bytes()
    topology = read_topology(data)
    spec = infer_spec("lab", "1.0.0", data, {})
    ports = {port.name: 20_000 + at for at, port in enumerate(find_ports(topology))}
    assert [port.name for port in spec.ports] == list(ports)
    rendered = render(data, ports, {"SEAT": "1", "NAME": "ann", "HOST": "default-001"})
    lab = await runtime.import_lab(f"ins-{path.stem}-1", rendered)
    assert {node.label for node in await runtime.nodes(lab)} == {node.label for node in topology.nodes}
    exported = (await runtime.export(lab)).decode()
    assert all(str(port) in exported for port in ports.values())
    await runtime.remove(lab)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_lab_that_waited_becomes_the_same_as_one_that_was_imported_for_the_seat(
    runtime: CmlRuntime, path: Path
) -> None:
    data = path.read_bytes()
    ports = {port.name: 21_000 + at for at, port in enumerate(find_ports(read_topology(data)))}
    rendered = render(data, ports, {"SEAT": "2", "NAME": "bob", "HOST": "default-001"})
    waiting = await runtime.import_lab("warm-0-0", data)
    assert await runtime.adopt(waiting, f"ins-{path.stem}-2", rendered)
    fresh = await runtime.import_lab(f"ins-{path.stem}-3", rendered)
    labs = await runtime.labs()
    assert labs[waiting] == f"ins-{path.stem}-2"
    assert "warm-0-0" not in labs.values()
    wanted, adopted = parts_of(rendered), parts_of(await runtime.export(waiting))
    assert wanted.tags == adopted.tags == parts_of(await runtime.export(fresh)).tags
    assert wanted.shown_in(adopted)
    assert all(one in adopted.annotations for one in wanted.annotations), "with the looks that its author gave them"
    for lab in (waiting, fresh):
        await runtime.remove(lab)


async def test_a_lab_of_another_file_is_not_taken_for_a_seats(runtime: CmlRuntime) -> None:
    data = (ROOT / "examples" / "labs" / "ospf-basics.yaml").read_bytes()
    waiting = await runtime.import_lab("warm-0-0", data)
    assert not await runtime.adopt(waiting, "ins-a-1", data.replace(b"label: R2", b"label: R9"))
    assert (await runtime.labs())[waiting] == "warm-0-0"
    await runtime.remove(waiting)
