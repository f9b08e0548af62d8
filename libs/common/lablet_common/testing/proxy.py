"""A TCP proxy that does to a connection what networks do: swallow the answers, break off, refuse, fall silent.

Between a client and a real server it makes the faults that cannot be asked of the server itself, above all the answer that
gets lost after the server has done the work.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_CHUNK = 65536


class FaultyProxy:
    """Listens on a free port of 127.0.0.1 while inside `async with` and passes everything on to `target` (`host:port`).
    Where something else listens, it is handed connections (`serve`) and told when it is over (`end`)."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._port = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.swallow_answers = False
        """True: what the client sends arrives, what the server says does not."""
        self.swallow_requests = False
        """True: what the client sends does not arrive."""
        self.refuse = False
        """True: a new connection is closed at once."""
        self.delay_seconds = 0.0
        """How late everything comes, each way."""
        self.accepted = 0
        """Connections that were accepted so far."""
        self.swallowed_bytes = 0

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.end()

    async def end(self) -> None:
        """Breaks all connections; returns when nothing of them is left."""
        self.break_off()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def break_off(self) -> None:
        """Breaks all present connections."""
        for writer in tuple(self._connections):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        if self.refuse:
            writer.transport.abort()
            return
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            from_server, behind = await asyncio.open_connection(*self._target)
            self._connections.add(behind)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, behind, answers=False))
                both.create_task(self._pass_on(from_server, writer, answers=True))
        except* (ConnectionError, OSError):
            pass  # one side is gone: so is the other, below
        finally:
            for side in (writer, behind):
                if side is not None:
                    self._connections.discard(side)
                    side.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(_CHUNK):
            if self.swallow_answers if answers else self.swallow_requests:
                self.swallowed_bytes += len(data)
                continue
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(ConnectionError, OSError):
            sink.transport.abort()
