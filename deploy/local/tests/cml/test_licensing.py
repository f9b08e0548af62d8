"""The licence: its states in order, what it allows, and the rules of giving it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

NODE_COUNT = "regid.2019-10.com.cisco.CML_NODE_COUNT,1.0_2607650b-6ca8-46d5-81e5-e6688b7383c4"


def many(nodes: int, definition: str = "alpine") -> str:
    rows = "".join(f"  - {{id: n{n}, label: a{n}, node_definition: {definition}, x: 0, y: 0}}\n" for n in range(nodes))
    return f"lab: {{title: {nodes} nodes, version: 0.2.2}}\nlinks: []\nnodes:\n{rows}"


async def states(desk: Any) -> tuple[str, str]:
    shown = await desk.ok("GET", "licensing")
    return shown["registration"]["status"], shown["authorization"]["status"]


async def test_a_registration_is_accepted_first_and_completes_later(make_desk: Callable[..., Any]) -> None:
    desk = make_desk()
    await desk.login()
    assert await states(desk) == ("NOT_REGISTERED", "EVAL_MODE")
    assert (await desk.call("POST", "licensing/registration", json={"token": "abc"})).status_code == 204
    assert await states(desk) == ("IN_PROGRESS", "EVAL_MODE")
    assert (await desk.call("POST", "licensing/registration", json={"token": "abc"})).status_code == 409
    desk.clock.advance(9)
    assert await states(desk) == ("COMPLETED", "EVAL_MODE")
    desk.clock.advance(4)
    assert await states(desk) == ("COMPLETED", "IN_COMPLIANCE")
    assert (await desk.call("POST", "licensing/registration", json={"token": "abc"})).status_code == 400
    again = {"token": "abc", "reregister": True}
    assert (await desk.call("POST", "licensing/registration", json=again)).status_code == 204


async def test_dates_have_a_space_and_no_zone(desk: Any) -> None:
    shown = await desk.ok("GET", "licensing")
    assert shown["registration"]["register_time"]["failure"] == "OK"
    assert len(shown["registration"]["expires"].split(" ")) == 2


async def test_without_a_licence_nothing_starts(make_desk: Callable[..., Any]) -> None:
    desk = make_desk()
    await desk.login()
    lab = await desk.lab()
    answer = await desk.call("PUT", f"labs/{lab}/start")
    assert answer.status_code == 400
    assert "license" in answer.json()["description"]
    assert await desk.ok("GET", f"labs/{lab}/state") == "DEFINED_ON_CORE"


async def test_an_evaluation_allows_a_few_nodes(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(evaluation_nodes=2)
    await desk.login()
    assert (await desk.call("PUT", f"labs/{await desk.lab()}/start")).status_code == 204
    assert (await desk.call("PUT", f"labs/{await desk.lab(many(1))}/start")).status_code == 400


async def test_twelve_and_nine_nodes_never_run_together_on_a_licence_for_twenty(desk: Any) -> None:
    first, second = await desk.lab(many(12)), await desk.lab(many(9))
    assert (await desk.call("PUT", f"labs/{first}/start")).status_code == 204
    refused = await desk.call("PUT", f"labs/{second}/start")
    assert refused.status_code == 400
    assert "9 nodes requested, 12 running, 20 allowed" in refused.json()["description"]
    assert await desk.ok("GET", f"labs/{second}/state") == "DEFINED_ON_CORE"
    diagnostics = await desk.ok("GET", "diagnostics/licensing")
    assert (diagnostics["quota"], diagnostics["started"]) == (20, 12)
    await desk.ok("PATCH", "licensing/features", json=[{"id": NODE_COUNT, "count": 1}])
    assert (await desk.call("PUT", f"labs/{second}/start")).status_code == 204


async def test_wires_and_connectors_do_not_count(desk: Any) -> None:
    lab = await desk.lab(many(25, "unmanaged_switch"))
    assert (await desk.call("PUT", f"labs/{lab}/start")).status_code == 204
    assert (await desk.ok("GET", "diagnostics/licensing"))["started"] == 0


async def test_a_personal_licence_takes_no_extra_nodes(make_desk: Callable[..., Any]) -> None:
    desk = make_desk()
    await desk.login()
    assert (await desk.call("PUT", "licensing/product_license", json="CML_Personal40")).status_code == 204
    await desk.license()
    assert (await desk.ok("GET", "diagnostics/licensing"))["quota"] == 40
    extra = [{"id": NODE_COUNT, "count": 1}]
    assert (await desk.call("PATCH", "licensing/features", json=extra)).status_code == 400
    assert (await desk.call("PUT", "licensing/product_license", json="CML_Enterprise")).status_code == 400


async def test_deregistration_waits_for_the_last_node(desk: Any) -> None:
    lab = await desk.lab()
    await desk.ok("PUT", f"labs/{lab}/start")
    refused = await desk.call("DELETE", "licensing/deregistration")
    assert refused.status_code == 400
    assert refused.json()["description"] == "Cannot de-register when nodes are running."
    await desk.ok("PUT", f"labs/{lab}/stop")
    desk.clock.advance(5)
    assert (await desk.call("DELETE", "licensing/deregistration")).status_code == 204
    again = await desk.call("DELETE", "licensing/deregistration")
    assert again.status_code == 400
    assert "already" in again.json()["description"]


@pytest.mark.parametrize(("fault", "status"), [("unreachable", 202), ("conflict", 409)])
async def test_deregistration_can_fail_as_the_real_one_does(desk: Any, fault: str, status: int) -> None:
    desk.controller.faults.change({"deregistration": fault})
    assert (await desk.call("DELETE", "licensing/deregistration")).status_code == status
    assert (await states(desk))[0] == ("NOT_REGISTERED" if status == 202 else "COMPLETED")


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        ({"registration": "failed"}, ("FAILED", "EVAL_MODE")),
        ({"registration": "slow"}, ("IN_PROGRESS", "EVAL_MODE")),
        ({"authorization": "never"}, ("COMPLETED", "EVAL_MODE")),
        ({"authorization": "out-of-compliance"}, ("COMPLETED", "OUT_OF_COMPLIANCE")),
    ],
)
async def test_a_licence_that_never_comes(
    make_desk: Callable[..., Any], faults: dict[str, str], outcome: tuple[str, str]
) -> None:
    desk = make_desk()
    await desk.login()
    desk.controller.faults.change(faults)
    await desk.license()
    desk.clock.advance(10_000)
    assert await states(desk) == outcome
    assert (await desk.ok("GET", "system_health"))["is_licensed"] is False
