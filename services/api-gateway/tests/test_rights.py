"""Every route × role × tenant, made from the application's own routes: a route without an expectation fails here."""

import re
from typing import Any

import pytest

from lablet_gateway.identity import Role
from lablet_gateway.rights import OPEN, PREFIX, RIGHTS, ROUTE_OF_INTENT, Scope

_METHODS = ("get", "post", "put", "patch", "delete")

# Who may, by role: a = admin, o = operator, i = instructor, l = learner, m = machine, h = an
# agent's host. Written out here once more, so that
# a change of the table has to be meant.
EXPECTED = {
    "GET /whoami": "aoilm",
    "GET /version": "aoilm",
    "GET /clock": "aoilm",
    "GET /requests/{request_id}": "aoilm",
    "POST /definitions": "aim",
    "GET /definitions": "aoilm",
    "GET /definitions/{name}": "aoilm",
    "GET /definitions/{name}/versions/{version}": "aoilm",
    "GET /definitions/{name}/versions/{version}/topology": "aoim",
    "GET /definitions/{name}/versions/{version}/graph": "aoilm",
    "POST /definitions/{name}/versions/{version}/deprecate": "aim",
    "POST /definitions/{name}/versions/{version}/approve": "ao",
    "POST /definitions/{name}/versions/{version}/archive": "aim",
    "POST /reservations": "aoilm",
    "POST /reservations:simulate": "aoilm",
    "GET /reservations": "aoilm",
    "GET /reservations/{reservation_id}": "aoilm",
    "PATCH /reservations/{reservation_id}": "aoilm",
    "DELETE /reservations/{reservation_id}": "aoilm",
    "POST /reservations/{reservation_id}:confirm": "aoilm",
    "GET /reservations/{reservation_id}/trace": "aoi",
    "GET /reservations/{reservation_id}/explanation": "aoilm",
    "POST /series": "aoim",
    "GET /series": "aoim",
    "GET /series/{series_id}": "aoim",
    "PATCH /series/{series_id}": "aoim",
    "DELETE /series/{series_id}": "aoim",
    "POST /reservations/{reservation_id}/claims": "aoilm",
    "DELETE /reservations/{reservation_id}/claims": "aoilm",
    "POST /claims/{code}": "aoil",
    "GET /instances": "aoilm",
    "GET /instances/{instance_id}": "aoilm",
    "POST /instances/{instance_id}/start": "aoilm",
    "POST /instances/{instance_id}/stop": "aoilm",
    "POST /instances/{instance_id}/collect": "aoilm",
    "POST /instances/{instance_id}/retry": "aoilm",
    "GET /instances/{instance_id}/access": "aoil",
    "GET /instances/{instance_id}/pod": "aoim",
    "GET /instances/{instance_id}/artifacts": "aoilm",
    "GET /instances/{instance_id}/output": "aoilm",
    "DELETE /instances/{instance_id}/artifacts": "ai",
    "GET /artifacts": "aoim",
    "GET /artifacts/{digest}": "aoilm",
    "GET /artifacts/{digest}/link": "aoilm",
    "DELETE /artifacts/{digest}": "ai",
    "GET /workers": "aoi",
    "GET /workers/{worker}": "aoi",
    "GET /workers/{worker}/calendar": "aoi",
    "GET /workers/{worker}/load": "aoi",
    "POST /workers/{worker}/register": "aoh",
    "POST /workers/{worker}/drain": "ao",
    "POST /workers/{worker}/cancel-drain": "ao",
    "POST /workers/{worker}/cordon": "ao",
    "POST /workers/{worker}/uncordon": "ao",
    "POST /workers/{worker}/replace": "ao",
    "POST /pools/{name}/replace": "ao",
    "POST /pools/{name}/cancel-replace": "ao",
    "GET /pools": "aoi",
    "GET /pools/{name}": "aoi",
    "GET /pools/{name}/calendar": "aoi",
    "POST /pools/{name}:optimise": "ao",
    "PUT /pools/{name}": "a",
    "PATCH /pools/{name}": "a",
    "DELETE /pools/{name}": "a",
    "GET /templates": "aoi",
    "GET /templates/{name}": "aoi",
    "PUT /templates/{name}": "a",
    "PATCH /templates/{name}": "a",
    "DELETE /templates/{name}": "a",
    "POST /events": "aoilm",
    "GET /events": "aoilm",
    "GET /events/stream": "aoilm",
    "GET /mesh": "ao",
    "GET /dead-letters": "ao",
    "GET /dead-letters/{sequence}": "ao",
    "POST /dead-letters/{sequence}/replay": "ao",
    "DELETE /dead-letters/{sequence}": "ao",
    "DELETE /dead-letters": "ao",
    "POST /subscriptions": "aoim",
    "GET /subscriptions": "aoim",
    "GET /subscriptions/{name}": "aoim",
    "PATCH /subscriptions/{name}": "aoim",
    "DELETE /subscriptions/{name}": "aoim",
    "POST /subscriptions/{name}/rotate-secret": "aoim",
    "POST /subscriptions/{name}/redeliver": "aoim",
    "GET /quotas/{tenant}": "a",
    "PUT /quotas/{tenant}": "a",
    "GET /usage": "aoi",
    "GET /audit": "a",
    "GET /audit/{request_id}": "a",
    "POST /keys": "a",
    "GET /keys": "a",
    "GET /keys/{key_id}": "a",
    "DELETE /keys/{key_id}": "a",
}
FLEET_CHANGES = {
    route
    for route in EXPECTED
    if re.match(
        r"(POST /(workers|pools)|.*/approve$|(PUT|PATCH|DELETE) /(pools|templates)|\w+ /(dead-letters|quotas|mesh))",
        route,
    )
}
KEY_ID = f"key-{'a' * 26}"
# Kinds of other tenants that a foreign caller must not find, although the role has the right.
TENANTED = (
    "/requests/",
    "/reservations/",
    "/series/",
    "/instances/",
    "/artifacts/",
    "/definitions/{name}",
    "/keys/{key_id}",
)


def routes_of(world: Any) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, operations in world.app.openapi()["paths"].items()
        for method in operations
        if method in _METHODS
    ]


def address(world: Any, path: str) -> str:
    names = {
        "request_id": "req-a", "name": "ospf-basics" if "/definitions" in path else "default", "version": "1.0.0",
        "reservation_id": "rsv-a", "instance_id": "ins-a-1", "digest": world.topology_digest,
        "worker": "default-001", "sequence": "1", "tenant": "acme", "key_id": KEY_ID, "code": f"a-{'a' * 32}",
        "series_id": "ser-a",
    }  # fmt: skip
    if "/schemas" in path:
        names["name"] = "io.lablet.reservation.scheduled.v1.json"
    if "/templates" in path:
        names["name"] = "simulated"
    return re.sub(r"{(\w+)}", lambda found: names[found[1]], path)


async def seed(world: Any) -> None:
    reservation = world.reservation("rsv-a", owner="nobody")
    await world.add(reservation, world.instance(reservation), await world.artifact(b"hostname r1", "instance/ins-a-1"))
    await world.add(world.series("ser-a", owner="nobody"))


async def test_every_route_has_a_row_in_the_table_and_an_expectation_here(world: Any) -> None:
    routes = {route for route in routes_of(world) if route not in OPEN}
    assert routes == set(RIGHTS)
    assert {f"{method} {path.removeprefix(PREFIX)}" for method, path in routes} == set(EXPECTED)
    assert set(ROUTE_OF_INTENT.values()) <= routes


async def test_without_a_token_nothing_but_health_and_schemas_answers(world: Any) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer "},
    ):
        client = world.client(None)
        for method, path in routes_of(world):
            answer = await client.request(method, address(world, path), headers=headers, content=b"{not json")
            if (method, path) in OPEN:
                assert answer.status_code == 200, path
                continue
            assert answer.status_code == 401, (method, path, headers)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["type"] == "https://lablet.io/problems/unauthenticated"


@pytest.mark.parametrize("tenant", ["default", "acme"])
@pytest.mark.parametrize("role", list(Role))
async def test_a_role_gets_403_exactly_where_it_has_no_right(world: Any, role: Role, tenant: str) -> None:
    await seed(world)
    client = world.client(f"{role}@{tenant}")
    for method, path in RIGHTS:
        if path.endswith("/events/stream"):
            continue  # it would never end here; `test_streams` opens it for each role
        route = f"{method} {path.removeprefix(PREFIX)}"
        allowed = role[0] in EXPECTED[route] and (route not in FLEET_CHANGES or tenant == "default")
        answer = await client.request(
            method,
            address(world, path),
            json={} if method in ("PUT", "PATCH", "POST") else None,
            headers={"Prefer": "wait=0"},  # nobody decides here
        )
        assert answer.status_code != 401
        assert answer.status_code < 500, (route, answer.text)
        assert (answer.status_code == 403) != allowed, (route, answer.status_code, answer.text)


@pytest.mark.parametrize("role", list(Role))
async def test_another_tenants_resources_are_not_there(world: Any, role: Role) -> None:
    await seed(world)
    client = world.client(f"{role}@acme")
    for method, path in RIGHTS:
        if (
            not any(part in path for part in TENANTED)
            or role[0] not in EXPECTED[f"{method} {path.removeprefix(PREFIX)}"]
            or f"{method} {path.removeprefix(PREFIX)}" in FLEET_CHANGES
        ):
            continue
        change = {"seats": 2} if method == "PATCH" else None
        answer = await client.request(method, address(world, path), headers={"If-Match": "*"}, json=change)
        assert answer.status_code == 404, (method, path, answer.text)
    for path in ("/reservations", "/instances", "/definitions", "/artifacts"):
        if role[0] not in EXPECTED[f"GET {path}"]:
            continue
        assert (await client.get(PREFIX + path)).json()["items"] == []
    assert await world.inbox() == []


# What a learner meets at each route that learners may use, where the thing is another learner's: `hidden` (404),
# `left out` (of a list), `anew` (it makes something of the caller's own), `common` (everybody's to read).
FOREIGN_SEAT = {
    "GET /whoami": "common",
    "GET /version": "common",
    "GET /clock": "common",
    "GET /requests/{request_id}": "hidden",
    "GET /definitions": "common",
    "GET /definitions/{name}": "common",
    "GET /definitions/{name}/versions/{version}": "common",
    "GET /definitions/{name}/versions/{version}/graph": "common",
    "POST /reservations": "anew",
    "POST /reservations:simulate": "anew",
    "GET /reservations": "left out",
    "GET /reservations/{reservation_id}": "hidden",
    "PATCH /reservations/{reservation_id}": "hidden",
    "DELETE /reservations/{reservation_id}": "hidden",
    "POST /reservations/{reservation_id}:confirm": "hidden",
    "GET /reservations/{reservation_id}/explanation": "hidden",
    "POST /reservations/{reservation_id}/claims": "hidden",
    "DELETE /reservations/{reservation_id}/claims": "hidden",
    "POST /claims/{code}": "hidden",
    "GET /instances": "left out",
    "GET /instances/{instance_id}": "hidden",
    "POST /instances/{instance_id}/start": "hidden",
    "POST /instances/{instance_id}/stop": "hidden",
    "POST /instances/{instance_id}/collect": "hidden",
    "POST /instances/{instance_id}/retry": "hidden",
    "GET /instances/{instance_id}/access": "hidden",
    "GET /instances/{instance_id}/artifacts": "hidden",
    "GET /instances/{instance_id}/output": "hidden",
    "GET /artifacts/{digest}": "hidden",
    "GET /artifacts/{digest}/link": "hidden",
    "POST /events": "anew",
    "GET /events": "left out",
    "GET /events/stream": "left out",
}


@pytest.mark.parametrize("foreign", ["another booking", "another seat of the same class"])
async def test_anothers_seat_is_not_there_at_any_route_that_learners_may_use(world: Any, foreign: str) -> None:
    assert set(FOREIGN_SEAT) == {route for route, roles in EXPECTED.items() if "l" in roles}
    same = foreign != "another booking"
    booked = world.reservation(
        "rsv-a", owner="ina" if same else "bob", roster={1: "bob"} | ({2: "ann"} if same else {})
    )
    theirs = await world.artifact(b"hostname theirs", "instance/ins-a-1")
    await world.add(booked, world.instance(booked, 1), theirs)
    asked = await world.client("bob").post("/api/v1/instances/ins-a-1/collect")
    asked_before = len(await world.inbox("worker-controller"))
    names = {"request_id": asked.json()["metadata"]["id"], "digest": theirs.id}
    ann = world.client("ann")
    for route, met in FOREIGN_SEAT.items():
        method, path = route.split()
        if path == "/events/stream" or met in ("common", "anew"):
            continue  # `test_streams` listens as a learner
        if same and path.startswith(("/reservations", "/claims")):
            continue  # she sees the class that she sits in; what she may not change of it stands in the next test
        filled = re.sub(r"{(request_id|digest)}", lambda found: names[found[1]], PREFIX + path)
        where = address(world, filled) + ("?subject=instance/ins-a-1" if path == "/events" else "")
        body = {"end": "2027-03-01T12:00:00Z"} if method == "PATCH" else None
        answer = await ann.request(method, where, json=body, headers={"If-Match": "*"})
        if met == "hidden":
            assert answer.status_code == 404, (route, answer.text)
        else:
            assert answer.status_code == 200, (route, answer.text)
            assert "ins-a-1" not in answer.text, route
            assert "rsv-a" not in answer.text, route
    assert await world.inbox() == []
    assert len(await world.inbox("worker-controller")) == asked_before


async def test_a_learner_sees_and_changes_own_seats_only(world: Any) -> None:
    own = world.reservation("rsv-own", owner="ann")
    rostered = world.reservation("rsv-class", owner="ina", roster={1: "ann", 2: "bob"})
    foreign = world.reservation("rsv-other", owner="bob")
    await world.add(own, rostered, foreign)
    await world.add(*(world.instance(reservation, seat) for reservation in (own, rostered, foreign) for seat in (1, 2)))
    ann = world.client("ann")
    listed = (await ann.get("/api/v1/reservations")).json()["items"]
    assert [item["metadata"]["id"] for item in listed] == ["rsv-class", "rsv-own"]
    seats = (await ann.get("/api/v1/instances")).json()["items"]
    assert [item["metadata"]["id"] for item in seats] == ["ins-class-1", "ins-own-1", "ins-own-2"]
    expected = {"ins-class-1": 200, "ins-class-2": 404, "ins-own-2": 200, "ins-other-1": 404}
    for name, status in expected.items():
        for method, path in (("GET", ""), ("GET", "/access"), ("GET", "/artifacts"), ("POST", "/collect")):
            answer = await ann.request(method, f"/api/v1/instances/{name}{path}")
            assert answer.status_code == (202 if method == "POST" and status == 200 else status), (name, path)
    assert (await ann.delete("/api/v1/reservations/rsv-other")).status_code == 404
    assert (await ann.delete("/api/v1/reservations/rsv-class")).status_code == 403
    assert (await ann.delete("/api/v1/reservations/rsv-own")).status_code == 202


async def test_console_addresses_are_for_the_seats_user_the_owner_and_admins(world: Any) -> None:
    class_ = world.reservation("rsv-class", owner="ina", roster={1: "ann", 2: "bob"})
    await world.add(class_, world.instance(class_))
    expected = {
        "ann": 200, "ina": 200, "admin@default": 200, "bob": 404, "instructor@default": 404, "operator@default": 404,
    }  # fmt: skip
    for name, status in expected.items():
        assert (await world.client(name).get("/api/v1/instances/ins-class-1/access")).status_code == status, name
    told = (await world.client("ann").get("/api/v1/instances/ins-class-1/access")).json()
    assert told["usable"] is True
    assert told["ports"] == [{"name": "r1_serial", "host": "127.9.0.1", "port": 2001}]


async def test_a_learner_downloads_what_own_seats_left_behind_and_nothing_else(world: Any) -> None:
    own, foreign = world.reservation("rsv-own", owner="ann"), world.reservation("rsv-other", owner="bob")
    mine = await world.artifact(b"hostname mine", "instance/ins-own-1")
    theirs = await world.artifact(b"hostname theirs", "instance/ins-other-1")
    await world.add(own, foreign, world.instance(own), world.instance(foreign), mine, theirs)
    ann = world.client("ann")
    answer = await ann.get(f"/api/v1/artifacts/{mine.id}")
    assert (answer.status_code, answer.content) == (200, b"hostname mine")
    assert (await ann.get(f"/api/v1/artifacts/{theirs.id}")).status_code == 404
    assert (await world.client("ina").get(f"/api/v1/artifacts/{theirs.id}")).status_code == 200
    listed = (await ann.get("/api/v1/instances/ins-own-1/artifacts")).json()["items"]
    assert [(item["name"], item["role"], item["digest"]) for item in listed] == [("r1.cfg", "collected", mine.id)]


async def test_public_definitions_are_everybodys_to_use_and_nobody_elses_to_change(world: Any) -> None:
    await world.add(world.definition("shared", tenant="public"))
    client = world.client("instructor@acme")
    assert (await client.get("/api/v1/definitions/shared")).status_code == 200
    body = {"definition": "shared", "start": "2027-03-01T09:00:00Z", "durationMinutes": 30}
    assert (await client.post("/api/v1/reservations", json=body)).status_code == 202
    assert (await client.post("/api/v1/definitions/shared/versions/1.0.0/deprecate")).status_code == 404


async def test_other_tenants_bookings_have_no_names_in_a_calendar(world: Any) -> None:
    await world.add(world.reservation("rsv-a", owner="ina"))
    for name, shown in (("instructor@default", "rsv-a"), ("instructor@acme", None)):
        told = (await world.client(name).get("/api/v1/pools/default/calendar")).json()
        (worker,) = told["workers"]
        assert [booking.get("reservation") for booking in worker["bookings"]] == [shown, shown]


def test_a_scope_grows_from_none_to_all() -> None:
    assert Scope.NONE < Scope.OWN < Scope.ALL
