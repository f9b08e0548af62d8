"""The trace of a reservation, from a span store."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

ORIGIN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "POST", "kind": "server",
        "service": "api-gateway", "start": 1, "end": 2}  # fmt: skip


@asynccontextmanager
async def span_store(world: Any, body: bytes) -> AsyncIterator[list[str]]:
    """Answers everything with `body`; gives the paths that were asked for."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = world.parts.settings.model_copy(update={"trace_store_url": url})
    world.app.state.parts = replace(world.parts, settings=settings)
    try:
        yield asked
    finally:
        server.close()


async def add(world: Any, name: str, trace_parent: str | None) -> str:
    one = world.reservation(name)
    await world.add(one.model_copy(update={"metadata": one.metadata.model_copy(update={"trace_parent": trace_parent})}))
    return f"/api/v1/reservations/{one.id}/trace"


async def test_the_trace_of_its_request_is_asked_for_and_given(world: Any) -> None:
    path = await add(world, "rsv-1", ORIGIN)
    async with span_store(world, json.dumps({"spans": [SPAN]}).encode()) as asked:
        answer = await world.client().get(path)
    assert answer.status_code == 200, answer.text
    assert asked == ["/traces/0af7651916cd43dd8448eb211c80319c"]
    assert [span["name"] for span in answer.json()["spans"]] == ["POST"]


async def test_without_a_store_and_with_one_that_talks_nonsense_the_reason_is_said(world: Any) -> None:
    path = await add(world, "rsv-1", ORIGIN)
    missing = await world.client().get(path)
    assert (missing.status_code, missing.json()["title"]) == (404, "No traces are kept")
    assert "TRACE_STORE_URL" in missing.json()["detail"]
    async with span_store(world, b"hello"):
        assert (await world.client().get(path)).status_code == 503


async def test_a_request_that_was_not_sampled_has_no_spans(world: Any) -> None:
    path = await add(world, "rsv-1", None)
    async with span_store(world, b"") as asked:
        answer = await world.client().get(path)
    assert (answer.json()["spans"], asked) == ([], [])
