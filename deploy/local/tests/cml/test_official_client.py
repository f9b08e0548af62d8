"""Cisco's own client, unmodified, takes every lab file through its whole life; each answer is held to the specification."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration


@pytest.fixture
def client(simulator: Callable[..., Any], judge: Any) -> Any:
    from virl2_client import ClientLibrary

    process = simulator("--speed", "600")
    logging.getLogger("virl2_client").setLevel(logging.ERROR)
    made = ClientLibrary(
        process.url, "admin", process.password, ssl_verify=False, allow_http=True, convergence_wait_time=0.05
    )
    made._session.event_hooks["response"].append(judge)
    made.auto_sync_interval = 0.0
    made.process = process
    made.licensing.wait_interval = 0.02
    made.licensing.set_product_license("CML_Enterprise")
    assert made.licensing.register_wait("dG9rZW4=")
    yield made
    made._session.close()


def document(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return loaded


def test_every_lab_file_lives_its_whole_life(client: Any, lab_files: list[Path], judge: Any) -> None:
    for file in lab_files:
        source = document(file.read_text())
        lab = client.import_lab_from_path(file)
        lab.wait_time = 0.05
        assert lab.title == source["lab"]["title"]
        assert [node.label for node in lab.nodes()] == [node["label"] for node in source["nodes"]]
        assert len(lab.links()) == len(source["links"])
        lab.start()
        assert lab.state() == "STARTED"
        assert lab.has_converged()
        lab.sync(topology_only=False)
        for node in lab.nodes():
            assert node.state == "BOOTED", node.label
            for interface in node.interfaces():
                assert interface.state == "STARTED"
            node.sync_interface_operational()
            if node.node_definition not in ("external_connector", "unmanaged_switch"):
                assert len(node.console_key()) == 36
                node.console_logs(0)
                node.extract_configuration()
        lab.sync_events()
        lab.sync_operational()
        exported = document(lab.download())
        assert [node.get("tags") or [] for node in exported["nodes"]] == [n.get("tags") or [] for n in source["nodes"]]
        assert [n["label"] for n in exported["nodes"]] == [n["label"] for n in source["nodes"]]
        with pytest.raises(Exception, match="running"):
            lab.remove()
        lab.stop()
        assert lab.state() in ("STOPPED", "DEFINED_ON_CORE")
        lab.wipe()
        assert lab.state() == "DEFINED_ON_CORE"
        client.remove_lab(lab)
    assert client.get_lab_list(show_all=True) == []
    assert client.licensing.deregister() == 204
    assert client.logout()
    if judge.specification is not None:
        assert {"GET /labs/{lab_id}/topology", "GET /labs/{lab_id}/events", "PUT /labs/{lab_id}/start"} <= judge.seen


def test_an_exported_lab_can_be_imported_again_unchanged(client: Any, lab_files: list[Path]) -> None:
    for file in lab_files:
        first = client.import_lab_from_path(file)
        second = client.import_lab(first.download())
        assert document(second.download()) == document(first.download())


def test_a_lab_is_built_by_hand(client: Any) -> None:
    lab = client.create_lab("By hand")
    lab.wait_time = 0.05
    r1 = lab.create_node("r1", "iosv", 0, 0, populate_interfaces=True)
    r2 = lab.create_node("r2", "iosv", 100, 0)
    first = r1.get_interface_by_slot(1)
    second = lab.create_interface(r2, slot=2)
    assert [port.slot for port in r2.physical_interfaces()] == [0, 1, 2]
    link = lab.create_link(first, second)
    r1.configuration = "hostname changed"
    r1.add_tag("serial:2100")
    link.set_condition(100, 10, 1, 0.5)
    assert link.get_condition()["latency"] == 10
    lab.create_annotation("text", text_content="hello")
    lab.start()
    assert link.state == "STARTED"
    link.stop()
    assert link.state == "STOPPED"
    link.start()
    assert lab.find_nodes_by_tag("serial:2100") == [r1]
    r1.stop(wait=True)
    assert r1.state == "STOPPED"
    lab.stop()
    lab.wipe()
    lab.remove_link(link)
    lab.remove_node(r2)
    assert [node.label for node in lab.nodes()] == ["r1"]
    lab.remove()


def test_the_rest_of_the_client_finds_its_answers(client: Any) -> None:
    assert client.is_system_ready()
    assert client.get_system_health()["valid"]
    stats = client.get_system_stats()
    assert stats["all"]["memory"]["total"] > 10**9
    assert {"iosv", "alpine", "cat8000v"} <= {each["id"] for each in client.definitions.node_definitions()}
    assert client.definitions.image_definitions()
    assert "iosv" in client.definitions.download_node_definition("iosv")
    assert client.definitions.image_definitions_for_node_definition("iosv")
    hosts = client.system_management.compute_hosts
    assert len(hosts) == 1
    assert client.system_management.get_external_connectors()
    assert client.system_management.maintenance_mode is False
    client.system_management.maintenance_mode = True
    client.system_management.maintenance_mode = False
    user = client.user_management.create_user("learner", "pw")
    client.user_management.update_user(user["id"], description="one")
    pool = client.resource_pool_management.create_resource_pool("class", licenses=3)
    assert pool.get_usage().limit.licenses == 3
    pool.remove()
    client.user_management.delete_user(user["id"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert client.get_diagnostics()
    client.licensing.tech_support()
    client.licensing.update_features(
        [{"id": "regid.2019-10.com.cisco.CML_NODE_COUNT,1.0_2607650b-6ca8-46d5-81e5-e6688b7383c4", "count": 30}]
    )
    assert client.licensing.renew_authorization()


def test_the_password_can_be_changed_and_the_old_one_is_dead(client: Any) -> None:
    key = client.user_management.user_id("admin")
    client.user_management.update_user(
        key, password_dict={"old_password": client.process.password, "new_password": "better"}
    )
    with pytest.raises(Exception, match="Authentication failed"):
        client.system_info() and client.get_lab_list()
    client.password = "better"
    assert client.get_lab_list() == []
