"""Three members of etcd and of NATS: leaders are killed, a member is cut off, all are restarted in turn, and the fault runs'
checker finds nothing lost, doubled or over-committed."""

from pathlib import Path

import pytest

from lablet_local.chaos.load import DEEDS
from lablet_local.chaos.run import LEASE_TTL, run_seed, service_replicas
from lablet_local.chaos.schedule import LEADER_OF, OF_MANY, Kind, plan
from lablet_local.chaos.verdict import Verdict, never_shown
from lablet_local.members import MANY

pytestmark = [pytest.mark.mesh, pytest.mark.long, pytest.mark.timeout(240)]
LAB = Path(__file__).resolve().parents[2] / "examples" / "labs" / "ospf-basics.yaml"
SECONDS = 22
SEEDS = (222, 39)
"""The plan of the first kills the leaders of etcd and of the stream of events, restarts every etcd in turn and cuts off who
leads that stream; that of the second cuts off a member of etcd and restarts every NATS in turn."""
HELD: dict[int, Verdict] = {}
"""The seeds that were lived through here."""


def test_these_seeds_break_each_cluster_in_each_way() -> None:
    faults = [
        fault
        for seed in SEEDS
        for fault in plan(seed, SECONDS, service_replicas(), LEASE_TTL, sound_etcd=True, members=MANY)
    ]
    targets = {kind: {fault.target for fault in faults if fault.kind is kind} for kind in OF_MANY}
    assert targets[Kind.LEADER] >= {f"{LEADER_OF}etcd", f"{LEADER_OF}EVENTS"}
    assert targets[Kind.ROLLING] == {"etcd", "nats"}
    assert targets[Kind.MINORITY] == {f"{LEADER_OF}EVENTS", "etcd-3"}


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_one_member_may_be_lost_leaders_too(tmp_path: Path, seed: int) -> None:
    verdict = await run_seed(seed, SECONDS, tmp_path / "mesh", LAB.read_bytes(), print, ha=True)
    said = f"broken: {verdict.broken}, nothing was compared: {verdict.uncompared}"
    assert verdict.ok, f"{verdict.result} (again: lablet chaos --ha --seed {seed} --seconds {SECONDS}): {said}"
    if verdict.reduced:
        pytest.skip(verdict.reduced)
    assert set(OF_MANY) <= set(verdict.faults)
    assert f"{MANY} servers keep every stream" in {check.claim for check in verdict.checks}
    assert verdict.seen.longest_unavailable < 15
    print(f"missed: {dict(verdict.missed)}")
    assert verdict.faults.total() >= 0.75 * verdict.planned, f"of {verdict.missed} nothing came"
    HELD[seed] = verdict
    if HELD.keys() == set(SEEDS):
        assert never_shown(list(HELD.values()), DEEDS) == []
