"""A small HTTP server of a test's own, for whom the system calls: a webhook's sink."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from lablet_common.bus.permissions import ServerTls


@asynccontextmanager
async def serving(
    take: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ServerTls | None = None
) -> AsyncIterator[str]:
    """Its address on a free port, without a slash at the end; `take` answers whatever method and path are asked for."""
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
