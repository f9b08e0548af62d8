"""The programs of docs/guides/sdk.md are run as they stand, against the real gateway; those that wait for a running lab run
on a real mesh (`tests/e2e/test_outside.py`)."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lablet_client import errors

pytestmark = pytest.mark.integration
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "sdk.md").read_text(encoding="utf-8")
_PROGRAM = re.compile(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", re.MULTILINE | re.DOTALL)
PROGRAMS = dict(_PROGRAM.findall(PAGE))
SAYS = {
    "Book seats, and hear why not": r"rsv-\w+ Scheduled\n1 default-\d+ \{.*\}\n",
    "Follow what happens": r"reservation\.\w[\w-]* reservation/rsv-\w+ \S+-\d+\n(.*reservation\.scheduled\n)",
    "Lists": r"\d+ \d+ \w+\n$",
    "Change what was read": r"somebody was first; it ends \S+ \S+\n",
}
ELSEWHERE = {"Wait for it"}


@pytest.fixture
def published(mesh: Any, typed: Any, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "lab.yaml").write_text("nodes: []\n")
    typed("definition", "publish", str(tmp_path / "lab.yaml"), "--name", "ospf-basics")
    return {"LABLET_URL": mesh.url, "LABLET_TOKEN": mesh.token("admin"), "HOME": str(tmp_path)}


def test_every_program_of_the_page_is_run_somewhere() -> None:
    assert set(PROGRAMS) == SAYS.keys() | ELSEWHERE
    assert PAGE.count("```python") == len(PROGRAMS)


@pytest.mark.parametrize("title", SAYS)
def test_a_program_of_the_page_does_what_it_says(published: dict[str, str], tmp_path: Path, title: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[title])
    done = subprocess.run(
        [sys.executable, str(program)], env=published, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SAYS[title], done.stdout), done.stdout


def test_the_page_names_every_exception_that_the_package_offers() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE.partition("## What can go wrong")[2]))
    offered = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert offered - {"ServerFault"} <= told
