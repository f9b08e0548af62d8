"""Who gets in: bearer tokens, roles, passwords, maintenance, and the controller's own boot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("password", ["", "wrong", "SECRET"])
async def test_a_wrong_password_is_refused_with_403(desk: Any, password: str) -> None:
    answer = await desk.call("POST", "authenticate", json={"username": "admin", "password": password})
    assert answer.status_code == 403


async def test_without_a_token_only_the_open_routes_answer(desk: Any) -> None:
    del desk.http.headers["Authorization"]
    assert (await desk.call("GET", "system_information")).status_code == 200
    for path in ("labs", "system_health", "licensing", "nowhere"):
        assert (await desk.call("GET", path)).status_code == 401
    desk.http.headers["Authorization"] = "Bearer a.b.c"
    assert (await desk.call("GET", "labs")).status_code == 401


async def test_a_token_ends_with_logout_and_with_age(desk: Any) -> None:
    assert await desk.ok("DELETE", "logout") is True
    assert (await desk.call("GET", "labs")).status_code == 401
    await desk.login()
    desk.clock.advance(86_399)
    assert (await desk.call("GET", "authok")).status_code == 200
    desk.clock.advance(2)
    assert (await desk.call("GET", "authok")).status_code == 401


async def test_the_own_password_changes_only_with_the_old_one(desk: Any) -> None:
    key = await desk.ok("GET", "users/admin/id")
    wrong = {"password": {"old_password": "nope", "new_password": "fresh"}}
    assert (await desk.call("PATCH", f"users/{key}", json=wrong)).status_code == 403
    await desk.ok("PATCH", f"users/{key}", json={"password": {"old_password": "secret", "new_password": "fresh"}})
    assert (await desk.call("GET", "labs")).status_code == 401
    await desk.login(password="fresh")


async def test_a_learner_sees_own_and_shared_labs_only(desk: Any) -> None:
    lab = await desk.lab()
    key = (await desk.ok("POST", "users", json={"username": "learner", "password": "pw"}))["id"]
    await desk.login("learner", "pw")
    assert await desk.ok("GET", "labs?show_all=true") == []
    assert (await desk.call("GET", f"labs/{lab}")).status_code == 404
    own = await desk.lab()
    await desk.login()
    assert await desk.ok("GET", "labs") == [lab]
    assert set(await desk.ok("GET", "labs?show_all=true")) == {lab, own}
    shared = {"users": [{"id": key, "permissions": ["lab_view"]}], "groups": []}
    await desk.ok("PATCH", f"labs/{lab}/associations", json=shared)
    await desk.login("learner", "pw")
    assert (await desk.ok("GET", f"labs/{lab}"))["effective_permissions"] == ["lab_view"]
    assert (await desk.call("PUT", f"labs/{lab}/start")).status_code == 403
    assert (await desk.call("GET", "licensing")).status_code == 403
    assert (await desk.call("POST", "users", json={"username": "x", "password": "y"})).status_code == 403


async def test_maintenance_keeps_everybody_but_administrators_out(desk: Any) -> None:
    await desk.ok("POST", "users", json={"username": "learner", "password": "pw"})
    await desk.ok("PATCH", "system/maintenance_mode", json={"maintenance_mode": True})
    answer = await desk.call("POST", "authenticate", json={"username": "learner", "password": "pw"})
    assert answer.status_code == 403
    assert (await desk.call("GET", "labs")).status_code == 200


async def test_the_controller_boots_through_502_and_not_ready(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(boot_seconds=100)
    assert (await desk.call("GET", "system_information")).status_code == 502
    desk.clock.advance(51)
    assert (await desk.ok("GET", "system_information"))["ready"] is False
    await desk.login()
    desk.clock.advance(50)
    assert (await desk.ok("GET", "system_information"))["ready"] is True


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "labs", {"title": "x", "colour": "red"}),
        ("POST", "labs", {"title": ""}),
        ("POST", "labs", {"title": "x" * 65}),
        ("POST", "licensing/registration", {"token": "abc", "again": True}),
        ("POST", "licensing/registration", {"token": "a b"}),
        ("PUT", "licensing/product_license", {"name": "CML_Enterprise"}),
        ("PUT", "licensing/transport", {"ssms": "https://x/y"}),
        ("PATCH", "licensing/features", []),
        ("POST", "users", {"username": "x"}),
        ("PATCH", "system/maintenance_mode", {"maintenance_mode": "yes"}),
        ("PUT", "telemetry", {}),
        ("POST", "resource_pools", {"label": "p", "licenses": 321}),
        ("POST", "import", {"lab": {"version": "0.2.2"}, "nodes": []}),
        ("POST", "import", {"lab": {"version": "9.9.9"}, "nodes": [], "links": []}),
        ("POST", "import", {"lab": {"version": "0.2.2"}, "nodes": [], "links": [], "extra": 1}),
    ],
)
async def test_bodies_are_strict(desk: Any, method: str, path: str, body: Any) -> None:
    answer = await desk.call(method, path, json=body)
    assert answer.status_code == 400


async def test_a_body_that_is_no_json_and_a_topology_that_is_no_yaml_are_400(desk: Any) -> None:
    assert (await desk.call("POST", "labs", content="{")).status_code == 400
    answer = await desk.call("POST", "import", content="lab: [\n  - {")
    assert answer.status_code == 400
    assert "line" in answer.json()["description"]


async def test_what_is_not_simulated_says_so_and_what_does_not_exist_is_404(desk: Any) -> None:
    assert (await desk.call("PUT", "licensing/reservation/mode", json=True)).status_code == 501
    assert (await desk.call("POST", "groups", json={"name": "g"})).status_code == 501
    assert (await desk.call("GET", "nowhere")).status_code == 404
    assert (await desk.call("PUT", "labs")).status_code == 405
