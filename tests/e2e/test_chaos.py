"""Fault runs: everything is killed, paused and cut off under load, and nothing is lost, doubled or over-committed."""

import os
from pathlib import Path

import pytest

from lablet_common.resources.kinds import Service
from lablet_local.chaos.links import plan_doors, plan_links
from lablet_local.chaos.load import DEEDS
from lablet_local.chaos.network import service_of
from lablet_local.chaos.outages import plan_outages
from lablet_local.chaos.run import LEASE_TTL, run_seed, service_replicas
from lablet_local.chaos.schedule import A_MACHINE, CLOUD, MACHINES, OF_MANY, SERVERS, Kind, plan
from lablet_local.chaos.verdict import Verdict, never_shown

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]
LAB = Path(__file__).resolve().parents[2] / "examples" / "labs" / "ospf-basics.yaml"
SEEDS = (1, 29, 52)
"""A minute of faults together, in which everything that can be broken is; one of them forgets history and events."""
SECONDS = 20.0
HELD: dict[int, Verdict] = {}
"""The seeds that were lived through here."""


async def _hold(seed: int, folder: Path, seconds: float, agents: int = 0) -> Verdict:
    verdict = await run_seed(seed, seconds, folder, LAB.read_bytes(), print, agents=agents)
    if verdict.reduced:
        print(f"reduced: {verdict.reduced}")
    again = f"lablet chaos --seed {seed} --seconds {seconds:g}" + (f" --agents {agents}" if agents else "")
    said = f"broken: {verdict.broken}, nothing was compared: {verdict.uncompared}"
    assert verdict.ok, f"seed {seed} {verdict.result} (again: {again}): {said}"
    print(f"missed: {dict(verdict.missed)}")
    assert verdict.faults.total() >= max(0.75 * verdict.planned, seconds / 4), f"of {verdict.missed} nothing came"
    return verdict


def test_these_seeds_break_everything_that_one_mesh_can() -> None:
    replicas = service_replicas()
    faults = [fault for seed in SEEDS for fault in plan(seed, SECONDS, replicas, LEASE_TTL, sound_etcd=True)]
    assert {fault.kind for fault in faults} == set(Kind) - set(OF_MANY)
    on_processes = [fault.target for fault in faults if fault.kind in (Kind.KILL, Kind.PAUSE, Kind.RESTART)]
    assert {service_of(target) or target for target in on_processes} == {*Service, *SERVERS, A_MACHINE}
    callers = {fault.target.partition("→")[0] for fault in faults if "→" in fault.target}
    assert {*Service} <= {caller if caller in set(Service) else service_of(caller) for caller in callers}
    assert callers & set(replicas), "one replica alone"
    beside = [fault for seed in SEEDS for fault in plan_links(seed, SECONDS, replicas)]
    kinds = (Kind.CUT, Kind.SWALLOW, Kind.DELAY)
    assert {fault.name for fault in beside} == {f"{kind} {link}" for kind in kinds for link in (CLOUD, MACHINES)}
    assert max(fault.seconds for fault in beside) > SECONDS, "a worker that is given up"
    doors = [fault for seed in SEEDS for fault in plan_doors(seed, SECONDS, replicas)]
    assert {fault.name for fault in doors} == {f"{kind} doors" for kind in kinds}
    assert {fault.target for fault in doors} == {
        f"clients→{one}" for one in replicas if service_of(one) == Service.GATEWAY
    }
    assert {fault.name for seed in SEEDS for fault in plan_outages(seed, SECONDS)} == {"pause cloud", "kill cloud"}


@pytest.mark.parametrize("seed", [int(os.environ["CHAOS_SEED"])] if "CHAOS_SEED" in os.environ else SEEDS)
async def test_under_faults_nothing_is_lost_doubled_or_overcommitted(tmp_path: Path, seed: int) -> None:
    HELD[seed] = await _hold(seed, tmp_path / "mesh", SECONDS)


@pytest.mark.skipif("CHAOS_SEED" in os.environ, reason="one seed alone need not show everything")
@pytest.mark.timeout(700)
async def test_together_these_seeds_did_all_that_was_planned_and_every_deed_of_the_load(tmp_path: Path) -> None:
    """What is planned and never comes about, or asked for and never accepted, proves nothing. Seeds that held above are not
    run again."""
    for seed in SEEDS:
        if seed not in HELD:
            HELD[seed] = await _hold(seed, tmp_path / f"mesh-{seed}", SECONDS)
    assert never_shown(list(HELD.values()), DEEDS) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3, 24])
async def test_longer_runs(tmp_path: Path, seed: int) -> None:
    await _hold(seed, tmp_path / "mesh", 30)


@pytest.mark.long
async def test_no_job_runs_twice_though_agents_are_killed_and_paused(tmp_path: Path) -> None:
    verdict = await _hold(6, tmp_path / "mesh", 25, agents=2)
    assert never_shown([verdict], [("run",)]) == []
    (jobs,) = (check for check in verdict.checks if check.claim == "no job ran twice")
    assert jobs.looked_at
    assert {"agent-1", "agent-2"} & set(verdict.hit)
