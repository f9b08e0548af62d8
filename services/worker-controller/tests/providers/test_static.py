"""Hosts that already exist: nobody switches them on or off from here, and only an operator's word says that one is off."""

from pathlib import Path

import pytest

from lablet_workers.providers.hosts import HostsError, HostsFile
from lablet_workers.providers.port import InsufficientCapacity, LaunchOrder, MachineState, NotFound, ProviderUnavailable
from lablet_workers.providers.static import StaticProvider

FIRST = "https://10.0.0.11"


def order(worker: str = "default-001") -> LaunchOrder:
    return LaunchOrder("t", worker, "rack", tags={"lablet-worker": worker})


async def test_a_worker_gets_the_host_that_the_file_names_for_it(hosts_file: Path) -> None:
    provider = StaticProvider(hosts_file)
    second = await provider.launch(order("default-002"))
    assert (second.id, second.url, second.host) == ("https://10.0.0.12", "https://10.0.0.12", "labs-12.test")
    assert (await provider.launch(order())).host == "10.0.0.11"
    with pytest.raises(InsufficientCapacity, match="gives no host to worker default-003"):
        await provider.launch(order("default-003"))


async def test_a_host_runs_until_an_operator_says_otherwise_and_again_when_he_takes_it_back(hosts_file: Path) -> None:
    provider = StaticProvider(hosts_file)
    await provider.launch(order())
    assert (await provider.describe(FIRST)).state is MachineState.RUNNING
    hosts_file.write_text(f"hosts: [{{worker: default-001, url: '{FIRST}', off: true}}]")
    said = await provider.describe(FIRST)
    assert (said.state, said.reason) == (MachineState.STOPPED, "the operator says that it is off")
    with pytest.raises(InsufficientCapacity, match="operator says"):
        await provider.start(FIRST)
    with pytest.raises(InsufficientCapacity, match="operator says"):
        await provider.launch(order())
    hosts_file.write_text(f"hosts: [{{worker: default-001, url: '{FIRST}'}}]\n")
    assert (await provider.launch(order())).state is MachineState.RUNNING


async def test_a_host_that_is_named_no_more_is_gone(hosts_file: Path) -> None:
    provider = StaticProvider(hosts_file)
    await provider.launch(order())
    hosts_file.write_text("hosts: []")
    with pytest.raises(NotFound, match="names no host"):
        await provider.describe(FIRST)


async def test_a_file_that_cannot_be_read_says_nothing_about_hosts(hosts_file: Path) -> None:
    provider = StaticProvider(hosts_file)
    await provider.launch(order())
    hosts_file.write_text("hosts: [{worker: default-001")
    with pytest.raises(ProviderUnavailable, match="is not YAML"):
        await provider.describe(FIRST)
    hosts_file.unlink()
    with pytest.raises(ProviderUnavailable, match="STATIC_HOSTS_FILE"):
        await provider.find({})
    with pytest.raises(ProviderUnavailable, match="STATIC_HOSTS_FILE is not set"):
        await StaticProvider(None).launch(order())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts: [{worker: a, url: 10.0.0.1}]", "hosts.0.url: .*give the whole address"),
        ("hosts: [{worker: a, url: 'https://x', colour: red}]", "hosts.0.colour"),
        (
            "hosts: [{worker: a, url: 'https://x'}, {worker: a, url: 'https://y'}]",
            "worker a stands there more than once",
        ),
        ("hosts: [{worker: a, url: 'https://x'}, {worker: b, url: 'https://x'}]", "url https://x stands there more"),
    ],
)
def test_a_field_at_fault_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    with pytest.raises(HostsError, match=said):
        HostsFile(path).hosts()
