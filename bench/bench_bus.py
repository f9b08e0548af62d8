"""Intents through our consumer against raw nats-py on the same stream, on a real server of its own; then the bridge.

Three runs over the same messages: raw nats-py (fetch a hundred, acknowledge each, nothing read), raw nats-py that also
parses the JSON, and the consumer (CloudEvents binding, per-key order, retries, dead letters, metrics, validation of the
body against its model); then raw and the consumer again while a tenth of the stories is traced (`ratio_traced`). Then the
delay from publish to handler at a steady rate, and the publish rate by itself. The bridge is measured by `bridging`, with
an etcd and a server of its own.

    .venv/bin/python bench/bench_bus.py
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from bridging import bridging
from nats.js.errors import FetchTimeoutError
from receiver import Receiver
from report import options as common
from report import report

from lablet_common.bus import Bus, Received, intents_stream
from lablet_common.events import EVENTS, CloudEvent, Outgoing, data_of, message_id, subjects
from lablet_common.resources import Service
from lablet_common.service import collect_seldom
from lablet_common.settings import NatsSettings, TelemetrySettings
from lablet_common.telemetry.traces import configure_tracing
from lablet_common.testing.nats import NatsServer

MESSAGES = 20_000
KEYS = 500
IN_FLIGHT = 64
ROUNDS = 3
STEADY_RATE = 1_000
STEADY_SECONDS = 5
STREAM = intents_stream(Service.SCHEDULER)
FILTER = subjects.intent_filter(Service.SCHEDULER)
TYPE = "io.lablet.reservation.requested.v1"


def intent(number: int) -> Outgoing:
    """A tenth of them belongs to stories that are kept, should anybody trace."""
    resource_id = f"rsv-{number % KEYS}"
    body = {
        "id": resource_id,
        "owner": "learner-17",
        "definition": "ospf-basics@1.0.0",
        "pools": ["default"],
        "seats": 2,
        "start": "2027-03-01T09:00:00Z",
        "end": "2027-03-01T11:00:00Z",
        "durationMinutes": 120,
        "labels": {"course": "ccna-1"},
    }
    attributes = {
        "id": f"intent-{number}",
        "source": "/lablet/api-gateway",
        "type": TYPE,
        "subject": f"reservation/{resource_id}",
        "time": datetime.now(UTC),
        "datacontenttype": "application/json",
        "dataschema": EVENTS[TYPE].schema_url,
        "sequence": f"{number:020}",
        "tenant": "default",
        "partitionkey": "default",
        "correlationid": f"req-{number}",
        "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-{number % 10 == 0:02x}",
    }
    subject = subjects.intent_subject("scheduler", "default", "reservation", resource_id)
    event = CloudEvent(attributes, json.dumps(body).encode())
    return Outgoing(subject, event, message_id("default", "gateway", event.get_id()))


async def publish_all(bus: Bus, first: int, count: int) -> float:
    """Messages a second, with IN_FLIGHT waiting for their acknowledgement."""
    numbers = iter(range(first, first + count))

    async def worker() -> None:
        for number in numbers:
            await bus.publish(intent(number))

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def raw(bus: Bus, name: str, look: Callable[[bytes], object]) -> float:
    subscription = await bus.connection.js.pull_subscribe(FILTER, durable=name, stream=STREAM)
    done = 0
    began = time.perf_counter()
    while done < MESSAGES:
        try:
            messages = await subscription.fetch(100, timeout=5)
        except FetchTimeoutError:
            break
        for message in messages:
            look(message.data)
            await message.ack()
        done += len(messages)
    seconds = time.perf_counter() - began
    await subscription.unsubscribe()
    await bus.remove_consumer(STREAM, name)
    assert done == MESSAGES, f"{done} of {MESSAGES} messages came"
    return done / seconds


async def consume(bus: Bus, name: str, handler: Callable[[Received], Awaitable[None]], enough: asyncio.Event) -> None:
    consumer = bus.consumer(STREAM, name, [FILTER], handler)
    task = asyncio.create_task(consumer.run())
    try:
        async with asyncio.timeout(30):
            await enough.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ours(bus: Bus, name: str) -> float:
    done = 0
    enough = asyncio.Event()
    last: dict[str, int] = {}
    model = EVENTS[TYPE].data

    async def handler(message: Received) -> None:
        nonlocal done
        model.model_validate(data_of(message.event))
        assert message.sequence > last.get(message.id, -1), "out of order within a key"
        last[message.id] = message.sequence
        done += 1
        if done == MESSAGES:
            enough.set()

    began = time.perf_counter()
    await consume(bus, name, handler, enough)
    seconds = time.perf_counter() - began
    await bus.remove_consumer(STREAM, name)
    return MESSAGES / seconds


async def delay(bus: Bus) -> list[float]:
    """Milliseconds from before the publish until the handler runs."""
    count = STEADY_RATE * STEADY_SECONDS
    first = 10_000_000
    sent: dict[int, float] = {}
    delays: list[float] = []
    enough = asyncio.Event()

    async def handler(message: Received) -> None:
        began = sent.get(message.sequence)
        if began is not None:
            delays.append((time.perf_counter() - began) * 1000)
            if len(delays) == count:
                enough.set()

    async def send() -> None:
        # Batches of 5, evenly spaced: a timer a millisecond would measure the event loop.
        async with asyncio.TaskGroup() as tasks:
            start = time.perf_counter()
            for number in range(count):
                if number % 5 == 0:
                    await asyncio.sleep(max(0.0, start + number / STEADY_RATE - time.perf_counter()))
                sent[first + number] = time.perf_counter()
                tasks.create_task(bus.publish(intent(first + number)))

    await bus.connection.js.purge_stream(STREAM)
    await asyncio.gather(consume(bus, "delay", handler, enough), send())
    return sorted(delays)


@asynccontextmanager
async def tracing() -> AsyncIterator[None]:
    """From here on a tenth of the stories is traced, as is usual; spans go to a receiver in this process."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = TelemetrySettings(
        otel_exporter_otlp_endpoint=f"http://127.0.0.1:{port}",
        otel_traces_sampler="parentbased_traceidratio",
        otel_traces_sampler_arg=0.1,
    )
    provider = configure_tracing(settings, "bench", "1")
    assert provider is not None
    try:
        yield
        await asyncio.to_thread(provider.force_flush)
        assert receiver.received, "no span came to the receiver"
    finally:
        await asyncio.to_thread(provider.shutdown)
        server.close()


async def consuming(server: NatsServer) -> dict[str, object]:
    """Publishing, consuming and the delay of intents."""
    bus = Bus(NatsSettings(url=server.url), Service.GATEWAY)
    await bus.connect()
    try:
        published = await publish_all(bus, 0, MESSAGES)
        bare, parsing, full = [], [], []
        for number in range(ROUNDS):  # taken in turns, so that a noisy moment hits all of them
            bare.append(await raw(bus, f"raw-{number}", lambda data: data))
            parsing.append(await raw(bus, f"parse-{number}", json.loads))
            full.append(await ours(bus, f"ours-{number}"))
        delays = await delay(bus)
        await publish_all(bus, 20_000_000, MESSAGES)
        bare_beside, traced = [], []
        async with tracing():
            for number in range(ROUNDS):
                bare_beside.append(await raw(bus, f"raw-beside-{number}", lambda data: data))
                traced.append(await ours(bus, f"traced-{number}"))
    finally:
        await bus.close()
    bare_rate, parse_rate, rate = (statistics.median(rates) for rates in (bare, parsing, full))
    traced_rate = statistics.median(traced)
    return {
        "messages": MESSAGES,
        "publish_per_s": f"{published:.0f}",
        "raw_per_s": f"{bare_rate:.0f}",
        "raw_json_per_s": f"{parse_rate:.0f}",
        "consumer_per_s": f"{rate:.0f}",
        "ratio": f"{rate / bare_rate:.2f}",
        "traced_per_s": f"{traced_rate:.0f}",
        "ratio_traced": f"{traced_rate / statistics.median(bare_beside):.2f}",
        "delay_rate_per_s": STEADY_RATE,
        "delay_p50_ms": f"{delays[len(delays) // 2]:.2f}",
        "delay_p99_ms": f"{delays[int(len(delays) * 0.99)]:.2f}",
        "delay_max_ms": f"{delays[-1]:.2f}",
    }


def main() -> None:
    options = common(argparse.ArgumentParser(description=__doc__)).parse_args()
    collect_seldom()
    with tempfile.TemporaryDirectory() as folder, NatsServer.start(Path(folder) / "nats") as server:
        figures = uvloop.run(consuming(server))
    memory = Path("/dev/shm")
    place = str(memory) if memory.is_dir() else None  # so that etcd's disk does not hide the bridge
    with tempfile.TemporaryDirectory(dir=place) as folder, NatsServer.start(Path(folder) / "nats") as server:
        figures |= uvloop.run(bridging(Path(folder) / "etcd", server.url))
    report("bus", figures, options.json)


if __name__ == "__main__":
    main()
