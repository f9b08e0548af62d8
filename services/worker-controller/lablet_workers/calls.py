"""A call by HTTP of somebody who may be cancelled, and who makes many."""

from typing import Any

import httpx

from lablet_common.tasks import cancelled_once


async def called(http: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    """The response, read to its end; cancelled at most once (see `cancelled_once`). Raises `httpx.HTTPError`.

    Nothing is left in a circle: httpx's response holds the stream that it was read from, which holds the response, and those
    that are under way when Python looks for circles would stay for long."""
    response = await cancelled_once(http.request(method, path, **more))
    response.stream = httpx.ByteStream(b"")
    return response
