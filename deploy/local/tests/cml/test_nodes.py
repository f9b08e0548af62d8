"""How labs run: the order of states, refusals, what stays QUEUED and why, configurations, the witness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lablet_local.cml.clock import ManualClock
from lablet_local.cml.witness import Witness


async def node_states(desk: Any, lab: str) -> list[str]:
    return list((await desk.ok("GET", f"labs/{lab}/lab_element_state"))["nodes"].values())


async def test_a_lab_starts_asynchronously(desk: Any) -> None:
    lab = await desk.lab()
    assert (await desk.call("PUT", f"labs/{lab}/start")).status_code == 204
    assert await desk.ok("GET", f"labs/{lab}/state") == "STARTED"
    assert await node_states(desk, lab) == ["QUEUED", "QUEUED"]
    assert len(await desk.ok("GET", "diagnostics/node_launch_queue")) == 2
    desk.clock.advance(2)
    assert await node_states(desk, lab) == ["STARTED", "STARTED"]
    assert await desk.ok("GET", f"labs/{lab}/check_if_converged") is False
    assert desk.consoles.reserved == {"r1", "r2"}
    assert not desk.consoles.opened
    desk.clock.advance(60)
    assert await node_states(desk, lab) == ["BOOTED", "BOOTED"]
    assert await desk.ok("GET", f"labs/{lab}/check_if_converged") is True
    assert set(desk.consoles.opened) == {"r1", "r2"}
    elements = await desk.ok("GET", f"labs/{lab}/lab_element_state")
    assert set(elements["links"].values()) | set(elements["interfaces"].values()) == {"STARTED"}
    for path in ("diagnostics/labs", "diagnostics/lab_events", "keys/console", "keys/vnc", "nodes?operational=true"):
        await desk.ok("GET", path)
    await desk.ok("GET", f"labs/{lab}/layer3_addresses")
    await desk.ok("GET", f"labs/{lab}/tile")


async def test_a_lab_must_be_stopped_then_wiped_then_deleted(desk: Any) -> None:
    lab = await desk.lab()
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(100)
    assert (await desk.call("PUT", f"labs/{lab}/wipe")).status_code == 400
    assert (await desk.call("DELETE", f"labs/{lab}")).status_code == 400
    await desk.ok("PUT", f"labs/{lab}/stop")
    assert await desk.ok("GET", f"labs/{lab}/check_if_converged") is False
    desk.clock.advance(5)
    assert await desk.ok("GET", f"labs/{lab}/state") == "STOPPED"
    assert not desk.consoles.opened
    assert (await desk.call("DELETE", f"labs/{lab}")).status_code == 400
    await desk.ok("PUT", f"labs/{lab}/wipe")
    assert await desk.ok("GET", f"labs/{lab}/state") == "DEFINED_ON_CORE"
    assert (await desk.call("DELETE", f"labs/{lab}")).status_code == 204
    assert (await desk.call("GET", f"labs/{lab}")).status_code == 404


async def test_a_lab_stopped_while_it_boots_never_boots(desk: Any) -> None:
    lab = await desk.lab()
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(10)
    await desk.ok("PUT", f"labs/{lab}/stop")
    desk.clock.advance(1000)
    assert await node_states(desk, lab) == ["STOPPED", "STOPPED"]
    assert not desk.consoles.reserved


async def test_more_memory_than_the_host_has_is_refused(desk: Any) -> None:
    wanted = "lab: {title: big, version: 0.2.2}\nlinks: []\nnodes:\n" + "".join(
        f"  - {{id: n{n}, label: x{n}, node_definition: iosxrv9000, x: 0, y: 0}}\n" for n in range(10)
    )
    lab = await desk.lab(wanted)
    refused = await desk.call("PUT", f"labs/{lab}/start")
    assert refused.status_code == 400
    assert "memory" in refused.json()["description"].lower()


async def test_a_pool_limits_what_its_users_run(desk: Any) -> None:
    key = (await desk.ok("POST", "users", json={"username": "learner", "password": "pw"}))["id"]
    pool = await desk.ok("POST", "resource_pools", json={"label": "class", "licenses": 1, "users": [key]})
    await desk.login("learner", "pw")
    lab = await desk.lab()
    refused = await desk.call("PUT", f"labs/{lab}/start")
    assert refused.status_code == 400
    assert "class" in refused.json()["description"]
    await desk.login()
    assert (await desk.call("DELETE", f"resource_pools/{pool['id']}")).status_code == 409


async def test_a_port_in_use_leaves_the_node_queued_with_an_event_until_it_is_free(desk: Any) -> None:
    desk.consoles.taken.add("r2")
    lab = await desk.lab()
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(200)
    assert await node_states(desk, lab) == ["BOOTED", "QUEUED"]
    events = await desk.ok("GET", f"labs/{lab}/events")
    complaints = [event["data"]["error"] for event in events if "error" in event["data"]]
    assert complaints == ["Port of node r2 cannot be opened: in use."]
    desk.consoles.taken.clear()
    desk.clock.advance(100)
    assert await node_states(desk, lab) == ["BOOTED", "BOOTED"]


async def test_faults_hold_nodes_back_and_let_them_go(desk: Any) -> None:
    lab = await desk.lab()

    async def fault(wanted: dict[str, Any]) -> None:
        answer = await desk.http.put("http://sim/sim/faults", json=wanted)
        assert answer.status_code == 200, answer.text

    await fault({"stuckQueued": ["r1"], "slowBoot": 3})
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(100)
    assert await node_states(desk, lab) == ["QUEUED", "STARTED"]
    await fault({})
    desk.clock.advance(200)
    assert await node_states(desk, lab) == ["BOOTED", "BOOTED"]
    await fault({"disconnected": ["r*"]})
    assert await node_states(desk, lab) == ["DISCONNECTED", "DISCONNECTED"]
    assert not desk.consoles.opened
    await fault({"neverConverge": True})
    desk.clock.advance(200)
    assert await node_states(desk, lab) == ["BOOTED", "BOOTED"]
    assert await desk.ok("GET", f"labs/{lab}/check_if_converged") is False


async def test_an_unknown_fault_changes_nothing(desk: Any) -> None:
    before = desk.controller.faults.as_json()
    answer = await desk.http.patch("http://sim/sim/faults", json={"slowBoot": 2, "onFire": True})
    assert answer.status_code == 400
    answer = await desk.http.put("http://sim/sim/faults", json={"slowBoot": "very"})
    assert answer.status_code == 400
    assert desk.controller.faults.as_json() == before


async def test_the_next_requests_can_be_made_to_fail(desk: Any) -> None:
    desk.controller.faults.change({"failRequests": 2, "failPath": "/labs", "failStatus": 503})
    assert (await desk.call("GET", "system_health")).status_code == 200
    assert [(await desk.call("GET", "labs")).status_code for _ in range(3)] == [503, 503, 200]


async def test_what_is_typed_is_extracted_and_downloaded(desk: Any) -> None:
    lab = await desk.lab()
    node = (await desk.ok("GET", f"labs/{lab}/nodes"))[0]
    assert (await desk.call("PUT", f"labs/{lab}/nodes/{node}/extract_configuration")).status_code == 400
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(100)
    desk.consoles.opened["r1"].config.put("banner motd #seat 7#", None)
    await desk.ok("PUT", f"labs/{lab}/nodes/{node}/extract_configuration")
    assert "seat 7" in (await desk.ok("GET", f"labs/{lab}/nodes/{node}"))["configuration"]
    exported = await desk.ok("GET", f"labs/{lab}/download")
    assert "seat 7" in exported
    assert "serial:2001" in exported


async def test_what_is_not_saved_is_gone_after_a_stop_and_what_is_saved_after_a_wipe(desk: Any) -> None:
    lab = await desk.lab()

    async def restart() -> Any:
        await desk.ok("PUT", f"labs/{lab}/start")
        desk.clock.advance(100)
        return desk.consoles.opened["r1"]

    async def stop() -> None:
        await desk.ok("PUT", f"labs/{lab}/stop")
        desk.clock.advance(10)

    device = await restart()
    device.config.put("ntp server 10.0.0.1", None)
    await stop()
    device = await restart()
    assert "ntp" not in str(device.config)
    device.config.put("ntp server 10.0.0.1", None)
    device.save(str(device.config))
    await stop()
    device = await restart()
    assert "ntp" in str(device.config)
    await stop()
    await desk.ok("PUT", f"labs/{lab}/wipe")
    device = await restart()
    assert "ntp" not in str(device.config)


async def test_unknown_definitions_and_broken_links_are_refused_whole(desk: Any, two_routers: str) -> None:
    for broken in (
        two_routers.replace("node_definition: iosv", "node_definition: toaster"),
        two_routers.replace("i2: i0", "i2: i9"),
        two_routers.replace("id: n1", "id: n0"),
    ):
        assert (await desk.call("POST", "import", content=broken)).status_code == 400
    assert await desk.ok("GET", "labs") == []


async def test_an_image_that_is_not_installed_is_a_warning(desk: Any, two_routers: str) -> None:
    text = two_routers.replace("label: r1,", "label: r1, image_definition: iosv-1-2-3,")
    answer = await desk.ok("POST", "import", content=text)
    assert "iosv-1-2-3" in answer["warnings"][0]


async def test_statistics_are_bytes_and_follow_what_runs(desk: Any) -> None:
    before = await desk.ok("GET", "system_stats")
    lab = await desk.lab()
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(100)
    after = await desk.ok("GET", "system_stats")
    assert after["all"]["memory"]["used"] - before["all"]["memory"]["used"] == 2 * 512 * 1024 * 1024
    (host,) = after["computes"].values()
    assert host["stats"]["dominfo"]["running_nodes"] == 2
    usage = await desk.ok("GET", f"labs/{lab}/simulation_stats")
    assert set(usage["nodes"]) == set(await desk.ok("GET", f"labs/{lab}/nodes"))


async def test_a_missing_node_is_400_where_the_real_controller_says_400(desk: Any) -> None:
    lab = await desk.lab()
    gone = "11111111-1111-4111-8111-111111111111"
    assert (await desk.call("GET", f"labs/{lab}/nodes/{gone}")).status_code == 400
    assert (await desk.call("GET", f"labs/{lab}/nodes/{gone}/state")).status_code == 404
    answer = await desk.call("GET", f"labs/{gone}/topology")
    assert answer.json()["description"] == f"Lab not found: {gone}"


async def test_an_emptied_host_starts_nothing(desk: Any) -> None:
    (host,) = await desk.ok("GET", "system/compute_hosts")
    await desk.ok("PATCH", f"system/compute_hosts/{host['id']}", json={"admission_state": "ONLINE"})
    assert (await desk.ok("GET", "system_information"))["ready"] is False
    assert (await desk.call("PUT", f"labs/{await desk.lab()}/start")).status_code == 400
    wrong = {"admission_state": "UNREGISTERED"}
    assert (await desk.call("PATCH", f"system/compute_hosts/{host['id']}", json=wrong)).status_code == 409


async def test_the_witness_tells_who_ran_when(make_desk: Callable[..., Any], tmp_path: Path) -> None:
    log = tmp_path / "witness.jsonl"
    desk = make_desk(state_file=log)
    await desk.login()
    await desk.license()
    lab = await desk.lab()
    await desk.ok("PUT", f"labs/{lab}/start")
    desk.clock.advance(100)
    await desk.ok("PUT", f"labs/{lab}/stop")
    desk.clock.advance(10)
    state = (await desk.http.get("http://sim/sim/state")).json()
    assert state["starts"] == {"Two routers": 1}
    assert state["mostNodes"] == 2
    facts = [json.loads(line) for line in log.read_text().splitlines()]
    told = [fact["fact"] for fact in facts if fact["fact"].startswith("lab.")]
    assert told == ["lab.imported", "lab.started", "lab.converged", "lab.stopped"]
    started = next(fact for fact in facts if fact["fact"] == "lab.started")
    assert (started["title"], started["ports"]) == ("Two routers", [2001, 2002])
    assert (started["runningNodes"], started["quota"]) == (2, 20)
    assert facts == state["history"]


def test_a_witness_log_is_continued_also_after_a_torn_line(tmp_path: Path) -> None:
    log = tmp_path / "witness.jsonl"
    first = Witness(ManualClock(), log)
    first.saw("lab.started", title="A")
    first.close()
    with log.open("a") as file:
        file.write('{"fact":"lab.sto')
    second = Witness(ManualClock(), log)
    second.saw("lab.started", title="A")
    assert second.starts == {"A": 2}
    lines = log.read_text().splitlines()
    assert json.loads(lines[-1])["title"] == "A"
    assert len({json.loads(line)["life"] for line in (lines[0], lines[-1])}) == 2


async def test_only_this_machine_may_steer(desk: Any) -> None:
    import httpx

    far = httpx.ASGITransport(desk.http._transport.app, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=far) as stranger:
        assert (await stranger.get("http://sim/sim/state")).status_code == 403
        assert (await stranger.get("http://sim/api/v0/system_information")).status_code == 200
