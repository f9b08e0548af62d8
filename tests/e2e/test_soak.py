"""A soak of a minute: too short to judge growth, long enough to see everything, lose nothing and leave nothing over."""

from pathlib import Path

import pytest

from lablet_local.soak.limits import limit_of
from lablet_local.soak.record import read
from lablet_local.soak.report import render
from lablet_local.soak.run import Plan, run_soak
from lablet_local.soak.verdict import broken, judge

pytestmark = [pytest.mark.mesh, pytest.mark.long, pytest.mark.timeout(420)]
LAB = Path(__file__).resolve().parents[2] / "examples" / "labs" / "ospf-basics.yaml"
MEASURES = {"rss_bytes", "fds", "tasks", "nats_consumers", "stream_bytes", "etcd_db_bytes", "etcd_keys", "objects"}


async def test_a_minute_of_steady_load_ends_with_nothing_lost_and_nothing_left(tmp_path: Path) -> None:
    record = tmp_path / "soak.jsonl"
    await run_soak(Plan(seconds=60, rate=60, every=5), tmp_path / "mesh", LAB.read_bytes(), record, print)
    recorded = read(record)
    verdict = judge(recorded)
    assert broken(verdict) == []
    assert verdict.ok
    assert verdict.labs > 0
    assert verdict.requests > 20
    assert len(recorded.samples) >= 10
    last = recorded.samples[-1].values
    assert {name.partition("/")[0] for name in last} >= MEASURES
    assert not [name for name in last if limit_of(name) is None], "each is judged or said not to be"
    assert all(
        last[f"tasks/{one}-1"] > 10 for one in ("api-gateway", "scheduler", "worker-controller", "artifact-service")
    )
    assert len(render(recorded, verdict)) > 10_000
