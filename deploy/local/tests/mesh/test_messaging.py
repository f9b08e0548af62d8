"""The mesh's NATS server: who may read, who may not publish."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from lablet_common.bus.permissions import NatsUser
from lablet_common.testing.nats import NatsServer
from lablet_common.testing.tries import Tries
from lablet_local.mesh import LocalMesh
from lablet_local.messaging import MAINTENANCE, OBSERVER, maintenance_permissions, observer_permissions

pytestmark = pytest.mark.integration


async def connect(mesh: LocalMesh, user: str, errors: list[str]) -> nats.NATS:
    name, password = mesh.nats_login(user)

    async def note(error: Exception) -> None:
        errors.append(str(error))

    return await nats.connect(mesh.nats_url, user=name, password=password, error_cb=note, max_reconnect_attempts=0)


async def test_the_observer_hears_events_but_cannot_publish_one(make_mesh: Callable[..., LocalMesh]) -> None:
    async with make_mesh() as mesh:
        errors: list[str] = []
        scheduler, observer = await connect(mesh, "scheduler", errors), await connect(mesh, "observer", errors)
        try:
            heard = await observer.subscribe("lablet.event.>")
            await observer.flush()
            await scheduler.publish("lablet.event.default.reservation.default.rsv-1", b"{}")
            message = await heard.next_msg(timeout=5)
            assert message.subject == "lablet.event.default.reservation.default.rsv-1"
            assert not errors
            await observer.publish("lablet.event.default.reservation.default.rsv-1", b"forged")
            await observer.flush()
            async with asyncio.timeout(5):
                while not errors:
                    await asyncio.sleep(0.01)
            assert "permissions violation" in errors[0].lower()
        finally:
            await scheduler.close()
            await observer.close()


async def test_nobody_connects_without_a_login(make_mesh: Callable[..., LocalMesh]) -> None:
    async with make_mesh() as mesh:
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await nats.connect(mesh.nats_url, allow_reconnect=False)


WORDS = (
    "lablet.event.default.reservation.east.r", "lablet.intent.scheduler.east.reservation.r", "lablet.ingress.default.x",
    "lablet.ingress-result.default", "lablet.dlq.scheduler.c", "lablet.agent.w.report", "lablet.agent-work.w.start",
    "_INBOX_scheduler.1", "$JS.ACK.INTENTS_SCHEDULER.c.1.1.1.1.0", "$SYS.REQ.SERVER.PING",
)  # fmt: skip
"""What only services, agents and outside systems say."""
ORDERS = (
    "STREAM.DELETE.EVENTS", "STREAM.PURGE.EVENTS", "STREAM.UPDATE.EVENTS", "STREAM.CREATE.MINE", "STREAM.MSG.DELETE.DLQ",
    "STREAM.MSG.GET.DLQ", "CONSUMER.CREATE.INTENTS_SCHEDULER.mine", "CONSUMER.MSG.NEXT.INTENTS_SCHEDULER.scheduler-east",
    "CONSUMER.DELETE.INTENTS_SCHEDULER.scheduler-east", "CONSUMER.CREATE.INGRESS.mine", "CONSUMER.CREATE.DLQ.mine",
)  # fmt: skip


async def test_neither_who_watches_nor_who_looks_after_streams_speaks_for_a_service(tmp_path: Path) -> None:
    users = [
        NatsUser(OBSERVER, "pw", observer_permissions()),
        NatsUser(MAINTENANCE, "pw", maintenance_permissions()),
    ]
    orders = [f"$JS.API.{order}" for order in ORDERS]
    others = ["lablet.event.>", "lablet.intent.>", "lablet.ingress.>", "lablet.agent-work.>", "_INBOX_scheduler.>", ">"]
    server = await asyncio.to_thread(NatsServer.start, tmp_path / "nats", users=users)
    with server:
        async with Tries(server.url, OBSERVER, "pw") as observer:
            assert await observer.publish(*WORDS, *orders) == {*WORDS, *orders}
            assert await observer.subscribe(*others) == {*others} - {"lablet.event.>", "lablet.intent.>"}
        async with Tries(server.url, MAINTENANCE, "pw") as maintenance:
            assert await maintenance.publish(*WORDS) == {*WORDS}
            assert await maintenance.subscribe(*others) == {*others}
