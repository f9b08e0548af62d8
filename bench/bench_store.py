"""What the etcd client costs: ours beside gRPC's bare calls and beside etcd3-py (JSON over HTTP), on one real server.

Each measures the same work in turn, four times, and the best run counts: gets one after another and 32 at a time, puts 32 at
a time, transactions of 100 puts, a list of 2,000 keys, and events through a watch. A list is measured twice: `list` waits for
the answer and counts it, which gRPC's message does without a look at its 2,000 parts, where ours are values already; `read`
takes key, value and revision of each into a dictionary, as whoever asks for a list does. The server is started here with a
folder in memory where there is one, so that its disk does not hide the client. Under 40 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import etcd3
import grpc.aio
import uvloop
from report import options as common
from report import report

from lablet_common.store import Delete, EtcdStore, Operation, Put
from lablet_common.store.proto import etcd_pb2 as pb
from lablet_common.testing.etcd import EtcdServer

KEYS = 2000
VALUE = b"x" * 512
SECONDS = 0.3
"""Length of one measurement."""
ROUNDS = 4
EVENTS = 4000


Read = dict[Any, tuple[bytes, int]]
"""Key → value and revision."""


class Client(Protocol):
    """The same work on each library, each in the way its own users would do it."""

    name: str

    async def get(self, key: str) -> None: ...

    async def put(self, key: str) -> None: ...

    async def txn(self, keys: Sequence[str]) -> None: ...

    async def list(self, prefix: str) -> int:
        """How many there are, by an answer that holds them all."""
        ...

    async def read(self, prefix: str) -> Read:
        """All that there are."""
        ...

    async def watch(self, prefix: str, ready: asyncio.Event, count: int) -> None:
        """Reads so many events."""
        ...


class Ours:
    name = "ours"

    def __init__(self, endpoint: str) -> None:
        self.store = EtcdStore([endpoint], prefix="/bench")

    async def get(self, key: str) -> None:
        assert await self.store.get(key)

    async def put(self, key: str) -> None:
        await self.store.put(key, VALUE)

    async def txn(self, keys: Sequence[str]) -> None:
        await self.store.txn([], [Put(key, VALUE) for key in keys])

    async def list(self, prefix: str) -> int:
        return len((await self.store.range(prefix)).items)

    async def read(self, prefix: str) -> Read:
        return {kv.key: (kv.value, kv.mod_revision) for kv in (await self.store.range(prefix)).items}

    async def watch(self, prefix: str, ready: asyncio.Event, count: int) -> None:
        async with self.store.watch(prefix) as batches:
            ready.set()
            async for batch in batches:
                count -= len(batch.events)
                if count <= 0:
                    return


class Bare:
    """gRPC's own calls on etcd's messages: nothing is translated, retried or checked."""

    name = "bare"

    def __init__(self, endpoint: str) -> None:
        unlimited = [("grpc.max_receive_message_length", -1)]
        self.channel = grpc.aio.insecure_channel(endpoint, options=unlimited)
        self.range = self._call("KV/Range", pb.RangeRequest, pb.RangeResponse)
        self.put_one = self._call("KV/Put", pb.PutRequest, pb.PutResponse)
        self.txn_one = self._call("KV/Txn", pb.TxnRequest, pb.TxnResponse)
        self.stream: Any = self.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )

    def _call(self, path: str, request: Any, response: Any) -> Any:
        return self.channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    async def get(self, key: str) -> None:
        assert (await self.range(pb.RangeRequest(key=b"/bench" + key.encode()))).kvs

    async def put(self, key: str) -> None:
        await self.put_one(pb.PutRequest(key=b"/bench" + key.encode(), value=VALUE))

    async def txn(self, keys: Sequence[str]) -> None:
        puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"/bench" + k.encode(), value=VALUE)) for k in keys]
        await self.txn_one(pb.TxnRequest(success=puts))

    async def list(self, prefix: str) -> int:
        return len(await self._kvs(prefix))

    async def read(self, prefix: str) -> Read:
        return {kv.key: (kv.value, kv.mod_revision) for kv in await self._kvs(prefix)}

    async def _kvs(self, prefix: str) -> Any:
        first = b"/bench" + prefix.encode()
        return (await self.range(pb.RangeRequest(key=first, range_end=first[:-1] + b"0"))).kvs

    async def watch(self, prefix: str, ready: asyncio.Event, count: int) -> None:
        first = b"/bench" + prefix.encode()
        stream = self.stream()
        create = pb.WatchCreateRequest(key=first, range_end=first[:-1] + b"0")
        await stream.write(pb.WatchRequest(create_request=create))
        await stream.read()
        ready.set()
        while count > 0:
            count -= len((await stream.read()).events)
        stream.cancel()


class Etcd3Py:
    """etcd3-py 0.1.6 and its asynchronous client."""

    name = "etcd3py"

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.client = etcd3.AioClient(host, int(port), timeout=30, pool_size=64)

    async def get(self, key: str) -> None:
        assert (await self.client.range("/bench" + key)).kvs

    async def put(self, key: str) -> None:
        await self.client.put("/bench" + key, VALUE)

    async def txn(self, keys: Sequence[str]) -> None:
        puts = [self.client.put("/bench" + key, VALUE, txn_obj=True) for key in keys]
        await self.client.txn(compare=[], success=puts, failure=[])

    async def list(self, prefix: str) -> int:
        return len((await self.client.range("/bench" + prefix, prefix=True)).kvs)

    async def read(self, prefix: str) -> Read:
        answer = await self.client.range("/bench" + prefix, prefix=True)
        return {kv.key: (kv.value, kv.mod_revision) for kv in answer.kvs}

    async def watch(self, prefix: str, ready: asyncio.Event, count: int) -> None:
        stream = self.client.watch_create("/bench" + prefix, prefix=True)
        try:
            async for answer in stream:
                if answer.created:
                    ready.set()
                count -= len(answer.events or ())
                if count <= 0:
                    return
        finally:
            stream.close()


async def rate(step: Callable[[int], Awaitable[object]], lanes: int = 1, seconds: float = SECONDS) -> float:
    """Steps a second, so many at a time."""
    end = time.perf_counter() + seconds
    done = 0

    async def lane(number: int) -> None:
        nonlocal done
        turn = number
        while time.perf_counter() < end:
            await step(turn)
            turn += lanes
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(lane, range(lanes)))
    return done / (time.perf_counter() - began)


async def listing(step: Callable[[str], Awaitable[int | Read]]) -> float:
    """Milliseconds for a list of all keys."""

    async def one(_: int) -> None:
        found = await step("/list/")
        assert (found if isinstance(found, int) else len(found)) == KEYS

    return 1000 / await rate(one)


async def watching(client: Client, writer: EtcdStore) -> float:
    """Events a second from the first write to the last event read; the writes come in transactions of 100."""
    ready = asyncio.Event()
    prefix = f"/watch/{client.name}/"
    reading = asyncio.create_task(client.watch(prefix, ready, EVENTS))
    entering = asyncio.create_task(ready.wait())
    await asyncio.wait({reading, entering}, return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        entering.cancel()
        await reading
    writes: list[Operation] = [Put(f"{prefix}{i}", VALUE) for i in range(100)]
    began = time.perf_counter()
    writing = asyncio.gather(*(writer.txn([], writes) for _ in range(EVENTS // 100)))
    async with asyncio.timeout(20):
        await reading
    seconds = time.perf_counter() - began
    await writing
    return EVENTS / seconds


def measures(client: Client, writer: EtcdStore) -> Iterable[tuple[str, Callable[[], Awaitable[float]], bool]]:
    """Name, measurement, and whether more is better."""

    def key(turn: int) -> str:
        return f"/list/{turn % KEYS:05}"

    yield "get", lambda: rate(lambda turn: client.get(key(turn))), True
    yield "get32", lambda: rate(lambda turn: client.get(key(turn)), lanes=32), True
    yield "put32", lambda: rate(lambda turn: client.put(f"/put/{turn % KEYS}"), lanes=32), True
    yield "txn100", lambda: rate(lambda _: client.txn([f"/txn/{i}" for i in range(100)])), True
    yield "list_ms", lambda: listing(client.list), False
    yield "read_ms", lambda: listing(client.read), False
    yield "watch", lambda: watching(client, writer), True


@asynccontextmanager
async def clients(endpoint: str) -> AsyncIterator[list[Client]]:
    ours, bare, theirs = Ours(endpoint), Bare(endpoint), Etcd3Py(endpoint)
    try:
        yield [ours, bare, theirs]
    finally:
        await ours.store.close()
        await bare.channel.close(None)
        await theirs.client.close()


async def measure(endpoint: str) -> dict[str, dict[str, float | str]]:
    table: dict[str, dict[str, float | str]] = {}
    async with clients(endpoint) as everyone:
        writer = EtcdStore([endpoint], prefix="/bench")
        for start in range(0, KEYS, 100):
            await writer.txn([], [Put(f"/list/{i:05}", VALUE) for i in range(start, start + 100)])
        for _ in range(ROUNDS):
            for client in everyone:
                row = table.setdefault(client.name, {})
                for name, run, more in measures(client, writer):
                    try:
                        value = await run()
                    except (TypeError, AttributeError, ValueError) as error:  # etcd3-py, where it does not work at all
                        row[name] = f"failed:{type(error).__name__}"
                        continue
                    known = row.get(name)
                    row[name] = value if not isinstance(known, float) else (max if more else min)(known, value)
                await writer.txn([], [Delete("/watch/", prefix=True), Delete("/put/", prefix=True)])
                await writer.compact((await writer.status()).revision)
        await writer.close()
    return table


def show(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio(table: dict[str, dict[str, float | str]], column: str) -> float:
    """How much of the bare calls' speed is left through our client."""
    ours, bare = table["ours"][column], table["bare"][column]
    if isinstance(ours, str) or isinstance(bare, str):
        return 0.0
    return bare / ours if column.endswith("_ms") else ours / bare


def main() -> None:
    options = common(argparse.ArgumentParser(description=__doc__)).parse_args()
    began = time.perf_counter()
    memory = Path("/dev/shm")
    place = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, EtcdServer.start(Path(folder)) as server:
        version = ".".join(map(str, server.binary.version))
        table = uvloop.run(measure(server.endpoint))
    columns = list(next(iter(table.values())))
    print(f"{'per second':12}" + "".join(f"{column:>12}" for column in columns))
    for name, row in table.items():
        print(f"{name:12}" + "".join(f"{show(row[column]):>12}" for column in columns))
    figures = {f"{name}_{column}": show(row[column]) for name, row in table.items() for column in columns}
    ratios = {f"ratio_{column}": f"{ratio(table, column):.2f}" for column in columns}
    report(
        "store", {"etcd": version, **figures, **ratios, "seconds": f"{time.perf_counter() - began:.0f}"}, options.json
    )


if __name__ == "__main__":
    main()
