"""A collector of spans that keeps none of them."""

import asyncio
from dataclasses import dataclass


@dataclass
class Receiver:
    """Takes spans over OTLP/HTTP and forgets them."""

    requests: int = 0
    received: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.requests, self.received = self.requests + 1, self.received + length
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
