"""Load from outside for the benchmarks: HTTP/1.1 on kept connections, at a steady rate or as fast as answers come.

The client shares the machine with what it measures, so it does as little as it can: a request is bytes, an answer is cut
by its Content-Length and not parsed further. It does not follow redirects, does not know chunked bodies (the event
stream has a reader of its own) and treats a broken connection as an error of the run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0 or self._waiter is None:
            return
        lowered = self._buffer[:head].lower()
        mark = lowered.find(b"content-length:")
        if mark < 0:
            self._waiter.set_exception(ConnectionError("an answer without a length"))
            return
        length = int(lowered[mark + 15 : mark + 30].split(b"\r\n", 1)[0])
        if len(self._buffer) < head + 4 + length:
            return
        answer = Answer(int(self._buffer[9:12]), self._buffer[head + 4 : head + 4 + length])
        self._buffer = b""
        waiter, self._waiter = self._waiter, None
        if not waiter.done():
            waiter.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionError("the server has closed the connection"))

    async def ask(self, request: bytes) -> Answer:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    @property
    def open(self) -> bool:
        """False once the server has closed it, as it does with what rests for some seconds."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Http:
    """Kept connections to one address; more are opened as they are needed."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        self._free: list[_Connection] = []
        self._all: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._all:
            connection.close()

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """The bytes of a request, to be made before the clock runs."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{method} /api/v1{path} HTTP/1.1\r\n{self._head}{lines}{length}\r\n".encode() + body

    async def send(self, request: bytes) -> Answer:
        """Raises `OSError` when the connection breaks."""
        connection = await self._take()
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        self._free.append(connection)
        return answer

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, expect: int
    ) -> bytes:
        """One request outside of a measurement; another status than the expected one ends the run."""
        answer = await self.send(self.request(method, path, body, headers))
        if answer.status != expect:
            raise SystemExit(f"{method} {path} was answered {answer.status}: {answer.body[:500].decode()}")
        return answer.body

    async def _take(self) -> _Connection:
        while self._free:
            if (connection := self._free.pop()).open:
                return connection
            self._all.remove(connection)
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
        self._all.append(connection)
        return connection


def expect(answer: Answer, *statuses: int) -> None:
    """A figure made of refusals would be none."""
    if answer.status not in statuses:
        raise SystemExit(f"the server answered {answer.status}: {answer.body[:500].decode()}")


async def saturate(tasks: Sequence[Callable[[], Awaitable[None]]], at_once: int) -> float:
    """Runs all, `at_once` at a time; real seconds."""
    left = iter(tasks)

    async def worker() -> None:
        for task in left:
            await task()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return time.perf_counter() - began


async def for_seconds(seconds: float, at_once: int, task: Callable[[], Awaitable[None]]) -> float:
    """Repeats the task, `at_once` of it at a time; how often it was done in a second."""
    done = 0
    began = time.perf_counter()

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await task()
            done += 1

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return done / (time.perf_counter() - began)


async def paced(count: int, rate: float, send: Callable[[int], Awaitable[None]]) -> list[float]:
    """Sends at a steady rate whatever the answers do; milliseconds each took from the moment it was due, sorted. So a
    stall is counted for everybody whom it kept waiting."""
    times: list[float] = []
    start = time.perf_counter() + 0.05

    async def one(number: int) -> None:
        await send(number)
        times.append((time.perf_counter() - start - number / rate) * 1000)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            wait = start + number / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.create_task(one(number))
    return sorted(times)


def at(percent: float, times: Sequence[float]) -> float:
    """The percentile of sorted values."""
    return times[min(len(times) - 1, int(len(times) * percent / 100))]
