"""The store of recent spans: bounded, found by trace and by link, fed by OTLP."""

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lablet_local.spans import SpanStore, create_app


def request(*spans: tuple[str, str, int], links: str = "") -> ExportTraceServiceRequest:
    """Spans as (trace, span, start); `links`: the trace that each links to."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    service = group.resource.attributes.add(key="service.name")
    service.value.string_value = "scheduler"
    for trace, span, start in spans:
        one = group.scope_spans.add().spans.add(
            trace_id=bytes.fromhex(trace * 32), span_id=bytes.fromhex(span * 16), name=f"{trace}{span}", kind=3,
            start_time_unix_nano=start, end_time_unix_nano=start + 5,
        )  # fmt: skip
        if links:
            one.links.add(trace_id=bytes.fromhex(links * 32), span_id=bytes.fromhex("a" * 16))
    return made


def names(store: SpanStore, trace: str) -> list[str]:
    return [span["name"] for span in store.story(trace * 32)]


def test_a_story_is_a_trace_and_those_that_link_into_it_by_their_begin() -> None:
    store = SpanStore()
    store.take(request(("b", "1", 30), ("b", "2", 10), links="a"))
    store.take(request(("a", "1", 20), ("c", "1", 5)))
    store.take(request(("a", "1", 20)))
    assert names(store, "a") == ["b2", "a1", "b1"]
    assert names(store, "c") == ["c1"]
    assert names(store, "f") == []


def test_the_oldest_spans_are_forgotten_with_their_links() -> None:
    store = SpanStore(kept=3)
    store.take(request(("b", "1", 1), links="a"))
    store.take(request(("a", "1", 2), ("a", "2", 3), ("a", "3", 4)))
    assert len(store) == 3
    assert names(store, "a") == ["a1", "a2", "a3"]


async def test_services_send_protobuf_and_a_story_comes_as_json() -> None:
    transport = httpx.ASGITransport(create_app(SpanStore()))
    async with httpx.AsyncClient(transport=transport, base_url="http://spans") as client:
        sent = await client.post("/v1/traces", content=request(("a", "1", 7)).SerializeToString())
        assert sent.status_code == 200
        (span,) = (await client.get(f"/traces/{'a' * 32}")).json()["spans"]
        assert (span["service"], span["kind"], span["start"], span["parentId"]) == ("scheduler", "client", 7, None)
        assert (await client.get("/healthz")).json() == {"spans": 1}
