"""The script that judges a change: it is valid, and no test can be skipped for a reason that nobody has allowed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = "no browser here   # on a machine without one\n# a remark\n"


def judged(root: Path, folder: Path, *cases: str, allowed: str = ALLOWED) -> subprocess.CompletedProcess[str]:
    (folder / "allowed").write_text(allowed)
    tests = "".join(f"<testcase classname='t' name='n{number}'>{case}</testcase>" for number, case in enumerate(cases))
    (folder / "report.xml").write_text(f"<testsuites><testsuite>{tests}</testsuite></testsuites>")
    command = [sys.executable, str(root / ".ci/skips.py"), str(folder / "allowed"), str(folder / "report.xml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def skip(reason: str, kind: str = "pytest.skip") -> str:
    return f"<skipped type='{kind}' message='{reason}'/>"


def test_a_reason_that_is_allowed_is_counted(root: Path, tmp_path: Path) -> None:
    told = judged(root, tmp_path, skip("no browser here (chromium)"), skip("no browser here (chromium)"), "")
    assert told.returncode == 0
    assert told.stdout == "ci: skipped   2  no browser here (chromium)\n"


@pytest.mark.parametrize("reason", ["too slow", "really no browser here", ""])
def test_any_other_reason_fails_with_the_tests_name(root: Path, tmp_path: Path, reason: str) -> None:
    told = judged(root, tmp_path, "", skip(reason))
    assert told.returncode == 1
    assert "t.n1 was skipped" in told.stderr


def test_an_expected_failure_is_no_skip(root: Path, tmp_path: Path) -> None:
    assert judged(root, tmp_path, skip("known", "pytest.xfail")).returncode == 0


def test_the_script_is_valid_and_runs_each_tier(root: Path) -> None:
    told = subprocess.run(["bash", "-n", root / ".ci/run"], capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 0, told.stderr
    text = (root / ".ci/run").read_text(encoding="utf-8")
    for name in ("setup", "lint", "test", "docs", "observe", "images", "compose", "long"):
        assert f"tier {name} " in text, name
    assert "trap end_engine EXIT" in text


def long_tier(root: Path, **environment: str) -> list[str]:
    """What the script does about it: with its own function, in which only the running is replaced by words."""
    text = (root / ".ci/run").read_text(encoding="utf-8")
    (function,) = re.findall(r"^readonly RUN_ALREADY=.*?^}$", text, re.MULTILINE | re.DOTALL)
    words = 'say() { echo "say $*"; }; note() { echo "note $*"; }; tier() { printf \'%s\\n\' "tier $1" "${@:2}"; }'
    ran = subprocess.run(
        ["bash", "-euc", f"{words}\nOUT=/nowhere\n{function}\nlong_tier"],
        env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return ran.stdout.splitlines()


@pytest.mark.parametrize("environment", [{}, {"LABLET_CI_LONG": "no"}])
def test_unless_it_is_asked_for_the_long_tier_is_left_out_with_a_line_that_says_so(
    root: Path, environment: dict[str, str]
) -> None:
    assert long_tier(root, **environment) == [
        "say long is left out: LABLET_CI_LONG=yes runs it",
        "note long 0 left out: LABLET_CI_LONG=yes runs it",
    ]


def test_every_long_test_is_run_by_one_tier_or_another(root: Path) -> None:
    asked = long_tier(root, LABLET_CI_LONG="yes")
    assert asked[0] == "tier long"
    assert asked[asked.index("-m", asked.index("pytest")) + 1] == "long and not docker"
    ignored = [word.removeprefix("--ignore=") for word in asked if word.startswith("--ignore=")]
    assert len(ignored) == 5
    text = (root / ".ci/run").read_text(encoding="utf-8")
    others = " ".join(
        line for line in text.replace("\\\n", " ").splitlines() if re.search(r"tier (docs|observe|compose) ", line)
    )
    in_docker = [
        str(file.relative_to(root))
        for file in (root / "tests").rglob("test_*.py")
        if re.search(
            r"^pytestmark = .*?\bmark\.docker\b.*?\bmark\.long\b", file.read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
    ]
    assert len(in_docker) == 3
    assert [file for file in (*ignored, *in_docker) if file not in others] == [], "run by no tier"
    calls = text[text.index("tier setup make setup") :]
    assert re.search(r"^  long_tier$.*\.ci/skips\.py", calls, re.MULTILINE | re.DOTALL), (
        "its skipped tests are judged, too"
    )


@pytest.mark.parametrize(
    "reason", ["no Chromium on this machine (…)", "no promtool on this machine", "no prometheus on this machine"]
)
@pytest.mark.parametrize("may_install", [True, False])
def test_what_ci_can_install_is_no_reason_to_skip(root: Path, tmp_path: Path, reason: str, may_install: bool) -> None:
    text = (root / ".ci/run").read_text(encoding="utf-8")
    (listing,) = [line for line in text.splitlines() if line.endswith('>"$OUT/allowed-skips"')]
    script = f"may_install() {{ {str(may_install).lower()}; }}\nOUT={tmp_path}\n{listing}\n"
    subprocess.run(["bash", "-euc", script], cwd=root, timeout=20, check=True)
    assert '.ci/skips.py "$OUT/allowed-skips"' in text
    told = judged(root, tmp_path, skip(reason), allowed=(tmp_path / "allowed-skips").read_text(encoding="utf-8"))
    assert (told.returncode == 0) is not may_install
    assert ("t.n0 was skipped" in told.stderr) is may_install
