"""A call by HTTP is held by nobody once it has been answered."""

import asyncio
import gc
import weakref

import httpx

from lablet_workers.calls import called


async def test_a_response_is_let_go_at_once() -> None:
    """Those of httpx hold themselves, which services look for seldom."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"state": "STARTED"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://worker") as http:
        gc.collect()
        gc.disable()
        try:
            response = await called(http, "GET", "/labs")
            assert response.json() == {"state": "STARTED"}
            left = weakref.ref(response)
            del response
            await asyncio.sleep(0)  # the loop still has the step's own future in hand
            assert left() is None
        finally:
            gc.enable()
