"""The local mesh with the real four services: ready in time, seeded, and back after a kill."""

import signal
from pathlib import Path

import httpx
import pytest

from lablet_common.resources.kinds import POOL
from lablet_common.store import EtcdStore
from lablet_local.mesh import LocalMesh

pytestmark = [pytest.mark.integration, pytest.mark.mesh]


async def test_the_whole_mesh_is_ready_seeded_and_answers_to_its_token_only(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path / "data", speed=60, replicas={"scheduler": 2}) as mesh:
        assert mesh.seconds_to_ready is not None
        assert mesh.seconds_to_ready < 30  # 10 on an idle machine; this one may be busy
        store = EtcdStore([mesh.etcd_endpoint])
        assert await store.get(POOL.key("default")) is not None
        await store.close()
        async with httpx.AsyncClient(base_url=f"{mesh.url}/api/v1", trust_env=False) as client:
            assert (await client.get("/pools")).status_code == 401
            for role in ("admin", "learner"):
                headers = {"Authorization": f"Bearer {mesh.token(role)}"}
                assert (await client.get("/definitions", headers=headers)).status_code == 200
        for name in ("gateway-1", "scheduler-2", "workers-1", "artifacts-1"):
            killed = mesh.kill(name, signal.SIGKILL)
            await mesh.wait_ended(name, killed)
            await mesh.wait_ready(name, timeout=20)
        said = {state.process.name: (state.restarts, state.last_end) for state in mesh.processes}
        assert all(restarts <= 1 for restarts, _ in said.values()), said
