"""The Makefile's targets: each that is promised can be made, in one way only, and each that a page names is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PHONY = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()
HEADS = re.findall(r"^([a-z][a-z-]*)%?:(?!=)", MAKEFILE, re.MULTILINE)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("target", PHONY)
def test_each_phony_target_has_a_rule(target: str) -> None:
    assert target in HEADS, f".PHONY names {target}, but nothing makes it: `make {target}` would do nothing and say so"


def test_no_target_has_two_rules() -> None:
    assert len(HEADS) == len(set(HEADS)), sorted({head for head in HEADS if HEADS.count(head) > 1})


def test_help_lists_each_target_that_is_for_people() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = set(re.findall(r"^  make (\S+)", listed.stdout, re.MULTILINE))
    assert set(PHONY) == names


def test_each_target_that_a_page_names_is_there() -> None:
    named = [(page, word) for page in PAGES for word in re.findall(r"`make ([a-z][a-z-]*)", page.read_text("utf-8"))]
    assert len(named) > 20, "the pages name targets; none was found, so the search is wrong"
    unknown = [
        f"{page.relative_to(ROOT)}: make {word}"
        for page, word in named
        if word not in HEADS and not word.startswith("bench-")
    ]
    assert not unknown


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], "--seeds 4 --agents 2"),
        (["SEEDS=7", "AGENTS=0", "HA=1", "RECORD=runs.jsonl"], "--seeds 7 --agents 0 --ha --record runs.jsonl"),
    ],
)
def test_fault_runs_take_seeds_agents_members_and_a_record(given: list[str], options: str) -> None:
    command = ["make", "--no-print-directory", "-n", "chaos", *given]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert " ".join(shown.splitlines()[-1].split()).endswith(f"lablet chaos {options}")
