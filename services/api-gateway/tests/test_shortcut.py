"""The short way to one resource answers what FastAPI's way answers, for everybody."""

import json
import re
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lablet_common.store import StoreUnavailable
from lablet_common.telemetry.metrics import REGISTRY
from lablet_gateway.api import events, reservations

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


async def test_both_ways_are_told_by_the_name_of_the_route(world: Any, booking: Any, monkeypatch: Any) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    await both(world.client(), "/api/v1/workers/default-001")
    await world.client("ina").post("/api/v1/reservations", json=booking())
    names = [span.name for span in exporter.get_finished_spans() if span.parent is None]
    assert names == ["GET /api/v1/workers/{worker}"] * 2 + ["POST /api/v1/reservations"]


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


RESERVATIONS, EVENTS = "/api/v1/reservations", "/api/v1/events"
LONG = {"long": "way"}
"""A query that means nothing leads to FastAPI."""


def said(answer: Any) -> Any:
    """An answer without what is drawn anew for each request."""
    text = re.sub(r"(req|rsv)-[a-z2-7]{26}", r"\1-", answer.text)
    text = re.sub(r'"(uid|eventId|requestId|resourceVersion)":"[^"]*"', r'"\1":""', text)
    headers = {
        name: value for name, value in answer.headers.items() if name not in {*_FLEETING, "content-length", "etag"}
    }
    if "location" in headers:
        headers["location"] = headers["location"].rpartition("-")[0]
    return answer.status_code, headers, text


@pytest.mark.parametrize("who", ["admin@default", "ina", "ann", "machine@default", "admin@acme", None])
async def test_both_ways_take_and_refuse_the_same_reservations(world: Any, booking: Any, who: str | None) -> None:
    client = world.client(who)
    bodies: list[bytes] = [
        *(json.dumps(body).encode() for body in (
            booking(), booking(pool="nowhere"), booking(definition="opsf"), booking(seats=0), booking(sets=1),
            booking(start="2020-01-01T09:00:00Z"), booking(end=None), booking(roster=[{"seat": 3, "user": "x"}]),
            booking(labels={"a": 1}), {}, [], "x", None, booking(start="2027-03-01T09:00:00"),
            booking(labels={"a": "x" * 300}), booking(labels={f"{n}": "x" * 250 for n in range(20)}),
        )),
        b"", b"{", b"\xff", b'{"seats": NaN}', b"[" * 4000,
    ]  # fmt: skip
    for body in bodies:
        for headers in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 256}, {"Prefer": "respond-async"}):
            kind = {"Content-Type": "application/json", **headers}
            short = await client.post(RESERVATIONS, content=body, headers=kind)
            long = await client.post(RESERVATIONS, content=body, headers=kind, params=LONG)
            assert said(short) == said(long), (body[:200], headers)


async def test_a_key_stands_for_one_request_whichever_way_it_comes(world: Any, booking: Any) -> None:
    client, key = world.client("ina"), {"Idempotency-Key": "k-1"}
    short = await client.post(RESERVATIONS, json=booking(), headers=key)
    long = await client.post(RESERVATIONS, json=booking(), headers=key, params=LONG)
    assert (short.status_code, short.json(), short.headers["location"]) == (
        202, long.json(), long.headers["location"],
    )  # fmt: skip
    for params in ({}, LONG):
        other = await client.post(RESERVATIONS, json=booking(seats=1), headers=key, params=params)
        assert other.status_code == 422
        assert other.json()["type"].endswith("/idempotency-key-reused") or "key" in other.json()["type"]


@pytest.mark.parametrize("who", ["admin@default", "ann", None])
async def test_both_ways_take_and_refuse_the_same_events(world: Any, booking: Any, who: str | None) -> None:
    client = world.client(who)
    event = {"specversion": "1.0", "source": "/lms", "type": "io.lablet.reservation.requested.v1"}

    def told(number: int, **changes: Any) -> dict[str, Any]:
        return event | {"id": f"e-{number}", "data": booking()} | changes

    cases: list[tuple[str, Any]] = [
        ("application/cloudevents+json", told(1)),
        ("application/cloudevents+json", told(2, type="io.lablet.nothing.v1")),
        ("application/cloudevents+json", told(3, data=booking(seats=0))),
        ("application/cloudevents+json", {}),
        ("application/cloudevents-batch+json", [told(4), told(5, data={}), 7]),
        ("application/cloudevents-batch+json", [told(6, data={})]),
        ("application/cloudevents-batch+json", [told(7, source="x" * 5000)]),
        ("application/json", {}),
        ("text/plain", "x"),
    ]
    for kind, body in cases:
        content, headers = json.dumps(body), {"Content-Type": kind}
        short = await client.post(EVENTS, content=content, headers=headers)
        long = await client.post(EVENTS, content=content, headers=headers, params=LONG)
        assert said(short) == said(long), body


async def test_a_plain_post_goes_the_short_way_and_is_counted_under_its_route(
    world: Any, booking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = list[str]()
    reserve, publish = reservations.reserve, events.publish_events

    async def counting_reserve(*asked: Any) -> Any:
        short.append("reserve")
        return await reserve(*asked)

    async def counting_publish(*asked: Any) -> Any:
        short.append("publish")
        return await publish(*asked)

    monkeypatch.setattr(reservations, "reserve", counting_reserve)  # FastAPI holds the function itself
    monkeypatch.setattr(events, "publish_events", counting_publish)
    labels = {"method": "POST", "route": RESERVATIONS, "status": "202"}
    before = REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) or 0
    for params in ({}, LONG):
        assert (await world.client().post(RESERVATIONS, json=booking(), params=params)).status_code == 202
        await world.client().post(EVENTS, content=b"[]", params=params)
    assert short == ["reserve", "publish"]
    assert REGISTRY.get_sample_value("lablet_api_request_duration_seconds_count", labels) == before + 2
