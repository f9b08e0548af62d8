"""Three members of etcd and of NATS: leaders are killed, a member is cut off, all are restarted in turn, and the fault runs'
checker finds nothing lost, doubled or over-committed."""

from pathlib import Path

import pytest

from lablet_local.chaos.run import run_seed
from lablet_local.chaos.schedule import OF_MANY

pytestmark = [pytest.mark.mesh, pytest.mark.long, pytest.mark.timeout(240)]
LAB = Path(__file__).resolve().parents[2] / "examples" / "labs" / "ospf-basics.yaml"
SEED, SECONDS = 19, 22
"""Its plan kills etcd's leader and a stream's, restarts every etcd in turn, and cuts off who leads the stream of events."""


async def test_any_one_member_may_be_lost_leaders_too(tmp_path: Path) -> None:
    verdict = await run_seed(SEED, SECONDS, tmp_path / "mesh", LAB.read_bytes(), print, ha=True)
    if verdict.reduced:
        pytest.skip(verdict.reduced)
    broken = [f"{check.source}: {check.claim}: {check.detail}" for check in verdict.checks if not check.ok]
    assert not broken, f"again: lablet chaos --ha --seed {SEED} --seconds {SECONDS}: {broken}"
    assert set(OF_MANY) <= set(verdict.faults)
    assert verdict.seen.longest_unavailable < 15
