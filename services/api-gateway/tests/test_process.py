"""One real gateway process on real etcd and NATS: accept, publish, stream, outages, a prompt end."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from aiohttp import web

from lablet_common.bus.messages import DeadLetter
from lablet_common.bus.permissions import NatsUser, Permissions, external_user, service_user
from lablet_common.events import subjects
from lablet_common.resources.kinds import Service, kind_of
from lablet_common.secrets import new_key_line
from lablet_common.store import EtcdStore
from lablet_common.store.repository import Repository
from lablet_common.testing.etcd import EtcdServer, find_etcd, free_ports
from lablet_common.testing.nats import NatsServer, find_nats_server
from lablet_common.testing.sinks import serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_etcd() is None, reason="no etcd on this machine"),
    pytest.mark.skipif(find_nats_server() is None, reason="no nats-server on this machine"),
]
ALL = NatsUser("everything", "e", Permissions((">",), (">",)))


@dataclass
class Mesh:
    url: str
    process: asyncio.subprocess.Process
    etcd: EtcdServer
    nats: NatsServer
    store: EtcdStore
    client: httpx.AsyncClient
    settings: dict[str, str]

    async def book(self, **more: Any) -> httpx.Response:
        start = (datetime.now(UTC) + timedelta(hours=1)).replace(second=0, microsecond=0)
        body = {"definition": "ospf-basics", "start": start.isoformat(), "durationMinutes": 60, **more}
        return await self.client.post("/api/v1/reservations", json=body)

    async def everything(self) -> Any:
        return await nats.connect(self.nats.url, user="everything", password="e", inbox_prefix=b"_INBOX_everything")


@pytest.fixture
async def mesh(request: pytest.FixtureRequest, tmp_path: Path, world: Any) -> AsyncIterator[Mesh]:
    tokens = tmp_path / "tokens.json"
    digest = hashlib.sha256(b"t").hexdigest()
    tokens.write_text(json.dumps([{"name": "root", "role": "admin", "tenant": "default", "sha256": digest}]))
    (port,) = free_ports(1)
    users = [service_user(Service.GATEWAY, "g"), external_user("outside", "default", "o"), ALL]
    with EtcdServer.start(tmp_path / "etcd") as etcd, NatsServer.start(tmp_path / "nats", users=users) as server:
        store = EtcdStore([etcd.endpoint])
        for resource in (world.template(), world.pool(), world.worker(), world.definition()):
            await Repository(store, kind_of(resource)).create(resource)
        settings = {
            "ETCD_ENDPOINTS": etcd.endpoint, "NATS_URL": server.url, "NATS_USER": "api-gateway", "NATS_PASSWORD": "g",
            "GATEWAY_PORT": str(port), "GATEWAY_RATE_LIMIT": "0",
            "API_TOKENS_FILE": str(tokens), "OWNERSHIP_LEASE_TTL_SECONDS": "2", "LOG_LEVEL": "INFO",
            "SECRETS_KEY_FILE": str(tmp_path / "webhooks.keys"), "WEBHOOK_ALLOW_PRIVATE": "true",
            "GATEWAY_HEARTBEAT_SECONDS": "1", "ARTIFACT_STORAGE_ENDPOINT": "http://127.0.0.1:9",
        } | getattr(request, "param", {})  # fmt: skip
        (tmp_path / "webhooks.keys").write_text(new_key_line("k1"))
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lablet_gateway", env=os.environ | settings, stderr=log
            )
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": "Bearer t"}, timeout=10) as client:
            try:
                await until_ready(client, process)
                yield Mesh(url, process, etcd, server, store, client, settings)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                await store.close()
                print((tmp_path / "log").read_text()[-4000:])


async def until_ready(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while process.returncode is None:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError("the gateway ended before it was ready")


@asynccontextmanager
async def listening(client: httpx.AsyncClient, last: str | None = None, query: str = "") -> AsyncIterator[Any]:
    """Events from the real stream, parsed; `id` beside them."""
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", f"/api/v1/events/stream{query}", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200

        async def frames() -> AsyncIterator[tuple[str, dict[str, Any]]]:
            number = ""
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    number = line[4:]
                elif line.startswith("data: "):
                    yield number, json.loads(line[6:])

        iterator = frames()
        yield iterator
        await iterator.aclose()


async def test_an_accepted_request_reaches_the_owner_and_the_listeners(mesh: Mesh) -> None:
    async with asyncio.timeout(30), listening(mesh.client, query="?kind=request") as events:
        answer = await mesh.book()
        assert answer.status_code == 202, answer.text
        request = answer.json()
        number, event = await anext(events)
        assert event["type"] == "io.lablet.request.accepted.v1"
        assert event["subject"] == f"request/{request['metadata']['id']}"
        assert event["source"] == "/lablet/api-gateway"
        connection = await mesh.everything()
        js = connection.jetstream()
        intent = await js.pull_subscribe(subjects.intent_filter("scheduler", "default"), stream="INTENTS_SCHEDULER")
        (message,) = await intent.fetch(1, timeout=10)
        assert message.headers["ce-type"] == "io.lablet.reservation.requested.v1"
        assert json.loads(message.data)["id"] == request["spec"]["subject"].partition("/")[2]
        await connection.close()
        second = (await mesh.book()).json()
    async with asyncio.timeout(10), listening(mesh.client, number, "?kind=request") as events:
        _, event = await anext(events)
        assert event["subject"] == f"request/{second['metadata']['id']}"
    story = await mesh.client.get(f"/api/v1/events?subject=request/{request['metadata']['id']}")
    assert [event["type"] for event in story.json()] == ["io.lablet.request.accepted.v1"]


async def test_without_nats_requests_are_accepted_and_published_when_it_is_back(mesh: Mesh) -> None:
    async with asyncio.timeout(40), listening(mesh.client, query="?kind=request") as events:
        await mesh.book()
        await anext(events)
        mesh.nats.stop()
        answers = [await mesh.book() for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202] * 5
        story = await mesh.client.get("/api/v1/events?subject=request/req-x")
        assert (story.status_code, story.json()["dependency"]) == (503, "nats")
        mesh.nats.launch()
        mesh.nats.wait_ready()
        told = [await anext(events) for _ in range(5)]
    wanted = {f"request/{answer.json()['metadata']['id']}" for answer in answers}
    assert {event["subject"] for _, event in told} == wanted


async def test_what_one_replica_accepts_another_finds_at_once_a_thousand_times(mesh: Mesh, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (tmp_path / "second.log").open("wb") as log:
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lablet_gateway",
            env=os.environ | mesh.settings | {"GATEWAY_PORT": str(port)},
            stderr=log,
        )
    other = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=mesh.client.headers, timeout=30)
    missed: list[str] = []

    async def book_here_and_look_there(here: httpx.AsyncClient, there: httpx.AsyncClient, times: int) -> None:
        start = (datetime.now(UTC) + timedelta(hours=1)).replace(second=0, microsecond=0)
        body = {"definition": "ospf-basics", "start": start.isoformat(), "durationMinutes": 60}
        for _ in range(times):
            accepted = await here.post("/api/v1/reservations", json=body, timeout=30)
            assert accepted.status_code == 202, accepted.text
            name = accepted.json()["spec"]["subject"].partition("/")[2]
            for path in (f"/api/v1/reservations/{name}", accepted.headers["location"]):
                found = await there.get(path, timeout=30)
                if found.status_code != 200:
                    missed.append(f"{found.status_code} {path}")

    try:
        await until_ready(other, second)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(book_here_and_look_there(mesh.client, other, 100))
                tasks.create_task(book_here_and_look_there(other, mesh.client, 100))
        assert missed == []
        assert (await mesh.store.range("/requests/default/", keys_only=True)).count == 1000
    finally:
        await other.aclose()
        second.kill()
        await second.wait()


async def test_without_etcd_the_answer_names_it_and_service_resumes_by_itself(mesh: Mesh) -> None:
    mesh.etcd.stop()
    answer = await mesh.client.get("/api/v1/reservations", timeout=30)
    assert (answer.status_code, answer.json()["dependency"]) == (503, "etcd")
    mesh.etcd.launch()
    mesh.etcd.wait_ready()
    async with asyncio.timeout(5):
        while (await mesh.book()).status_code != 202:
            await asyncio.sleep(0.1)


async def test_a_dead_letter_goes_back_to_where_it_came_from(mesh: Mesh) -> None:
    await mesh.book()
    connection = await mesh.everything()
    js = connection.jetstream()
    subject = subjects.intent_subject("scheduler", "default", "reservation", "rsv-dead")
    letter = DeadLetter(subject, {"ce-id": "7"}, b"{}", "INTENTS_SCHEDULER", 3, "scheduler-default", "poison", 5,
                        datetime.now(UTC))  # fmt: skip
    headers, payload = letter.message()
    async with asyncio.timeout(20):
        await js.publish(subjects.dlq_subject("scheduler", "scheduler-default"), payload, headers=headers)
        (listed,) = (await mesh.client.get("/api/v1/dead-letters")).json()["items"]
        assert (listed["reason"], listed["attempts"]) == ("poison", 5)
        answer = await mesh.client.post(f"/api/v1/dead-letters/{listed['sequence']}/replay")
        assert answer.status_code == 200, answer.text
        waiting = await js.pull_subscribe(subject, stream="INTENTS_SCHEDULER")
        (message,) = await waiting.fetch(1, timeout=5)
    assert (message.headers["ce-id"], message.data) == ("7", b"{}")
    async with asyncio.timeout(10):
        while not (entries := (await mesh.client.get("/api/v1/audit?action=dead-letter")).json()["items"]):
            await asyncio.sleep(0.05)
    assert [(entry["principal"], entry["action"]) for entry in entries] == [("root", "dead-letter.replay")]
    await connection.close()


async def test_a_stop_ends_open_streams_and_the_process_at_once(mesh: Mesh) -> None:
    async with asyncio.timeout(8), listening(mesh.client) as events:
        mesh.process.send_signal(signal.SIGTERM)
        assert [event async for event in events] == []
        assert await mesh.process.wait() == 0


async def test_the_object_store_being_away_is_a_degradation_that_uploads_name(mesh: Mesh) -> None:
    checks = (await mesh.client.get("/readyz")).json()["checks"]
    assert checks["etcd"] == "ok"
    assert checks["s3"].startswith("degraded")
    answer = await mesh.client.post(
        "/api/v1/definitions?name=vlans", content=b"lab: {}\n", headers={"Content-Type": "application/yaml"}, timeout=30
    )
    assert (answer.status_code, answer.json()["dependency"]) == (503, "s3")


async def test_an_outside_system_asks_over_nats_and_hears_what_is_refused(mesh: Mesh) -> None:
    outside = await nats.connect(mesh.nats.url, user="outside", password="o", inbox_prefix=b"_INBOX_outside")
    start = (datetime.now(UTC) + timedelta(hours=1)).replace(second=0, microsecond=0)
    body = {"definition": "ospf-basics", "start": start.isoformat(), "durationMinutes": 60}
    headers = {
        "ce-specversion": "1.0", "ce-source": "/lms", "ce-type": "io.lablet.reservation.requested.v1",
        "ce-correlationid": "course-7", "content-type": "application/json",
    }  # fmt: skip
    try:
        async with asyncio.timeout(30), listening(mesh.client, query="?correlation=course-7") as events:
            results = await outside.subscribe("lablet.ingress-result.default")
            await outside.flush()
            for event_id, data in (("1", body), ("1", body), ("2", {**body, "seats": 0})):
                message = json.dumps(data).encode()
                subject = "lablet.ingress.default.reservation"
                stored = await outside.request(subject, message, timeout=10, headers=headers | {"ce-id": event_id})
                assert json.loads(stored.data)["stream"] == "INGRESS"
            refused = await results.next_msg(timeout=20)
            assert refused.headers["ce-type"] == "io.lablet.ingress.refused.v1"
            assert json.loads(refused.data)["eventId"] == "2"
            _, event = await anext(events)
            assert event["type"] == "io.lablet.request.accepted.v1"
            requests = await mesh.client.get(event["subject"].replace("request/", "/api/v1/requests/"))
            assert requests.json()["spec"]["principal"] == "ingress"
        found = await mesh.store.range("/requests/default/")
        assert len(found.items) == 1, "the same event twice is one request"
    finally:
        await outside.close()


async def test_a_subscription_is_served_and_what_its_sink_refused_is_sent_again(mesh: Mesh) -> None:
    """Real rights on NATS: the gateway makes the consumers, buries, lists, replays, purges and removes."""
    taken: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        taken.put_nowait(json.loads(await request.read()))
        return web.Response(status=204)

    connection = await mesh.everything()
    js = connection.jetstream()
    try:
        async with serving(take) as sink, asyncio.timeout(40):
            made = await mesh.client.post("/api/v1/subscriptions", json={"name": "lms", "sink": f"{sink}/",
                                          "types": ["io.lablet.request.accepted"], "subjects": ["request/"]})  # fmt: skip
            assert made.status_code == 201, made.text
            subject = f"request/{(await mesh.book()).json()['metadata']['id']}"
            event = await taken.get()
            assert (event["type"], event["subject"]) == ("io.lablet.request.accepted.v1", subject)
            lost = {"id": "7", "type": "io.lablet.request.accepted.v1", "source": "/x", "specversion": "1.0",
                    "subject": "request/r", "tenant": "default"}  # fmt: skip
            message = DeadLetter("lablet.event.default.request.-.r", {f"ce-{name}": value for name, value in lost.items()},
                                 b"{}", "EVENTS", 3, "webhook-lms", "the sink was ill", 9, datetime.now(UTC))  # fmt: skip
            for number, consumer in enumerate(("webhook-lms", "webhook-lms", "scheduler-default")):
                letter = replace(message, consumer=consumer, stream_sequence=number)
                headers, payload = letter.message()
                await js.publish(subjects.dlq_subject("api-gateway", consumer), payload, headers=headers)
            only = {"consumer": "webhook-lms"}
            listed = (await mesh.client.get("/api/v1/dead-letters", params=only)).json()["items"]
            assert [item["reason"] for item in listed] == ["the sink was ill"] * 2
            answer = await mesh.client.post("/api/v1/subscriptions/lms/redeliver")
            assert answer.json() == {"redelivered": 2}
            assert [(await taken.get())["id"] for _ in range(2)] == ["7", "7"]
            assert (await mesh.client.get("/api/v1/dead-letters", params=only)).json()["items"] == []
            (left,) = (await mesh.client.get("/api/v1/dead-letters")).json()["items"]
            path = f"/api/v1/dead-letters/{left['sequence']}"
            assert (await mesh.client.delete(path)).status_code == 204
            assert (await mesh.client.delete(path)).status_code == 404
            assert (await mesh.client.delete("/api/v1/dead-letters")).json() == {"purged": 0}
            assert (await mesh.client.delete("/api/v1/subscriptions/lms")).status_code == 204
            while await mesh.store.get("/subscriptions/lms") is not None:
                await asyncio.sleep(0.05)
            for stream in ("EVENTS", "INTENTS_API_GATEWAY"):
                assert [c.name for c in await js.consumers_info(stream) if (c.name or "").startswith("webhook-")] == []
    finally:
        await connection.close()


@pytest.mark.parametrize("mesh", [{"GATEWAY_DRAIN_SECONDS": "1.5"}], indirect=True)
async def test_asked_to_stop_it_says_so_and_serves_until_the_proxy_has_noticed(mesh: Mesh) -> None:
    mesh.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        while (await mesh.client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.01)
        assert (await mesh.client.get("/api/v1/version", headers={"connection": "close"})).status_code == 200
        assert (await mesh.book()).status_code == 202
        assert await mesh.process.wait() == 0
