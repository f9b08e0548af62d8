"""What a soak is held to when its load is over: nothing lost, nothing left over, nothing under way."""

import asyncio
import time
from collections import Counter
from typing import Any

import httpx

from lablet_local.chaos.checks import answered, under_way
from lablet_local.chaos.machines import one_machine_a_worker
from lablet_local.demo.checks import ground
from lablet_local.demo.checks.check import Check
from lablet_local.demo.evidence import Evidence, read_present
from lablet_local.mesh import LocalMesh
from lablet_local.soak.load import SteadyLoad

REST_SECONDS = 120.0
"""Real seconds in which everything must come to its end when the load is over."""
_SHOWN = 20
_WITNESS_SECONDS = 120.0


async def until_at_rest(mesh: LocalMesh) -> float:
    """Seconds until nothing is under way; more than `REST_SECONDS` where it never came so far."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) <= REST_SECONDS:
        present = await read_present(mesh.etcd_endpoint)
        if not any(key.startswith("/inbox/") for key in present) and not any(under_way(Evidence(present=present))):
            return waited
        await asyncio.sleep(0.5)
    return waited


async def find_out(mesh: LocalMesh, load: SteadyLoad) -> dict[str, Any]:
    """The checks and the figures, as they stand at the end of a record. Raises `httpx.HTTPError` where the simulators' logs
    cannot be had."""
    present = await read_present(mesh.etcd_endpoint)
    evidence = Evidence(present=present, machines=tuple(await _witness(mesh)))
    seen = ground.read(evidence)
    lost = await load.lost()
    checks = [
        answered(load.seen),
        kept(load, lost),
        Check("clients", "everything that was read was answered", load.deeds.total(), _counted(load.faults)),
        Check(
            "etcd", f"everything came to its end within {REST_SECONDS:g} s", len(present), tuple(under_way(evidence))
        ),
        *ground.by_machines_alone(evidence, seen),
        one_machine_a_worker(evidence),
    ]
    return {
        "checks": [
            {"source": one.source, "claim": one.claim, "lookedAt": one.looked_at, "broken": list(one.broken)[:_SHOWN]}
            for one in checks
        ],
        "requests": len(load.seen.asked), "accepted": len(load.seen.accepted), "lost": len(lost), "labs": seen.starts,
        "machines": len(evidence.machines), "deeds": dict(load.deeds), "faults": dict(load.faults),
        "answers": dict(load.seen.outcomes),
    }  # fmt: skip


def kept(load: SteadyLoad, lost: list[str]) -> Check:
    """What was accepted came to an outcome, and every reservation that was made is there or archived."""
    claim = "every accepted request was decided, every reservation is there or in the archive"
    return Check("clients", claim, len(load.outcomes) + len(load.made), tuple(lost))


def _counted(faults: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{count} {what}" for what, count in faults.most_common())


async def _witness(mesh: LocalMesh) -> list[dict[str, Any]]:
    """As `LocalMesh.witness`, with the patience that the logs of hours take."""
    async with httpx.AsyncClient(timeout=_WITNESS_SECONDS, trust_env=False) as http:
        answer = await http.get(f"{mesh.cloud_url}/witness", headers={"Authorization": f"Bearer {mesh.cloud_token}"})
        return list(answer.raise_for_status().json()["machines"])
