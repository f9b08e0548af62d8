"""The mesh's NATS server: who may read, who may not publish."""

import asyncio
from collections.abc import Callable

import nats
import pytest

from lablet_local.mesh import LocalMesh

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
