"""What the client's tests stand on: a scripted gateway, the real gateway with a small owner behind it, and the command.

The real gateway runs on its twins (store, objects, event log in memory) in a thread with an event loop of its own; the
owner decides what waits in every inbox in the simplest way that is true to the architecture.
"""

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from lablet_client.client import Client
from lablet_client.connection import Connection
from lablet_client.retry import Retry
from lablet_common.bus.memory import PlainLog

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]
URL = "http://lablet.test"
QUICK = Retry(initial=0.001, maximum=0.002, patience=1.0)
NOW = datetime(2027, 3, 1, 8, 0, tzinfo=UTC)


@dataclass
class Scripted:
    """A gateway that answers by script: for each method and path a list whose last entry is repeated."""

    script: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    seen: list[httpx.Request] = field(default_factory=list)

    def on(self, method: str, path: str, *answers: Answer | Mapping[str, Any] | list[Any]) -> None:
        key = (method, path if path.startswith("/api") else f"/api/v1{path}")
        self.script[key] = [
            httpx.Response(200, json=answer) if isinstance(answer, dict | list) else answer  # type: ignore[misc]
            for answer in answers
        ]

    def sent(self, method: str, path: str) -> list[httpx.Request]:
        return [r for r in self.seen if r.method == method and r.url.path == f"/api/v1{path}"]

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        waiting = self.script.get((request.method, request.url.path))
        if waiting is None:
            problem = {"type": "about:blank", "title": "Not found", "status": 404, "detail": f"no {request.url.path}"}
            return httpx.Response(404, json=problem, headers={"content-type": "application/problem+json"})
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return answer(request)


@pytest.fixture
def scripted() -> Scripted:
    gateway = Scripted()
    gateway.on("GET", "/clock", {"now": "2027-03-01T08:00:00Z", "speed": 1.0})
    return gateway


@pytest.fixture
def client(scripted: Scripted) -> Client:
    return Client(connection=Connection(URL, "secret"), http=scripted.transport(), retry=QUICK)


@pytest.fixture
def problem() -> Callable[..., httpx.Response]:
    def make(status: int, detail: str = "", headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        slug = more.pop("slug", "conflict")
        body = {"type": f"https://lablet.io/problems/{slug}", "title": slug, "status": status, "detail": detail, **more}
        kind = {"content-type": "application/problem+json"}
        return httpx.Response(status, json=body, headers={**kind, **(headers or {})})

    return make


@pytest.fixture
def reservation() -> Callable[..., dict[str, Any]]:
    """A reservation's document."""

    def make(
        phase: str = "Scheduled", *, revision: int = 7, passed: tuple[str, ...] = (), **changes: Any
    ) -> dict[str, Any]:
        moves = [
            {"from": "Pending", "to": to, "at": "2027-03-01T07:00:00Z", "by": "/lablet/scheduler", "reason": "Placed"}
            for to in (*passed, phase)
            if to != "Pending"
        ]
        body: dict[str, Any] = {
            "kind": "Reservation",
            "metadata": {
                "id": "rsv-a",
                "uid": "u-1",
                "owner": "ada",
                "createdAt": "2027-03-01T07:00:00Z",
                "resourceVersion": str(revision),
                "labels": {"course": "ccna-1"},
            },
            "spec": {
                "definition": "ospf-basics@1.0.0",
                "seats": 2,
                "start": "2027-03-01T09:00:00Z",
                "end": "2027-03-01T11:00:00Z",
                "durationMinutes": 120,
            },
            "status": {
                "phase": phase,
                "pool": "default",
                "history": moves,
                "placement": [
                    {"seat": 1, "worker": "default-003", "ports": {"r1_serial": 2000}, "instance": "ins-a-1"},
                    {"seat": 2, "worker": "default-003", "ports": {"r1_serial": 2001}, "instance": "ins-a-2"},
                ],
            },
        }
        body["status"] |= changes
        return body

    return make


@pytest.fixture
def worker() -> dict[str, Any]:
    """A worker's document."""
    return {
        "kind": "Worker",
        "metadata": {"id": "default-001", "uid": "u", "createdAt": "2027-03-01T07:00:00Z", "resourceVersion": "5"},
        "spec": {
            "pool": "default",
            "template": "simulated",
            "capacity": {"cpuCores": 16, "memoryGb": 64, "storageGb": 200},
            "maxNodes": 40,
            "license": "ENTERPRISE",
        },
        "status": {"phase": "Ready"},
    }


@dataclass
class Command:
    """The `lablet` command as typed, against some gateway."""

    session: Callable[[], Any]
    stdout: str = ""
    stderr: str = ""

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        from lablet_client.cli.main import app

        result = CliRunner().invoke(app, list(arguments), obj=self.session(), input=stdin)
        self.stdout, self.stderr = result.stdout, result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"exit code {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result.stdout


@pytest.fixture
def lablet(scripted: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Command:
    """The command against the scripted gateway."""
    from lablet_client.cli.session import Session

    _clean(monkeypatch, tmp_path)
    return Command(lambda: Session(url=URL, http=scripted.transport, retry=QUICK, width=110))


def _clean(monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    for name in ("LABLET_URL", "LABLET_TOKEN", "LABLET_TOKEN_FILE", "LABLET_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TZ", "UTC")


TOKENS = {role: f"token-of-{role}" for role in ("admin", "operator", "instructor", "learner")}


class Mesh:
    """The real gateway in a thread, and the owner behind it. `call` runs a coroutine function in its loop."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        self.deciding = True
        self.speed = 1.0
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._crash: BaseException | None = None

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20), "the gateway has not started"
        if self._crash is not None:
            raise self._crash

    def stop(self) -> None:
        if self._stop is not None:
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._crash is not None:
            raise self._crash

    def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def token(self, role: str) -> str:
        return TOKENS[role]

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - shown by whoever started it
            self._crash = error
        finally:
            self._ready.set()
            self.loop.close()

    async def _serve(self) -> None:
        import uvicorn

        from lablet_common.bridge import Bridge
        from lablet_common.clock import ManualClock
        from lablet_common.objects import MemoryObjectStore
        from lablet_common.ownership import Fence
        from lablet_common.resources.kinds import DEFINITION, KINDS, RESERVATION, WORKER
        from lablet_common.secrets import SecretBox
        from lablet_common.store import MemoryStore, Transaction
        from lablet_common.telemetry.health import EmbeddedServer, Health
        from lablet_gateway.app import caches_of, create_app
        from lablet_gateway.deadletters import MemoryDeadLetters
        from lablet_gateway.eventlog import MemoryEventLog
        from lablet_gateway.identity import Principal, Role
        from lablet_gateway.parts import Parts
        from lablet_gateway.settings import GatewaySettings
        from lablet_gateway.streams import Hub

        self._stop = asyncio.Event()
        self.store, self.objects, self.clock = MemoryStore(), MemoryObjectStore(), ManualClock(NOW)
        self.log, self.letters = MemoryEventLog(), MemoryDeadLetters()

        class Tokens:
            async def verify(self, token: str) -> Principal | None:
                role = next((role for role, known in TOKENS.items() if known == token), None)
                return Principal(f"a-{role}", Role(role), "default") if role else None

        hub = Hub(self.log, 1000)
        await _seed(self.store)
        fence_key = "/ownership/test/bridges"
        committed = await Transaction().put(fence_key, b"test").commit(self.store)
        fence = Fence(fence_key, committed.revision)

        async def publish(outgoing: Any) -> None:
            if outgoing.subject.startswith("lablet.event."):
                self.log.append(outgoing.event)

        bridges = [
            Bridge(self.store, kind, fence, PlainLog(publish), source=f"/lablet/{kind.owner}")
            for kind in KINDS.values()
            if kind in (RESERVATION, DEFINITION, WORKER) or kind.name in ("request", "pool", "instance")
        ]
        caches = caches_of(self.store)
        parts = Parts(
            settings=GatewaySettings(gateway_heartbeat_seconds=0.2, webhook_allow_private=True),
            store=self.store,
            objects=self.objects,
            clock=self.clock,
            caches=caches,
            verifier=Tokens(),
            events=self.log,
            hub=hub,
            dead_letters=self.letters,
            health=Health(),
            secrets=SecretBox({"k1": b"k" * 32}),
        )
        config = uvicorn.Config(
            create_app(parts), host="127.0.0.1", port=self.port, lifespan="off", log_level="warning", ws="none",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = EmbeddedServer(config)
        async with caches:
            await caches.wait_synced()
            tasks = [asyncio.create_task(bridge.run()) for bridge in bridges]
            tasks += [asyncio.create_task(hub.run()), asyncio.create_task(self._decide())]
            serving = asyncio.create_task(server.serve())
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            self._ready.set()
            await self._stop.wait()
            hub.close()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=5)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        crashed = [end for end in ended if isinstance(end, Exception)]
        if crashed:
            raise crashed[0]

    async def _decide(self) -> None:
        from lablet_common.requests import Inbox

        while True:
            await asyncio.sleep(0.01)
            if not self.deciding:
                continue
            for service, shard in (("scheduler", "default"), ("worker-controller", "default"),
                                   ("worker-controller", "-"), ("artifact-service", "-")):  # fmt: skip
                for undecided in await Inbox(self.store, service, shard).pending():
                    await _decide_one(self, undecided)


async def _decide_one(mesh: Mesh, undecided: Any) -> None:
    from lablet_common.requests import decide_in, refuse_in
    from lablet_common.store import Transaction
    from lablet_common.store.changes import create_in, update_in

    now = mesh.clock.now()
    txn = Transaction()
    outcome, is_new = await _outcome(mesh, undecided.request, now)
    if type(outcome).__name__ == "Problem":
        refuse_in(txn, undecided, at=now, by="/lablet/test", problem=outcome)
    else:
        (create_in if is_new else update_in)(txn, outcome)
        decide_in(txn, undecided, at=now, by="/lablet/test", reason="Done", resource=outcome)
    await txn.commit(mesh.store)


async def _outcome(mesh: Mesh, request: Any, now: datetime) -> tuple[Any, bool]:
    """The resource as it becomes, and whether it is new; or the problem."""
    from lablet_common.intents import PoolApply, ReservationRequested
    from lablet_common.resources import Definition, Metadata, Reservation, WorkerPool
    from lablet_common.resources.definition import DefinitionSpec, DefinitionStatus
    from lablet_common.resources.kinds import KINDS
    from lablet_common.resources.request import Problem
    from lablet_common.resources.reservation import ReservationSpec, ReservationStatus, SeatPlacement, Slot
    from lablet_common.resources.worker import Cordon, PoolSpec, PoolStatus
    from lablet_common.store.repository import Repository

    kind, _, name = request.spec.subject.partition("/")
    verb, data = request.spec.type.split(".", 3)[3].removesuffix(".v1"), request.spec.data
    by = {"at": now, "by": "/lablet/test"}
    if (kind, verb) == ("reservation", "requested"):
        asked = ReservationRequested.model_validate(data)
        start = asked.start or now.replace(second=0, microsecond=0) + timedelta(minutes=30)
        slot = Slot(start=start, end=start + timedelta(minutes=asked.duration_minutes))
        if asked.seats > 20:
            why = {
                "summary": "21 seats never fit into pool default.",
                "considered": 4,
                "removed": {"nodeLimit": 1, "capacity": 3},
                "binding": "memoryGb",
                "nearestMiss": {"worker": "default-001", "dimension": "memoryGb", "needed": 84, "free": 64},
            }
            kind_ = "https://lablet.io/problems/impossible"
            said = {"title": "Impossible demand", "status": 409, "detail": why["summary"]}
            return Problem(type=kind_, extensions={"explanation": why}, **said), False
        fields = asked.model_dump(exclude={"id", "owner", "labels", "end"})
        seats = tuple(
            SeatPlacement(
                seat=number, worker=f"default-{1 + number // 5:03}", instance=f"{name.replace('rsv', 'ins')}-{number}"
            )
            for number in range(1, asked.seats + 1)
        )
        draft = Reservation(
            metadata=Metadata(
                id=name, uid=request.metadata.uid, owner=asked.owner, created_at=now, labels=asked.labels
            ),
            spec=ReservationSpec(**fields, end=slot.end if asked.start else None),
            status=ReservationStatus(phase="Pending", pool="default", slot=slot),
        )
        phase = "Held" if asked.hold else "Waitlisted" if asked.labels.get("wait") else "Scheduled"
        return draft.moved(phase, reason="Placed", placement=() if phase == "Waitlisted" else seats, **by), True
    if (kind, verb) == ("definition", "publish.requested"):
        content = await mesh.objects.get(data["staging"])
        if b"nodes" not in content:
            error = {"path": "topology:3:1", "message": "expected a mapping, found a sequence", "remedy": "indent it"}
            return Problem(type="https://lablet.io/problems/invalid", title="The lab file is malformed", status=422,
                           detail="line 3", errors=(error,)), False  # fmt: skip
        version = data.get("version") or "1.0.0"
        there = await Repository(mesh.store, KINDS["definition"]).get(f"{data['name']}@{version}")
        if there is not None:
            return there.observed("changed"), False
        spec = DefinitionSpec.model_validate(
            {"name": data["name"], "version": version, "title": "A lab", "topology": {"digest": data["digest"], "bytes": 1},
             "requirements": {"cpuCores": 2, "memoryGb": 4, "nodeCount": 3}, "ports": [{"name": "r1_serial"}]}
        )  # fmt: skip
        await mesh.objects.put(f"objects/default/{data['digest'][:2]}/{data['digest']}", content)
        meta = Metadata(id=f"{data['name']}@{version}", uid=request.metadata.uid, created_at=now)
        return Definition(metadata=meta, spec=spec, status=DefinitionStatus(phase="Published")), True
    if (kind, verb) == ("pool", "apply.requested"):
        body = PoolApply.model_validate(data)
        present = await Repository(mesh.store, KINDS["pool"]).get(name)
        if present is not None:
            return present.respecified(**body.spec.model_dump()).relabelled(body.labels), False
        meta = Metadata(id=name, uid=request.metadata.uid, created_at=now, labels=body.labels)
        return WorkerPool(metadata=meta, spec=PoolSpec(**body.spec.model_dump()), status=PoolStatus()), True
    present = await Repository(mesh.store, KINDS[kind]).require(name)
    if verb == "cancel.requested":
        return present.moved("Cancelled", reason="Cancelled", message=data.get("reason") or None, **by), False
    if verb == "confirm.requested":
        return present.moved("Scheduled", reason="Confirmed", **by), False
    if verb == "change.requested":
        end = datetime.fromisoformat(data["end"])
        slot = Slot(start=present.slot.start, end=end)
        return present.respecified(end=end).observed("changed", slot=slot), False
    if verb == "open-claims.requested":
        from lablet_common.intents import ReservationClaims

        return present.respecified(claims=ReservationClaims.model_validate(data).claims), False
    if verb == "claim.requested":
        from lablet_common.resources.reservation import RosterEntry

        (taken,) = [claim for claim in present.spec.claims if claim.sha256 == data["sha256"]]
        rest = tuple(claim for claim in present.spec.claims if claim is not taken)
        roster = (*present.spec.roster, RosterEntry(seat=taken.seat, user=data["user"]))
        return present.respecified(roster=roster, claims=rest), False
    if verb == "cordon.requested":
        return present.respecified("cordoned", unschedulable=Cordon(reason=data["reason"], by="a-admin")), False
    if verb == "uncordon.requested":
        return present.respecified("uncordoned", unschedulable=None), False
    if verb == "deprecate.requested":
        return present.moved("Deprecated", reason="Asked", **by), False
    if verb == "approve.requested":
        from lablet_common.resources.definition import Approval

        return present.observed("approved", approved=Approval(by="an-operator", at=by["at"])), False
    raise AssertionError(f"the test's owner does not know {request.spec.type}")


async def _seed(store: Any) -> None:
    from lablet_common.resources import Metadata, Worker, WorkerPool, WorkerTemplate
    from lablet_common.resources.kinds import POOL, TEMPLATE, WORKER
    from lablet_common.store.repository import Repository

    size = {"cpuCores": 16, "memoryGb": 64, "storageGb": 200}
    template = {"instanceType": "m5.4xlarge", "capacity": size, "license": "ENTERPRISE", "maxNodes": 40}
    rows: list[tuple[Any, type[Any], str, dict[str, Any], str]] = [
        (TEMPLATE, WorkerTemplate, "simulated", template, "Active"),
        (POOL, WorkerPool, "default", {"template": "simulated", "max": 4}, "Active"),
    ]
    for number in range(1, 5):
        spec = {"pool": "default", "template": "simulated", "capacity": size, "maxNodes": 40, "license": "ENTERPRISE"}
        rows.append((WORKER, Worker, f"default-{number:03}", spec, "Offline"))
    for kind, model, name, spec, phase in rows:
        meta = Metadata(id=name, uid=hashlib.sha256(name.encode()).hexdigest()[:12], created_at=NOW)
        document = {"kind": model.__name__, "metadata": meta.to_dict(), "spec": spec, "status": {"phase": phase}}
        await Repository(store, kind).create(model.model_validate_json(json.dumps(document)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """The real gateway on a port of its own, decided by the test's owner."""
    pytest.importorskip("lablet_gateway.app")
    running = Mesh()
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def live(mesh: Mesh) -> Client:
    return Client(mesh.url, mesh.token("admin"))


@pytest.fixture
def typed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Command:
    """The command against the real gateway, by the connection file."""
    from lablet_client.cli.session import Session

    _clean(monkeypatch, tmp_path)
    file = tmp_path / ".config" / "lablet" / "connection.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"url": mesh.url, "token": mesh.token("admin"), "tokens": TOKENS}))
    return Command(lambda: Session(width=110))
