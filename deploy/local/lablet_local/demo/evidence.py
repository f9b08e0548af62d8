"""What three sources say about the morning, each read on a way of its own: etcd through etcd3-py and its JSON gateway,
the event stream through nats-py, the simulators through the witness logs that they keep apart from their API.

Nothing of Lablet's own store, bus or caches is used here, so that a fault in them cannot hide itself.
"""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from lablet_local.demo.record import value_of
from lablet_local.mesh import LocalMesh
from lablet_local.messaging import OBSERVER

Json = dict[str, Any]
_PREFIX = "/lablet"
_STREAM = "EVENTS"
_CATCH_UP_SECONDS = 8.0
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change in etcd's history. `value` is None for a deletion."""

    revision: int
    key: str
    """Without the prefix."""
    value: Json | str | None


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it stands in the stream."""

    place: int
    """Sequence number in the stream."""
    kind: str
    subject: str
    """`<kind>/<id>`."""
    type: str
    sequence: int
    """etcd revision of the change that it tells of."""
    id: str
    data: Json
    apart: bool = False
    """Its data are too large for a message and stay where `dataref` says."""
    replayed: bool = False
    """It tells the state that was found where history had been compacted, in place of the changes that led to it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection to one named port of a running lab."""

    instance: str
    port: str
    address: str
    answered: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """A lab that ran as processes of this machine when it was looked for."""

    instance: str
    agent: str
    processes: tuple[int, ...]
    """Of its nodes."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """What was seen of the killed scheduler and the next. Times are real, unix seconds; revisions etcd's."""

    killed: str = ""
    killed_at: float = 0.0
    revision_at_kill: int = 0
    pending: tuple[str, ...] = ()
    """Requests whose inbox pointer stood in etcd when nobody owned the pool any more or the dead owner still seemed to."""
    successor: str = ""
    owned_at: float = 0.0
    owned_revision: int = 0
    decided_at: float = 0.0
    """The new owner's first decision."""
    decided_revision: int = 0

    @property
    def seconds(self) -> float:
        return round(self.decided_at - self.killed_at, 2) if self.decided_at else 0.0


@dataclass(frozen=True, slots=True)
class Typed:
    """A line typed into a console, and whether a collected file has it."""

    instance: str = ""
    line: str = ""
    found_in: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the verdict rests on."""

    present: dict[str, Json | str] = field(default_factory=dict)
    history: tuple[Change, ...] = ()
    events: tuple[Told, ...] = ()
    machines: tuple[Json, ...] = ()
    """As the cloud's witness tells them: `name`, `state`, `facts`."""
    visits: tuple[Visit, ...] = ()
    ran: tuple[Ran, ...] = ()
    """What was found among this machine's processes when a lab on an agent was said to run."""
    left: tuple[Ran, ...] = ()
    """What was still there at the end."""
    take_over: TakeOver = TakeOver()
    typed: Typed = Typed()
    submitted: dict[str, str] = field(default_factory=dict)
    """Booking → reservation id, as the API answered."""
    archived: tuple[str, ...] = ()
    """Ids of reservations that were found in the archive."""


async def read_present(endpoint: str, revision: int | None = None) -> dict[str, Json | str]:
    """Every key below the prefix, now or as of a revision, through etcd3-py's synchronous client."""
    return await asyncio.to_thread(_range, endpoint, revision)


def _client(endpoint: str) -> Any:
    """etcd3-py asks for the version as it is made, allows 0.3 s for the answer and breaks by an `AttributeError` without
    one: a server that is late is asked again, for ten seconds (real). Raises what it raised then."""
    import etcd3

    host, _, port = endpoint.rpartition(":")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return etcd3.Client(host, int(port), timeout=10)
        except AttributeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def _range(endpoint: str, revision: int | None) -> dict[str, Json | str]:
    client = _client(endpoint)
    found = client.range(f"{_PREFIX}/", prefix=True, revision=revision)
    return {_relative(_bytes(pair.key)): value_of(_bytes(pair.value)) for pair in found.kvs or ()}


async def read_history(endpoint: str) -> tuple[Change, ...]:
    """All changes since the first revision, through etcd's JSON gateway. Raises `ValueError` where etcd has forgotten
    the beginning."""
    body = {
        "create_request": {
            "key": _b64(f"{_PREFIX}/"),
            "range_end": _b64(f"{_PREFIX}0"),
            "start_revision": "1",
        }
    }
    changes: list[Change] = []
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        head = await http.post(f"http://{endpoint}/v3/kv/range", json={"key": _b64("/"), "limit": "1"})
        last = int(head.json()["header"]["revision"])
        async with http.stream("POST", f"http://{endpoint}/v3/watch", json=body) as answer:
            try:
                async with asyncio.timeout(10):
                    async for line in answer.aiter_lines():
                        changes += changes_in(json.loads(line)["result"])
                        if changes and changes[-1].revision >= last:
                            break
            except TimeoutError:
                # The last revision may be of a key outside the prefix; what there was has been told by now.
                return tuple(changes)
    return tuple(changes)


def changes_in(result: Json) -> list[Change]:
    """The changes of one answer of etcd's watch. Raises `ValueError` for the end of a watch."""
    if result.get("canceled"):
        raise ValueError(f"etcd does not tell its history: {result.get('cancel_reason') or result}")
    found = []
    for event in result.get("events", ()):
        kv = event["kv"]
        deleted = event.get("type") == "DELETE"
        value = None if deleted else value_of(base64.b64decode(kv.get("value", "")))
        found.append(Change(int(kv["mod_revision"]), _relative(base64.b64decode(kv["key"])), value))
    return found


async def read_events(
    mesh: LocalMesh, wanted_revision: int = 0, wanted_of: Mapping[str, int] = MappingProxyType({})
) -> tuple[Told, ...]:
    """The whole stream, read anew. Waits a while for an event of `wanted_revision`, and of each kind for one of `wanted_of`
    it, as bridges publish after the commit, each in its own time."""
    import nats
    from nats.errors import TimeoutError as NatsTimeout
    from nats.js.api import ConsumerConfig

    from lablet_common.bus.permissions import inbox_prefix

    user, password = mesh.nats_login(OBSERVER)
    connection = await nats.connect(
        list(mesh.members.nats_urls), user=user, password=password, inbox_prefix=inbox_prefix(OBSERVER).encode()
    )
    told: list[Told] = []
    try:
        stream = connection.jetstream()
        reader = await stream.subscribe(
            "lablet.event.>", stream=_STREAM, ordered_consumer=True, config=ConsumerConfig()
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + _CATCH_UP_SECONDS
        while loop.time() < until:
            try:
                message = await reader.next_msg(timeout=0.5)
            except NatsTimeout:
                latest: dict[str, int] = {}
                for one in told:
                    latest[one.kind] = max(one.sequence, latest.get(one.kind, 0))
                if max(latest.values(), default=0) >= wanted_revision and all(
                    latest.get(kind, 0) >= revision for kind, revision in wanted_of.items()
                ):
                    break
                continue
            told.append(read_event(dict(message.headers or {}), message.data, message.metadata.sequence.stream))
    finally:
        await connection.close()
    return tuple(told)


def read_event(headers: dict[str, str], payload: bytes, place: int) -> Told:
    """From a message in binary mode, by the letter of the binding and not by Lablet's own code for it."""
    lower = {name.lower(): value for name, value in headers.items()}
    subject = lower.get("ce-subject", "")
    body = json.loads(payload) if payload else {}
    return Told(
        place=place,
        kind=subject.partition("/")[0],
        subject=subject,
        type=lower.get("ce-type", ""),
        sequence=int(lower.get("ce-sequence", "0")),
        id=lower.get("ce-id", ""),
        data=body if isinstance(body, dict) else {},
        apart="ce-dataref" in lower,
        replayed=lower.get("ce-replayed") == "true",
    )


def _relative(key: bytes) -> str:
    return key.decode().removeprefix(_PREFIX)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
