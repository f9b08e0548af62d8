"""Worlds that a seed decides, each from its first booking to its last machine, judged by the fault runs' checks.

The interpreter that lives through them is one of its own, with fixed hashes: so a seed that fails here fails everywhere.
"""

import hashlib
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lablet_local.chaos.licences import HELD
from lablet_local.demo.checks.check import Check
from lablet_local.simulation import trial
from lablet_local.simulation.__main__ import unproven
from lablet_local.simulation.story import GENERATION, counted, drawn
from lablet_local.simulation.trial import Verdict

KEPT = Path(__file__).with_name("kept_seeds.txt")
COUNTED = ("14", "16")
"""Seeds whose pools have fewer licences than workers."""


def kept_seeds() -> list[str]:
    """Each behind its generation, as in `1:45`."""
    lines = (line.split() for line in KEPT.read_text().splitlines() if not line.startswith("#"))
    return [words[0] for words in lines if words]


def simulate(*arguments: str, seconds: float = 240, code: str = "") -> subprocess.CompletedProcess[str]:
    """`code` is run in the interpreter before anything is simulated."""
    starts = [sys.executable, "-m", "lablet_local.simulation"]
    if code:
        starts = [sys.executable, "-c", f"{code}\nfrom lablet_local.simulation.__main__ import main\nsys.exit(main())"]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(
        [*starts, *arguments], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def seeds_of(request: pytest.FixtureRequest) -> list[str]:
    first = request.config.getoption("--first", default=1)
    return [str(seed) for seed in range(first, first + request.config.getoption("--seeds", default=4))]


@pytest.mark.timeout(600)
def test_kept_seeds_and_some_more_hold_and_can_be_lived_again(request: pytest.FixtureRequest) -> None:
    seeds = [*kept_seeds(), *COUNTED, *seeds_of(request)]
    done = simulate("--only", ",".join(seeds), "--jobs", "1", "--traces", seconds=240 + 5 * len(seeds))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"simulate: ok seeds={len(seeds)} commits=\d{{3,}} faults=[1-9]\d* ", done.stdout), done.stdout
    traces = [
        line for line in done.stdout.splitlines() if re.fullmatch(r"seed [\d:]+: trace=[0-9a-f]{64} steps=\d+", line)
    ]
    assert len(traces) == len(seeds)
    some = seeds[-3:]
    again = simulate("--only", ",".join(some), "--jobs", "1", "--traces")
    assert again.stdout.splitlines()[:3] == traces[-3:], "the same seeds, in another process, go the same way"


NOTHING_REMOVED = """
import sys
from lablet_workers.instances import ending
moved = ending.exported
async def exported(situation):
    situation.instance = situation.instance.observed(lab=None)
    return await moved(situation)
async def none_left(situation):
    return True
from lablet_workers.instances import steps
steps.exported, ending.none_left = exported, none_left
"""
"""As if a lab that has been exported were taken for gone."""


@pytest.mark.timeout(300)
def test_a_defect_is_found_and_its_seed_named() -> None:
    done = simulate("--only", "2", "--jobs", "1", code=NOTHING_REMOVED)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed 2: nothing was left over: no lab, no running machine: lab ins-" in done.stdout
    assert "simulate: FAILED 2 " in done.stdout


NO_FENCE = """
import sys
from lablet_common.ownership import Fence
Fence.guard = lambda self, txn: None
"""
"""As if owners wrote without asking whether they still are."""


@pytest.mark.timeout(300)
def test_owners_that_write_without_proof_are_found() -> None:
    done = simulate("--only", "2", "--jobs", "1", code=NO_FENCE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed 2: no owner wrote after its ownership had ended: " in done.stdout


STARTED_TWICE = """
import sys
from lablet_workers.instances import steps
from lablet_workers.runtimes.port import RuntimeFault
ended = steps.stopped
async def stopped(situation):
    lab = situation.instance.status.lab
    if lab is not None and situation.runtime is not None:
        try:
            await situation.runtime.start(lab.id)
            await situation.runtime.stop(lab.id)
        except RuntimeFault:
            pass
    return await ended(situation)
steps.stopped = stopped
"""
"""As if a lab that was stopped were started once more before it is removed."""


@pytest.mark.timeout(300)
def test_a_lab_that_runs_twice_one_after_the_other_is_found() -> None:
    done = simulate("--only", "2", "--jobs", "1", code=STARTED_TWICE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed 2: no lab was started more often than its attempts and losses ask for: ins-" in done.stdout


BOOKED_BEYOND = """
import sys
from lablet_scheduler import state
counting = state.policy_of
state.policy_of = lambda pool, licence: counting(pool, None)
"""
"""As if the scheduler did not count licences."""


@pytest.mark.timeout(300)
def test_more_workers_booked_than_there_are_licences_are_found() -> None:
    done = simulate("--only", COUNTED[1], "--jobs", "1", code=BOOKED_BEYOND)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "at no revision were more workers booked at a time than their pool has licences: default at " in done.stdout


ON_BEYOND = """
import sys
from lablet_workers import licences, needs
needs._ration = lambda *_: None
licences.Licences.claim = lambda *_: True
"""
"""As if workers were powered on whoever holds the licences."""


@pytest.mark.timeout(300)
def test_more_machines_on_than_there_are_licences_are_found() -> None:
    done = simulate("--only", COUNTED[0], "--jobs", "1", code=ON_BEYOND)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{HELD}: default: default-001, default-002 held licences together, of 1" in done.stdout


NEVER_ARRIVED = """
import sys
from lablet_local.simulation import story
async def accept(door, request):
    if "drain" not in request.spec.type:
        await accepted(door, request)
accepted = story.accept
story.accept = accept
"""
"""As if whoever takes requests in said yes to drains and wrote nothing."""


@pytest.mark.timeout(300)
def test_a_request_that_was_accepted_and_never_written_is_found() -> None:
    done = simulate("--only", "1", "--jobs", "1", code=NEVER_ARRIVED)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "answered with 202, never reached etcd" in done.stdout


def test_a_world_leaves_nothing_that_is_looked_through_after_the_next_ones() -> None:
    assert trial.trial(2).ok
    assert not trial._value.cache_info().currsize


def test_only_the_second_generation_counts_licences_and_all_else_is_drawn_as_it_was() -> None:
    streams = [random.Random(f"story {seed}") for seed in range(1, 201)]
    shapes = [drawn(stream) for stream in streams]
    told = [
        (one.bookings, one.workers, one.bridges, after.random()) for one, after in zip(shapes, streams, strict=True)
    ]
    assert hashlib.sha256(repr(told).encode()).hexdigest()[:16] == "9398ca2e9fa1796c"
    few = [counted(random.Random(f"licences {seed}"), shape) for seed, shape in enumerate(shapes, 1)]
    assert [replace(shape, licences=None) for shape in few] == shapes
    limits = [(shape.licences, shape.workers) for shape in few if shape.licences is not None]
    assert len(limits) > 50
    assert all(0 < most < workers for most, workers in limits)
    assert HELD in [check.claim for check in trial.trial(int(COUNTED[0])).checks]
    assert HELD not in [check.claim for check in trial.trial(int(COUNTED[0]), generation=1).checks]


def test_a_seed_of_an_earlier_generation_is_named_with_it() -> None:
    assert Verdict(45, (), "", 0, 0, 0, 0.0, generation=1).name == "1:45"
    assert Verdict(45, (), "", 0, 0, 0, 0.0).name == "45"


def test_worlds_that_prove_nothing_do_not_pass() -> None:
    def verdict(faults: int, **compared: int) -> Verdict:
        checks = tuple(Check("etcd", claim, count) for claim, count in compared.items())
        return Verdict(1, checks, "", 1, 1, faults, 1.0)

    assert unproven([verdict(0, kept=3, told=0), verdict(2, kept=0, told=1)]) == []
    assert unproven([verdict(1, kept=3, told=0), verdict(1, kept=1)]) == ["told"]
    assert unproven([verdict(0, kept=3)]) == ["nothing went wrong in any world"]
    assert unproven([verdict(1, kept=3)], bridges=True) == ["no world had bridges"]
    told = Verdict(1, (Check("events", "told", 1),), "", 1, 1, 1, 1.0)
    assert unproven([verdict(1, kept=3), told], bridges=True) == []
    assert unproven([verdict(1, kept=3)], licences=True) == ["no world counted its licences"]
    held = Verdict(1, (Check("simulators", HELD, 1),), "", 1, 1, 1, 1.0)
    assert unproven([verdict(1, kept=3), held], licences=True) == []


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("generation", range(1, GENERATION + 1))
def test_the_range_in_which_seeds_have_failed_before(generation: int) -> None:
    """Of some that did only that is known."""
    assert set(kept_seeds()) >= {"1:45", "1:63", "1:497"}
    done = simulate("--seeds", "500", "--generation", str(generation), seconds=2900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "simulate: ok seeds=500 " in done.stdout


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_eight_weeks_of_teaching() -> None:
    done = simulate("--weeks", "8", seconds=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"lab_hours=(\d+)", done.stdout)[0]) > 7 * 7 * 24
