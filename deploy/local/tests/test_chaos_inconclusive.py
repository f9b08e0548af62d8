"""A fault run in which a check had nothing to compare has a verdict of its own: nothing is broken, and nothing proven."""

import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lablet_local.chaos import command
from lablet_local.chaos.command import ChaosOptions, run_chaos, run_sum, summary
from lablet_local.chaos.load import Asked, Seen
from lablet_local.chaos.record import Record, append, read, record_of, result_of, summed, undecided
from lablet_local.chaos.verdict import Result, Verdict
from lablet_local.cli import app
from lablet_local.demo.checks.check import Check, Harm

HELD = Check("etcd", "every accepted request has exactly one outcome", 4)
EMPTY = Check("simulators", "no lab ran in two places at a time", 0, (), Harm.DOUBLED)
BROKEN = Check("clients", "every request was answered in the end", 3, ("k after 7 tries",))
BROKEN_OF_NONE = Check("etcd", "no job ran twice", 0, ("job-1 was run twice",), Harm.DOUBLED)


def verdict(seed: int, *checks: Check) -> Verdict:
    return Verdict(seed, checks, Counter({"kill": 3}), Seen([Asked("reserve", "k", 201)]), 9.0)


def record(seed: int, *checks: Check, members: int = 1) -> Record:
    return record_of(verdict(seed, *checks), members=members, seconds=30, took=70.0)


@pytest.mark.parametrize(
    ("checks", "result"),
    [
        ((HELD,), Result.OK),
        ((HELD, EMPTY), Result.INCONCLUSIVE),
        ((EMPTY,), Result.INCONCLUSIVE),
        ((HELD, BROKEN), Result.FAILED),
        ((HELD, EMPTY, BROKEN), Result.FAILED),
        ((HELD, BROKEN_OF_NONE), Result.FAILED),
        ((), Result.INCONCLUSIVE),
    ],
)
def test_what_broke_wins_over_what_had_nothing_to_compare_and_only_what_compared_something_holds(
    checks: tuple[Check, ...], result: Result
) -> None:
    judged = verdict(1, *checks)
    assert judged.result is result
    assert judged.ok is (result is Result.OK), "tests that ask whether a seed held are told no"
    assert record(1, *checks).result is result


def test_a_check_is_told_as_broken_or_as_without_anything_to_compare_and_never_as_both() -> None:
    judged = verdict(1, HELD, EMPTY, BROKEN, BROKEN_OF_NONE)
    assert judged.broken == [
        "clients: every request was answered in the end: k after 7 tries",
        "etcd: no job ran twice: job-1 was run twice",
    ]
    assert judged.uncompared == ["simulators: no lab ran in two places at a time"]


def test_a_line_says_what_had_nothing_to_compare(tmp_path: Path) -> None:
    append(tmp_path / "runs.jsonl", record(1, HELD, EMPTY))
    (found,) = read(tmp_path / "runs.jsonl")
    assert (found.broken, found.uncompared) == ([], ["simulators: no lab ran in two places at a time"])
    assert found.result is Result.INCONCLUSIVE


@pytest.mark.parametrize(
    ("listed", "broken", "uncompared", "result"),
    [
        ([], [], [], Result.OK),
        (
            ["etcd: a: nothing to compare", "etcd: b: nothing to compare"],
            [],
            ["etcd: a", "etcd: b"],
            Result.INCONCLUSIVE,
        ),
        (["etcd: a: nothing to compare", "etcd: b: k"], ["etcd: b: k"], ["etcd: a"], Result.FAILED),
    ],
)
def test_earlier_lines_which_list_both_as_broken_are_told_apart(
    tmp_path: Path, listed: list[str], broken: list[str], uncompared: list[str], result: Result
) -> None:
    body = record(119, HELD).model_dump(mode="json") | {"broken": listed}
    del body["uncompared"]
    (tmp_path / "runs.jsonl").write_text(json.dumps(body) + "\n")
    (found,) = read(tmp_path / "runs.jsonl")
    assert (found.broken, found.uncompared, found.result) == (broken, uncompared, result)


def test_lines_of_today_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Also where a case of something broken ends in the words that told earlier lines apart."""
    broken = Check("clients", "every request was answered in the end", 3, ("k: nothing to compare",))
    append(tmp_path / "runs.jsonl", record(1, broken))
    (found,) = read(tmp_path / "runs.jsonl")
    assert found.result is Result.FAILED


def test_a_seed_is_undecided_until_a_run_of_the_same_plan_is_conclusive() -> None:
    starved, held, broke = record(1, EMPTY), record(1, HELD), record(1, BROKEN)
    assert undecided([starved]) == [starved]
    assert undecided([starved, held]) == undecided([held, starved]) == undecided([starved, broke]) == []
    others = [record(2, HELD), record(1, HELD, members=3)]
    assert undecided([starved, *others]) == [starved]


def test_together_one_failure_fails_one_undecided_seed_proves_nothing_and_so_do_no_runs() -> None:
    starved, held, broke = record(1, EMPTY), record(1, HELD), record(2, BROKEN)
    assert result_of([held]) is result_of([starved, held]) is Result.OK
    assert result_of([starved, record(2, HELD)]) is Result.INCONCLUSIVE
    assert result_of([starved, broke]) is result_of([broke, record(2, HELD)]) is Result.FAILED
    assert result_of([]) is Result.INCONCLUSIVE


def test_the_exit_status_tells_them_apart_and_only_what_held_is_0() -> None:
    assert {result: result.exit_status for result in Result} == {
        Result.OK: 0,
        Result.FAILED: 1,
        Result.INCONCLUSIVE: 3,
    }


def test_the_line_that_ends_a_run_names_failed_and_inconclusive_seeds_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(soft_wrap=True)
    starved = [record(142, EMPTY), record(119, EMPTY), record(119, EMPTY), record(3, HELD)]
    assert summary(starved, console) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "chaos: inconclusive seeds: 119, 142"
    assert told[1].startswith("chaos: INCONCLUSIVE seeds=3 faults=12 requests=4 lost=0 doubled=0 overcommitted=0")
    assert summary([*starved, record(7, BROKEN), record(142, BROKEN)], console) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["chaos: failed seeds: 7, 142", "chaos: inconclusive seeds: 119"]
    assert told[2].startswith("chaos: FAILED seeds=4")


def test_an_inconclusive_seed_is_named_its_data_are_kept_and_the_record_has_it_run_again_until_it_is_conclusive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lived: list[int] = []
    found = {118: [HELD], 119: [HELD, EMPTY], 120: [BROKEN]}

    async def run_seed(seed: int, *_: object, **__: object) -> Verdict:
        lived.append(seed)
        return verdict(seed, *found[seed])

    monkeypatch.setattr(command, "run_seed", run_seed)
    file, keep = tmp_path / "runs.jsonl", tmp_path / "kept"
    options = ChaosOptions(first=118, seeds=2, keep=keep, record=file)
    assert run_chaos(options) == 3
    told = capsys.readouterr().out
    assert "seed 119: INCONCLUSIVE in 0 s" in told
    assert "  nothing was compared: simulators: no lab ran in two places at a time\n" in told
    assert "BROKEN" not in told
    assert "again: lablet chaos --seed 119 --seconds 30" in told
    assert [path.name.startswith("lablet-chaos-119-") for path in keep.iterdir()] == [True]
    assert "chaos: inconclusive seeds: 119\nchaos: INCONCLUSIVE seeds=2" in told

    assert run_chaos(options) == 3
    found[119] = [HELD]
    capsys.readouterr()
    assert run_chaos(options) == 0
    assert "chaos: ok seeds=2" in capsys.readouterr().out
    assert lived == [118, 119, 119, 119]
    assert run_chaos(ChaosOptions(first=118, seeds=3, keep=keep, record=file)) == 1
    assert run_chaos(ChaosOptions(first=118, seeds=3, keep=keep, record=file)) == 1
    assert lived == [118, 119, 119, 119, 120], "neither what held nor what failed is run again"
    assert [one.seed for one in read(file)] == lived, "every line stays"


def test_the_sum_counts_failed_and_inconclusive_runs_apart_and_says_which_are_still_open(tmp_path: Path) -> None:
    records = [record(1, HELD), record(2, EMPTY), record(2, HELD), record(3, EMPTY), record(4, BROKEN)]
    table = summed(records).splitlines()
    assert table[0].startswith("| mesh | runs | seeds | ok | failed | inconclusive | faults |")
    assert table[2].startswith("| 1 etcd, 1 NATS | 5 | 4 | 2 | 1 | 2 | 15 |")
    claim = "nothing was compared for simulators: no lab ran in two places at a time"
    assert table[-3:] == [
        "Seed 4 (1 etcd, 1 NATS) failed: clients: every request was answered in the end: k after 7 tries",
        f"Seed 2 (1 etcd, 1 NATS) was inconclusive, and not so in another run: {claim}",
        f"Seed 3 (1 etcd, 1 NATS) was inconclusive: {claim}",
    ]
    file = tmp_path / "runs.jsonl"
    for count, status in ((3, 0), (4, 3), (5, 1)):
        file.unlink(missing_ok=True)
        for one in records[:count]:
            append(file, one)
        assert run_sum([file]) == status
    file.write_text("")
    assert run_sum([file]) == 3


def test_the_help_says_what_each_exit_status_means() -> None:
    said = " ".join(CliRunner().invoke(app, ["chaos", "--help"]).output.split())
    assert "Exit status: 0 every check held; 1 one was broken (FAILED)" in said
    assert "(INCONCLUSIVE)" in said
