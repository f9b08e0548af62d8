"""A real mesh is given the etcd of an earlier release in the middle of its morning, and goes on with it."""

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lablet_common.objects import S3ObjectStore
from lablet_common.settings import StorageSettings
from lablet_common.store import EtcdStore
from lablet_local.mesh import LocalMesh

RELEASES = Path(__file__).resolve().parents[1] / "twins" / "releases"
SPEED = 240.0
OF_THE_CLOUD = ("/templates/", "/pools/", "/workers/", "/gates/")
SERVICES = ("gateway-1", "scheduler-1", "workers-1", "artifacts-1")


def saved(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RELEASES / f"{name}.jsonl").read_text().splitlines()]


async def put_in_place(mesh: LocalMesh, lines: list[dict[str, Any]]) -> None:
    """The release's keys in etcd and its files in the bucket. Workers and what they are made of stay the mesh's own: the
    machines that the release knew are in no cloud here."""
    store = EtcdStore([mesh.etcd_endpoint])
    access, secret = mesh.s3_keys
    settings = StorageSettings.model_validate(
        {"endpoint": mesh.s3_url, "access_key": access, "secret_key": secret, "bucket": mesh.s3_bucket}
    )
    objects = S3ObjectStore(settings)
    try:
        for line in lines:
            if line.get("key", "").startswith(OF_THE_CLOUD):
                continue
            if "object" in line:
                await objects.put(line["object"], base64.b64decode(line["base64"]))
                continue
            value = line["value"]
            await store.put(line["key"], (json.dumps(value) if isinstance(value, dict) else value).encode())
    finally:
        await objects.close()
        await store.close()


@pytest.mark.mesh
@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_mesh_goes_on_with_what_the_first_release_has_stored(
    tmp_path: Path, open_door: Callable[[LocalMesh, float], Any]
) -> None:
    head, *lines = saved("first")
    async with LocalMesh(tmp_path, speed=SPEED, start=datetime.fromisoformat(head["at"])) as mesh:
        await asyncio.gather(*(mesh.stop_process(name) for name in SERVICES))
        await put_in_place(mesh, lines)
        await asyncio.gather(*(mesh.resume_process(name) for name in SERVICES))
        await mesh.wait_ready()
        door = await open_door(mesh, SPEED)
        try:
            for name, phases in {
                "rsv-asked": ("Scheduled", "Active", "Completed"),
                "rsv-off": ("Cancelled",),
                "rsv-done": ("Completed",),
            }.items():
                await door.until_phase(f"/reservations/{name}", *phases)
            assert (await door.get("/instances/ins-done-1"))["schemaVersion"] == 1
            tomorrow = await door.until_phase("/reservations/rsv-tomorrow", "Completed", seconds=120)
            assert tomorrow["schemaVersion"] == 1
            assert {outcome.partition(":")[0] for outcome in tomorrow["status"]["outcomes"].values()} == {"Ran"}
            await door.until_phase("/reservations/rsv-asked", "Completed", seconds=60)
        finally:
            await door.http.aclose()
