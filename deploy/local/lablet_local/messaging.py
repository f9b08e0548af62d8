"""The NATS server's users and configuration: one user per service with its own subjects, `outside` for a system of the
tenant `default`, and `observer`, with which a person or a checker reads every event without being able to publish one."""

from collections.abc import Sequence
from pathlib import Path

from lablet_common.bus.permissions import (
    ClusterPlace,
    NatsUser,
    Permissions,
    external_user,
    inbox_prefix,
    render_config,
    service_user,
    write_config,
)
from lablet_common.bus.streams import EVENTS_STREAM
from lablet_common.resources.kinds import Service
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.members import Members, member_name

OBSERVER = "observer"
OUTSIDE = "outside"
MAINTENANCE = "maintenance"
"""With which an operator looks after streams; no service has its rights."""


def write_nats_config(
    folder: DataFolder, members: Members, keys: KeyRing, more: Sequence[NatsUser] = (), number: int = 1
) -> Path:
    """Writes a member's `nats.conf` (mode 0600: it holds the passwords) and returns its path."""

    def password(user: str) -> str:
        return keys.nats_password(user).read_text(encoding="utf-8").strip()

    users = [service_user(service, password(service)) for service in Service]
    users.append(external_user(OUTSIDE, "default", password(OUTSIDE)))
    users.append(NatsUser(OBSERVER, password(OBSERVER), observer_permissions()))
    users.append(NatsUser(MAINTENANCE, password(MAINTENANCE), maintenance_permissions()))
    users += more
    name, ports, store = member_name("nats", number), members.ports.of_member(number), "store"
    cluster = None
    if members.count > 1:
        others = [members.peer_address("nats", one) for one in members.numbers if one != number]
        cluster = ClusterPlace(
            f"127.0.0.1:{ports.nats_route}",
            others,
            keys.read("nats-routes.password"),
            members.called_at.get(name),
        )
        store = f"store-{number}"
    path = folder.nats / f"{name}.conf"
    text = render_config(
        users,
        port=ports.nats,
        monitor_port=ports.nats_monitor,
        store_dir=folder.nats / store,
        name="lablet" if cluster is None else name,
        cluster=cluster,
    )
    write_config(path, text)
    return path


def observer_permissions() -> Permissions:
    """Reads all events and intents as they pass, and the history of EVENTS through consumers of its own."""
    asks = ("CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT", "DIRECT.GET")
    publish = [f"$JS.API.{ask}.{EVENTS_STREAM}.>" for ask in asks]
    publish += [f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}", f"$JS.API.DIRECT.GET.{EVENTS_STREAM}"]
    publish += [f"$JS.API.STREAM.MSG.GET.{EVENTS_STREAM}", f"$JS.ACK.{EVENTS_STREAM}.>", f"$JS.FC.{EVENTS_STREAM}.>"]
    publish += ["$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"]
    heard = ("lablet.event.>", "lablet.intent.>", "lablet.dlq.>", "_INBOX.>", f"{inbox_prefix(OBSERVER)}.>")
    return Permissions(tuple(publish), heard)


def maintenance_permissions() -> Permissions:
    """Any order to the streams, and no word of a service's."""
    return Permissions(("$JS.API.>",), (f"{inbox_prefix(MAINTENANCE)}.>",))
