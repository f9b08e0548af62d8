"""Three of etcd and NATS (deploy/ha): one member of each is killed, and bookings go on. With `--mesh compose` only."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from lablet_client import Client
from lablet_client.events import Filter
from lablet_common.testing.containers import ContainerMesh

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
SPEED = 60.0


async def book(http: httpx.AsyncClient, number: int) -> str:
    """A seat in the far future, decided; asked again with the same key while a leader is being chosen."""
    body = {"definition": "vlan-trunking", "seats": 1, "asap": True, "durationMinutes": 30}
    headers = {"idempotency-key": f"cluster-{number}", "prefer": "wait=10"}
    async with asyncio.timeout(40):
        while True:
            answer = await http.post("/api/v1/reservations", json=body, headers=headers)
            if answer.status_code in (200, 201):
                return str(answer.json()["metadata"]["id"])
            assert answer.status_code in (202, 503), answer.text
            await asyncio.sleep(0.3)


async def test_one_member_of_each_may_be_lost(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.config.getoption("--mesh") != "compose":
        pytest.skip("runs against the compose file only (--mesh compose)")
    mesh = await asyncio.to_thread(ContainerMesh.start, ROOT, tmp_path, speed=SPEED, over=["deploy/ha/compose.yml"])
    try:
        token = await asyncio.to_thread(mesh.token)
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx.AsyncClient(base_url=mesh.url, headers=headers, timeout=30, trust_env=False) as http,
            Client(mesh.url, token) as client,
        ):
            lab = (ROOT / "examples/labs/vlan-trunking.yaml").read_bytes()
            more = {"content-type": "application/yaml", "prefer": "wait=20"}
            made = await http.post("/api/v1/definitions?name=vlan-trunking", content=lab, headers=more)
            assert made.status_code in (200, 201), made.text
            seen: set[str] = set()

            async def follow() -> None:
                async for event in client.events.watch(Filter(kind="reservation")):
                    seen.add(event.subject.rpartition("/")[2])

            following = asyncio.create_task(follow())
            booked = [await book(http, 1)]
            for number, (etcd, nats) in enumerate((("etcd", "nats"), ("etcd-2", "nats-2"), ("etcd-3", "nats-3")), 2):
                lost: list[Any] = [*mesh.containers(etcd), *mesh.containers(nats)]
                await asyncio.to_thread(lambda lost=lost: [mesh.kill(one) for one in lost])
                booked.append(await book(http, number))
                await asyncio.to_thread(lambda lost=lost: [mesh.begin(one) for one in lost])
            async with asyncio.timeout(30):
                while not set(booked) <= seen:
                    await asyncio.sleep(0.2)
            following.cancel()
    finally:
        await asyncio.to_thread(mesh.stop)
