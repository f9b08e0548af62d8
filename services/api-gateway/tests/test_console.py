"""The console's pages as they are served, and the two routes that were made for it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from lablet_common.resources.kinds import member_key, ownership_key
from lablet_common.store import Transaction
from lablet_gateway.app import create_app
from lablet_gateway.console import Asset, load, policy
from lablet_gateway.settings import OidcSettings
from lablet_gateway.topologies import graph_of

_IMPORT = re.compile(r'^import .* from "(\.[^"]+)";$', re.MULTILINE)
_TAGS = re.compile(rb"<script[^>]*>[^<]+|<style|\son[a-z]+=|style=")


@pytest.fixture(name="assets")
def assets_fixture() -> Mapping[str, Asset]:
    return load(files("lablet_gateway.console") / "assets")


async def test_the_page_needs_no_token_and_may_load_from_this_server_only(world: Any) -> None:
    page = await world.client().get("/", headers={"authorization": "none"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    allowed = page.headers["content-security-policy"]
    assert "connect-src 'self';" in allowed
    assert "unsafe" not in allowed
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "://" not in page.text


def test_a_page_may_talk_to_the_identity_provider_that_people_sign_in_at_and_to_nobody_else() -> None:
    provider = {"issuer": "https://id.example.org/realms/labs", "audience": "lablet"}
    assert "connect-src 'self';" in policy(OidcSettings(**provider))
    told = policy(OidcSettings(**provider, console_client_id="lablet-console"))
    assert "connect-src 'self' https://id.example.org;" in told
    assert told.count("://") == 1
    with pytest.raises(ValueError, match="OIDC_ISSUER is not"):
        OidcSettings(console_client_id="lablet-console")


async def test_how_to_sign_in_is_told_without_a_token(world: Any) -> None:
    nobody = world.client(None)
    assert (await nobody.get("/api/v1/sign-in")).json() == {}
    assert (await nobody.get("/api/v1/sign-in/")).status_code == 401
    oidc = OidcSettings(issuer="https://id.example.org", audience="lablet", console_client_id="lablet-console")
    parts = replace(world.parts, settings=world.parts.settings.model_copy(update={"oidc": oidc}))
    transport = httpx.ASGITransport(create_app(parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        told = await http.get("/api/v1/sign-in")
    assert told.json() == {
        "oidc": {"issuer": "https://id.example.org", "clientId": "lablet-console", "scopes": "openid"}
    }


async def test_a_page_that_is_known_is_not_sent_again_and_an_unknown_one_is_404(world: Any) -> None:
    http = world.client()
    script = await http.get("/console/main.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = await http.get("/console/main.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await http.get("/console/nothing.js")).status_code == 404
    assert (await http.get("/console/../app.py")).status_code == 404


def test_every_module_that_is_imported_is_there_and_nothing_stands_in_line(assets: Mapping[str, Asset]) -> None:
    for name, asset in assets.items():
        folder = name.rpartition("/")[0]
        for wanted in _IMPORT.findall(asset.data.decode()):
            parts: list[str] = folder.split("/") if folder else []
            for step in wanted.split("/"):
                if step == "..":
                    parts.pop()
                elif step != ".":
                    parts.append(step)
            assert "/".join(parts) in assets, f"{name} imports {wanted}"
        if name.endswith(".html"):
            assert not _TAGS.search(asset.data), name


def test_a_file_without_a_media_type_is_noticed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "page.exe").write_bytes(b"")
    with pytest.raises(LookupError, match=r"page\.exe"):
        load(tmp_path)


def test_a_graph_has_the_authors_positions_and_links_of_old_and_new_files() -> None:
    graph = graph_of({
        "lab": {"title": "Two"},
        "nodes": [{"id": "n0", "label": "R1", "node_definition": "iosv", "x": 10, "y": -5.5}, {"id": "n1", "label": "R2"}],
        "links": [{"n1": "n0", "n2": "n1", "label": "one"}, {"node_a": "n1", "node_b": "n0"}, {"id": "l9"}],
    })  # fmt: skip
    assert graph.title == "Two"
    assert [(node.label, node.x, node.y) for node in graph.nodes] == [("R1", 10, -5.5), ("R2", 0, 0)]
    assert [(link.a, link.b, link.label) for link in graph.links] == [("n0", "n1", "one"), ("n1", "n0", "")]


async def test_a_definitions_graph_is_there_for_everybody_who_sees_it_without_configurations(world: Any) -> None:
    path = "/api/v1/definitions/ospf-basics/versions/1.0.0/graph"
    graph = await world.client("ann").get(path)
    assert graph.status_code == 200
    assert graph.json() == {"title": "OSPF basics", "nodes": [], "links": []}
    assert (await world.client("admin@acme").get(path)).status_code == 404


async def test_the_mesh_tells_replicas_owners_and_what_waits(world: Any, booking: Any) -> None:
    owner = await (
        Transaction()
        .put(member_key("scheduler", "s-1"), b"")
        .put(ownership_key("scheduler", "default"), b"s-1")
        .put("/bridge/worker/cursor", b'{"revision": 1}')
        .commit(world.store)
    )
    for _ in range(2):
        await world.client().post("/api/v1/reservations", json=booking())
    await world.caught_up()
    mesh = (await world.client().get("/api/v1/mesh")).json()
    states = {state["service"]: state for state in mesh["services"]}
    assert states["scheduler"]["replicas"] == ["s-1"]
    assert states["scheduler"]["inbox"] == [{"shard": "default", "waiting": 2}]
    assert states["artifact-service"] == {"service": "artifact-service", "replicas": [], "inbox": []}
    assert mesh["owners"] == [{"service": "scheduler", "shard": "default", "replica": "s-1", "token": owner.revision}]
    assert [(bridge["kind"], bridge["behind"]) for bridge in mesh["bridges"]] == [("worker", 1)]
    assert (await world.client("ina").get("/api/v1/mesh")).status_code == 403
