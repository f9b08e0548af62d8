"""Three of etcd and of NATS: where they are, who leads, and that a folder stays with what it was begun with."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from lablet_local.binaries import Binary
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.members import MANY, Members, OtherShape, choose_count, leaders, member_of
from lablet_local.ports import PortBlock
from lablet_local.servers import Site, etcd_process

THREE = Members(PortBlock(7400), MANY)


def test_services_are_told_of_every_member_and_streams_are_kept_by_all() -> None:
    assert THREE.settings == {
        "ETCD_ENDPOINTS": "127.0.0.1:7402,127.0.0.1:7462,127.0.0.1:7472",
        "NATS_URL": "nats://127.0.0.1:7404,nats://127.0.0.1:7464,nats://127.0.0.1:7474",
        "NATS_REPLICAS": "3",
    }
    alone = Members(PortBlock(7400))
    assert alone.names("etcd") == ("etcd",)
    assert alone.settings["NATS_REPLICAS"] == "1"


async def test_etcd_keeps_few_changes_in_memory(tmp_path: Path) -> None:
    """The soak's find: half a gigabyte after half an hour, where etcd before 3.6 is left to itself."""
    folder = DataFolder(tmp_path)
    async with httpx.AsyncClient() as client:
        for members in (Members(PortBlock(7400)), THREE):
            site = Site(folder, members.ports, KeyRing(folder), client, members)
            command = etcd_process(site, Binary(Path("etcd"), "3.5.21", "")).argv
            assert "--snapshot-count=10000" in command


def test_no_two_things_share_a_port_with_three_members_and_all_replicas() -> None:
    services = dict.fromkeys(("api-gateway", "scheduler", "worker-controller", "artifact-service"), 9)
    block = PortBlock(7400)
    ports = [*block.needed(services, MANY), block.anchor]
    assert len(set(ports)) == len(ports)
    assert all(7400 <= port < 7500 for port in ports)


@pytest.mark.parametrize(
    ("process", "member"),
    [("etcd", ("etcd", 1)), ("nats-3", ("nats", 3)), ("s3", None), ("scheduler-2", None), ("etcd-x", None)],
)
def test_members_are_known_by_their_process(process: str, member: tuple[str, int] | None) -> None:
    assert member_of(process) == member


def test_a_folder_stays_with_what_it_was_begun_with(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert choose_count(folder, asked=False, chosen={}) == 1
    assert choose_count(folder, asked=True, chosen={"members": 1}) == MANY
    (folder.etcd / "data").mkdir(parents=True)
    assert choose_count(folder, asked=False, chosen={"members": 3}) == MANY
    assert choose_count(folder, asked=True, chosen={"members": 3}) == MANY
    assert choose_count(folder, asked=False, chosen={}) == 1
    with pytest.raises(OtherShape, match="begun with one etcd"):
        choose_count(folder, asked=True, chosen={})


def etcd_where(told: dict[int, tuple[str, str] | None]) -> httpx.AsyncClient:
    """Port → (own id, the leader's id as it holds); None: does not answer."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = told[request.url.port or 0]
        if found is None:
            raise httpx.ConnectError("down")
        return httpx.Response(200, json={"header": {"member_id": found[0]}, "leader": found[1]})

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("told", "leader"),
    [
        ({7402: ("1", "2"), 7462: ("2", "2"), 7472: ("3", "2")}, "etcd-2"),
        ({7402: ("1", "1"), 7462: ("2", "2"), 7472: ("3", "2")}, "etcd-2"),  # the first has been asleep
        ({7402: None, 7462: ("2", "3"), 7472: ("3", "3")}, "etcd-3"),
        ({7402: None, 7462: None, 7472: ("3", "3")}, None),  # one alone does not decide
        ({7402: ("1", "0"), 7462: ("2", "0"), 7472: None}, None),  # they elect
    ],
)
async def test_the_leader_of_etcd_is_who_a_majority_holds_for_it(told: Any, leader: str | None) -> None:
    async with etcd_where(told) as client:
        assert await THREE.etcd_leader(client) == leader


async def test_the_leader_of_a_stream_is_told_by_the_first_server_that_knows_one() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.port == 7405:
            raise httpx.ConnectError("down")
        leader = "nats-3" if request.url.port == 7475 else ""
        streams = [{"name": "EVENTS", "cluster": {"leader": leader}}, {"name": "DLQ", "cluster": {"leader": "nats"}}]
        return httpx.Response(200, content=json.dumps({"account_details": [{"stream_detail": streams}]}))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert await THREE.stream_leader(client, "EVENTS") == "nats-3"
        assert await THREE.stream_leader(client, "INGRESS") is None


async def test_a_mesh_of_one_each_has_nobody_who_leads() -> None:
    state = {"portBase": 7400, "processes": [{"name": "etcd"}, {"name": "nats"}, {"name": "scheduler-1"}]}
    async with etcd_where({}) as client:
        assert await leaders(state, client) == {}
