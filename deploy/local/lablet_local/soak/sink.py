"""Where the webhooks of a soak are sent: something that takes whatever comes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Sink:
    """Takes webhooks: answers 204 to every POST."""

    def __init__(self) -> None:
        self.url = ""
        self.taken = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if lengths:
                    await reader.readexactly(int(lengths[0].partition(b":")[2]))
                self.taken += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()


@asynccontextmanager
async def open_sink() -> AsyncIterator[Sink]:
    """On a free port of 127.0.0.1."""
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    sink.url = f"http://{host}:{port}/"
    try:
        yield sink
    finally:
        server.close()
