"""The short way to one resource answers what FastAPI's way answers, for everybody."""

from typing import Any

import pytest

from lablet_common.store import StoreUnavailable
from lablet_common.telemetry.metrics import REGISTRY

_FLEETING = {"x-request-id", "date"}


async def both(client: Any, path: str) -> tuple[Any, Any]:
    """The short way, and the long one, which a query leads to."""
    return await client.get(path), await client.get(f"{path}?consistency=linearizable")


def told(answer: Any) -> Any:
    body = answer.json()
    body.pop("requestId", None)
    headers = {name: value for name, value in answer.headers.items() if name not in _FLEETING | {"content-length"}}
    return answer.status_code, headers, body


@pytest.mark.parametrize(
    "who", ["admin@default", "operator@default", "ina", "ann", "bob", "machine@default", "admin@acme"]
)
async def test_both_ways_say_the_same(world: Any, booking: Any, who: str) -> None:
    class_ = world.reservation("rsv-class", owner="ina", roster={1: "ann"})
    await world.add(class_, world.instance(class_, 1), world.instance(class_, 2))
    pending = await world.client("ina").post("/api/v1/reservations", json=booking())
    await world.caught_up()
    client = world.client(who)
    for path in (
        "/api/v1/reservations/rsv-class", "/api/v1/reservations/rsv-none", "/api/v1/instances/ins-class-1",
        "/api/v1/instances/ins-class-2", "/api/v1/instances/ins-none-1", "/api/v1/workers/default-001",
        "/api/v1/workers/nobody", pending.headers["location"], "/api/v1/requests/req-none",
        f"/api/v1/{pending.json()['spec']['subject'].replace('reservation/', 'reservations/')}",
    ):  # fmt: skip
        short, long = await both(client, path)
        assert told(short) == told(long), path


async def test_what_is_not_plain_goes_the_long_way(world: Any) -> None:
    client = world.client()
    for path in ("/api/v1/reservations/RSV_A", "/api/v1/reservations/", "/api/v1/workers/a%2Fb", "/api/v1/workers/x/y"):
        assert (await client.get(path)).status_code in (307, 404, 422), path
    assert (await client.put("/api/v1/workers/default-001")).status_code == 405
    assert (await world.client(None).get("/api/v1/workers/default-001")).status_code == 401


async def test_the_short_way_is_counted_under_its_route_and_names_who_is_away(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"method": "GET", "route": "/api/v1/workers/{worker}", "status": "200"}
    before = REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) or 0
    assert (await world.client().get("/api/v1/workers/default-001")).status_code == 200
    assert REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) == before + 1

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("no endpoint answered")

    monkeypatch.setattr(world.store, "txn", away)
    answer = await world.client().get("/api/v1/workers/default-001")
    assert (answer.status_code, answer.json()["dependency"]) == (503, "etcd")


async def test_a_defect_on_the_short_way_is_500_without_details(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(world.store, "txn", broken)
    answer = await world.client().get("/api/v1/workers/default-001")
    assert (answer.status_code, "secret" in answer.text) == (500, False)
