"""Who may do what on NATS, as a pure function, and the server configuration that enforces it.

A service publishes its own kinds' state events and nothing else's, and uses the streams that it owns and the consumers
that bear its name; the stream's name stands in every API and acknowledgement subject. EVENTS is readable by all services:
under a durable consumer named as the service itself (the gateway, which reads for everybody, under any name). An outside
system publishes into its tenant's ingress and reads its tenant's events; an agent speaks for its own worker alone.

Not guaranteed: privacy among services on EVENTS (a pull consumer's name is all that the server checks).
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lablet_common.bus.streams import DLQ_STREAM, EVENTS_STREAM, INGRESS_STREAM, INTENTS, intents_stream, used_by
from lablet_common.events import subjects
from lablet_common.resources.kinds import Service, owned_by


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to and subscribe to; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NatsUser:
    """A user of the server. `password` is plain or a bcrypt hash (`$2a$…`); the configuration file is private either
    way."""

    name: str
    password: str
    permissions: Permissions


def inbox_prefix(user: str) -> str:
    """Where a user's answers arrive, out of everybody else's sight."""
    return f"_INBOX_{subjects.escape(user).replace('%', '_')}"


def service_user(service: Service, password: str) -> NatsUser:
    return NatsUser(service.value, password, service_permissions(service))


def external_user(name: str, tenant: str, password: str) -> NatsUser:
    """An outside system. Its user is the proof of its tenant."""
    owner = subjects.escape(tenant)
    return NatsUser(
        name,
        password,
        Permissions(
            publish=(f"lablet.ingress.{owner}.>",),
            subscribe=(f"lablet.event.{owner}.>", f"lablet.ingress-result.{owner}", f"{inbox_prefix(name)}.>"),
        ),
    )


def agent_user(worker: str, password: str) -> NatsUser:
    """The agent of one worker: reports as it, and hears what is meant for it."""
    own = subjects.escape(worker)
    name = f"agent-{worker}"
    return NatsUser(
        name,
        password,
        Permissions(
            publish=(f"lablet.agent.{own}.>",),
            subscribe=(f"lablet.agent-work.{own}.>", f"{inbox_prefix(name)}.>"),
        ),
    )


def service_permissions(service: Service) -> Permissions:
    """What one of the four services needs, and no more."""
    own_inbox = f"{inbox_prefix(service)}.>"
    told = [f"lablet.event.*.{kind.name}.>" for kind in owned_by(service)]
    if service is Service.WORKERS:
        told.append("lablet.event.*.scaling.>")
    # its bridges ask whether what they published is there
    publish = [*told, *(f"$JS.API.DIRECT.GET.{EVENTS_STREAM}.{subject}" for subject in told)]
    publish.append(f"lablet.dlq.{service}.>")
    for stream in used_by(service):
        publish += [f"$JS.API.STREAM.INFO.{stream.name}", f"$JS.API.STREAM.CREATE.{stream.name}"]
    subscribe = [own_inbox]
    match service:
        case Service.GATEWAY:
            # It opens requests, takes what comes from outside, reads for streams and webhooks, and tends dead letters.
            publish += [f"lablet.intent.{owner}.>" for owner in INTENTS]
            publish += ["lablet.ingress-result.*", *(f"$JS.API.STREAM.UPDATE.{s.name}" for s in used_by(service))]
            for name in (INGRESS_STREAM, EVENTS_STREAM, DLQ_STREAM, intents_stream(service)):
                publish += _consuming(name, "*")
            # Reading a range of a stream: ephemeral consumers, named by the server.
            publish += [f"$JS.API.CONSUMER.CREATE.{name}" for name in (EVENTS_STREAM, DLQ_STREAM)]
            publish += [f"$JS.API.DIRECT.GET.{EVENTS_STREAM}", f"$JS.API.DIRECT.GET.{EVENTS_STREAM}.>"]
            publish += [f"$JS.API.DIRECT.GET.{DLQ_STREAM}", f"$JS.API.DIRECT.GET.{DLQ_STREAM}.>"]
            publish += [f"$JS.API.STREAM.MSG.{verb}.{DLQ_STREAM}" for verb in ("GET", "DELETE")]
            publish += [f"$JS.API.STREAM.PURGE.{DLQ_STREAM}", "lablet.ingress.>"]
            # what a person's own lab says is read from its agent
            publish.append("lablet.agent-work.*.output")
            subscribe += ["lablet.event.>", "lablet.dlq.>", f"lablet.agent.*.reply.{service}.>"]
        case Service.WORKERS:
            publish.append("lablet.agent-work.>")
            publish += _owning(service)
            subscribe += ["lablet.event.>", "lablet.agent.>"]
        case _:
            publish += _owning(service)
            subscribe += ["lablet.event.>"]
    return Permissions(tuple(dict.fromkeys(publish)), tuple(subscribe))


def _owning(service: Service) -> list[str]:
    """An owner's intents under any consumer's name, EVENTS under its own."""
    stream = intents_stream(service)
    return [f"$JS.API.STREAM.UPDATE.{stream}", *_consuming(stream, "*"), *_consuming(EVENTS_STREAM, service)]


def _consuming(stream: str, consumer: str) -> list[str]:
    return [
        f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}",
        f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}",
        f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
        f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
        f"$JS.ACK.*.*.{stream}.{consumer}.>",
    ]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Paths of PEM files by which a server shows who it is."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """Where a server of a cluster meets the others, and by which password they know each other. Clients are not told of
    the others' addresses: they have all of them from the start."""

    listen: str
    routes: Sequence[str]
    """`host:port` of each."""
    password: str
    called_at: str | None = None
    """`host:port` at which the others are to call it; None: where it listens."""

    def lines(self) -> list[str]:
        """As it stands in the configuration."""
        return [
            "cluster {",
            '  name: "lablet"',
            f"  listen: {json.dumps(self.listen)}",
            *([f"  advertise: {json.dumps(self.called_at)}"] if self.called_at else []),
            "  no_advertise: true",
            f"  authorization {{user: {json.dumps(ROUTES_USER)}, password: {json.dumps(self.password)}}}",
            f"  routes: {json.dumps([f'nats://{ROUTES_USER}:{self.password}@{one}' for one in self.routes])}",
            "}",
        ]


ROUTES_USER = "routes"


def render_config(
    users: Sequence[NatsUser],
    *,
    port: int,
    store_dir: Path,
    monitor_port: int | None = None,
    host: str = "127.0.0.1",
    sync_always: bool = True,
    max_file_store_gib: int = 64,
    tls: "ServerTls | None" = None,
    name: str = "lablet",
    cluster: "ClusterPlace | None" = None,
) -> str:
    """The text of a `nats-server` configuration with JetStream, listening on `host`; without users it is open to whoever
    reaches it. Holds passwords: write it with `write_config`. `sync_always` flushes streams that hold the only copy of
    something before they acknowledge. With `tls` nobody gets in without. With `cluster` it is
    one of several, and `name` is its own."""
    lines = [
        f"listen: {json.dumps(f'{host}:{port}')}",
        *([f"http: {json.dumps(f'{host}:{monitor_port}')}"] if monitor_port else []),
        f"server_name: {json.dumps(name)}",
        "max_payload: 1MB",
        "write_deadline: 10s",
        "jetstream {",
        f"  store_dir: {json.dumps(str(store_dir))}",
        f"  max_file_store: {max_file_store_gib}GB",
        *(["  sync_interval: always"] if sync_always else []),
        "}",
    ]
    if tls is not None:
        lines += ["tls {", f"  cert_file: {json.dumps(str(tls.cert))}", f"  key_file: {json.dumps(str(tls.key))}", "}"]
    if cluster is not None:
        lines += cluster.lines()
    if users:
        lines += ["authorization {", "  timeout: 5", "  users = [", *_rendered(users), "  ]", "}"]
    return "\n".join(lines) + "\n"


def _rendered(users: Iterable[NatsUser]) -> Iterable[str]:
    for user in users:
        allowed = {
            "publish": {"allow": list(user.permissions.publish)},
            "subscribe": {"allow": list(user.permissions.subscribe)},
        }
        yield (
            f"    {{user: {json.dumps(user.name)}, password: {json.dumps(user.password)}, "
            f"permissions: {json.dumps(allowed)}}}"
        )


def write_config(path: Path, text: str) -> None:
    """Writes the file so that nobody but its owner ever reads it (0600), in one step."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
