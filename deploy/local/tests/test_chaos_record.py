"""Records of fault runs: written a line at a time, read again, and summed up without hiding what failed."""

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from lablet_local.binaries import BinaryMissing
from lablet_local.chaos import command
from lablet_local.chaos.command import ChaosOptions, run_chaos, run_sum, summary
from lablet_local.chaos.load import Asked, Seen
from lablet_local.chaos.record import BadRecord, Record, append, read, record_of, summed
from lablet_local.chaos.verdict import Result, Verdict, never_shown
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.supervisor import NotReady


def record(seed: int, *broken: str, harm: Harm = Harm.LOST, members: int = 1) -> Record:
    seen = Seen([Asked("reserve", "k", 201), Asked("cancel", "l", 202)], longest_unavailable=1.26)
    checks = (Check("etcd", "every request was answered in the end", 4, broken, harm),)
    verdict = Verdict(seed, checks, Counter({"kill": 3, "cut": 1}), seen, 31.4, outcomes=Counter({"Completed": 1}))
    return record_of(verdict, members=members, seconds=25, took=70.04)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    written = [record(1), record(2, "k after 7 tries"), record(1, members=3)]
    for one in written:
        append(file, one)
    assert list(read(file)) == written
    assert [one.result for one in written] == [Result.OK, Result.FAILED, Result.OK]
    assert written[1].broken == ["etcd: every request was answered in the end: k after 7 tries"]


def test_what_was_missed_and_said_is_kept_and_lines_from_before_are_read(tmp_path: Path) -> None:
    seen = Seen([Asked("reserve", "k", 201)], answers=Counter({201: 3, 503: 2, 500: 1}), longest_unwritable=3.14)
    check = Check("etcd", "all is well", 1)
    verdict = Verdict(1, (check,), Counter({"kill": 3}), seen, 9.0, missed=Counter({"machine": 2}))
    kept = record_of(verdict, members=1, seconds=20, took=60)
    assert (kept.missed, kept.statuses) == ({"machine": 2}, {"2xx": 3, "500": 1, "503": 2})
    assert kept.longest_unwritable == 3.1
    assert "3 kill; 2 more were planned and did not come about" in summed([kept])
    file = tmp_path / "runs.jsonl"
    file.write_text(kept.model_dump_json(exclude={"missed", "statuses", "longest_unwritable"}) + "\n")
    (before,) = read(file)
    assert (before.missed, before.statuses, before.longest_unwritable) == ({}, {}, None)


def test_what_several_seeds_never_showed_is_named() -> None:
    def seed(number: int, done: dict[str, int], missed: dict[str, int], **asked: int) -> Verdict:
        seen = Seen([Asked(what, "k", status) for what, status in asked.items()])
        return Verdict(number, (), Counter(done), seen, 9.0, missed=Counter(missed))

    one = seed(1, {"kill": 3}, {"machine": 1, "purge": 1}, reserve=201, extend=409)
    other = seed(2, {"purge": 1}, {"machine": 2}, cancel=200, collect=0)
    deeds = (("reserve",), ("extend", "change-series"), ("cancel",), ("collect",))
    assert (one.planned, other.planned) == (5, 3)
    assert never_shown([one, other], deeds) == [
        "no machine came about", "no extend or change-series was accepted", "no collect was accepted",
    ]  # fmt: skip
    assert never_shown([one, other, seed(3, {"machine": 1}, {}, collect=202, **{"change-series": 200})], deeds) == []
    assert never_shown([one], deeds[:1]) == [], "each of the missed was planned once"
    assert never_shown([], deeds[:1]) == ["no reserve was accepted"]


def test_a_line_that_was_cut_short_is_passed_over_and_the_next_one_stands_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    append(file, record(1))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: whole.index(b"}") + 1])
    append(file, record(2))
    assert [one.seed for one in read(file)] == [1, 2]


@pytest.mark.parametrize("line", ['{"seed": 1}', "a host's name"])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    """Also so that nothing is added to a file of somebody else's."""
    file = tmp_path / "runs.jsonl"
    file.write_text(f"{line}\n")
    with pytest.raises(BadRecord, match=r"runs\.jsonl:1"):
        list(read(file))
    assert run_sum([file]) == 2


@pytest.mark.parametrize("harm", list(Harm))
def test_each_kind_of_harm_is_counted_where_it_belongs(harm: Harm) -> None:
    found = record(1, "a", "b", harm=harm)
    assert {name: getattr(found, name) for name in Harm} == dict.fromkeys(Harm, 0) | {harm: 2}


def test_the_sum_counts_every_run_and_names_a_seed_that_failed_once() -> None:
    table = summed([record(1), record(2, "k"), record(2), record(5, members=3)]).splitlines()
    assert table[2] == "| 1 etcd, 1 NATS | 3 | 2 | 2 | 1 | 0 | 12 | 6 | 1 | 0 | 0 | 0 | 1.3 s | 31 s |"
    assert table[3] == "| 3 etcd, 3 NATS | 1 | 1 | 1 | 0 | 0 | 4 | 2 | 0 | 0 | 0 | 0 | 1.3 s | 31 s |"
    assert "12 kill, 4 cut" in table[5]
    assert table[6].startswith("Seed 2 (1 etcd, 1 NATS) failed: etcd: every request")


def test_the_line_that_ends_a_run_names_failed_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary([record(1), record(3, "k")], Console(soft_wrap=True)) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "chaos: failed seeds: 3"
    assert told[1].startswith("chaos: FAILED seeds=2 faults=8 requests=4 lost=1 doubled=0 overcommitted=0")


def test_seeds_that_stand_in_the_record_are_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.jsonl"
    for seed in (4, 5):
        append(file, record(seed))
    assert run_chaos(ChaosOptions(first=4, seeds=2, seconds=25, record=file)) == 0
    assert "chaos: ok seeds=2 faults=8" in capsys.readouterr().out
    assert run_sum([file]) == 0


def test_a_seed_whose_mesh_does_not_come_back_is_a_failed_one_and_the_next_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_seed(seed: int, *_: object, **__: object) -> Verdict:
        if seed == 7:
            raise NotReady("not ready after 60 s: scheduler-1 (its log:\n gone)")
        return Verdict(seed, (Check("etcd", "all is well", 1),), Counter({"kill": 3}), Seen(), 9.0)

    monkeypatch.setattr(command, "run_seed", run_seed)
    file = tmp_path / "runs.jsonl"
    assert run_chaos(ChaosOptions(first=6, seeds=3, keep=tmp_path, record=file)) == 1
    said = "mesh: it came back and could be judged: NotReady: not ready after 60 s: scheduler-1 (its log: gone)"
    assert [(one.seed, one.unsettled, one.broken) for one in read(file)] == [(6, 0, []), (7, 1, [said]), (8, 0, [])]
    told = capsys.readouterr().out
    assert f"BROKEN {said}" in told
    assert "again: lablet chaos --seed 7" in told
    assert "chaos: failed seeds: 7\nchaos: FAILED seeds=3 faults=6" in told
    assert run_chaos(ChaosOptions(first=6, seeds=3, keep=tmp_path, record=file)) == 1, "it is not tried again"


def test_where_no_mesh_can_be_started_no_seed_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_seed(*_: object, **__: object) -> Verdict:
        raise BinaryMissing("no etcd")

    monkeypatch.setattr(command, "run_seed", run_seed)
    file = tmp_path / "runs.jsonl"
    assert run_chaos(ChaosOptions(keep=tmp_path, record=file)) == 2
    assert not file.exists()
