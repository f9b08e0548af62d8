"""What is installed, shipped and asked about: pinned to its content, listed, and nothing beside it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lablet_common.version import __version__

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
INSTALLERS = ("Makefile", "deploy/docker/Dockerfile")


def requirements(root: Path) -> list[str]:
    """The lock's entries, each with its hashes in one line."""
    text = (root / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_every_dependency_is_pinned_to_a_version_and_to_its_content(root: Path) -> None:
    entries = requirements(root)
    assert len(entries) > 100
    loose = [
        entry[:60]
        for entry in entries
        if not re.match(r"^[a-z0-9._-]+(\[[a-z0-9,-]+\])?==[^ ;]+( ;[^\\]*)? +--hash=", entry)
    ]
    assert loose == []
    assert [entry[:60] for entry in entries if not HASH.findall(entry)] == []
    assert not re.search(r"git\+|https?://|^-e |file:", "\n".join(entries), re.MULTILINE), (
        "the index is the only source"
    )


def test_whatever_is_installed_from_a_lock_is_compared_with_its_hashes(root: Path) -> None:
    found = []
    for name in INSTALLERS:
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            for command in re.findall(r"pip install[^&|;]*", line):
                own = "--editable" in command or "--no-index" in command or "pip-audit==" in command
                found.append((name, own))
                assert own or "--require-hashes" in command, f"{name}: {command}"
                if own and "pip-audit" not in command:
                    assert "--no-deps" in command, f"{name}: {command} may fetch what no lock names"
    assert {name for name, own in found if not own} == set(INSTALLERS)


def test_a_package_that_is_not_as_the_lock_says_is_not_installed(root: Path, tmp_path: Path) -> None:
    """pip itself, with the flags of the Makefile, on a wheel of ours whose content has another hash."""
    wheel = tmp_path / "ours-1-py3-none-any.whl"
    wheel.write_bytes(b"changed on the way")
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"ours @ {wheel.as_uri()} --hash=sha256:{'0' * 64}\n")
    (flags,) = re.findall(
        r"pip install (.*--require-hashes) --requirement", (root / "Makefile").read_text(encoding="utf-8")
    )
    pip = [sys.executable, "-m", "pip", "install", *flags.split(), "--no-index", "--dry-run"]
    told = subprocess.run([*pip, "--requirement", str(lock)], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in told.stderr


def test_the_audit_asks_about_every_line_of_the_lock_and_fails_for_one_that_cannot_be_asked(root: Path) -> None:
    plan = subprocess.run(
        ["make", "--no-print-directory", "-n", "audit"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    (command,) = [line for line in plan.splitlines() if "bin/pip-audit --" in line]
    assert ".ci/audit.py" in command, "which tells silence from good news"
    assert {"--strict", "--require-hashes", "--disable-pip", "requirements.lock"} <= set(command.split())
    assert not re.search(r"--ignore-vuln|--skip|\|\|| -", command.replace(" --", " @")), "nothing is left out"


HOLE, NONE = "Found 1 known vulnerability in 1 package", "No known vulnerabilities found"
NOT_THERE = "ERROR:pip_audit._cli:ours: Dependency not found on PyPI and could not be audited: ours (1)"


@pytest.mark.parametrize(
    ("known", "lock", "code", "told"),
    [
        ((1, HOLE), (0, NONE), 0, NONE),
        ((1, HOLE), (1, HOLE), 1, HOLE),
        ((1, HOLE), (1, NOT_THERE), 3, f"audit: left out: {NOT_THERE}"),
        ((1, NOT_THERE), (0, NONE), 3, f"audit: left out: {NOT_THERE}"),
        ((0, NONE), (0, NONE), 3, "audit: left out: whoever is asked does not know the hole of pyyaml==5.3"),
        ((1, HOLE), (0, ""), 3, "audit: left out: pip-audit said nothing"),
        ((1, HOLE), (0, f"{NONE}, 2 ignored"), 3, "audit: left out: "),
        ((127, "no such module"), (0, NONE), 3, "audit: left out: no such module"),
    ],
)
def test_an_audit_that_nobody_answers_is_told_as_left_out_with_what_to_do_and_is_no_success(
    root: Path, tmp_path: Path, known: tuple[int, str], lock: tuple[int, str], code: int, told: str
) -> None:
    """The judge of `make audit`, with a pip-audit that ends so on the release with a known hole, and so on the lock."""
    script = tmp_path / "pip-audit"
    script.write_text(
        f'#!/bin/sh\ncase "$2" in *known-hole.txt) echo "{known[1]}" >&2; exit {known[0]};;\n'
        f'requirements.lock) echo "{lock[1]}" >&2; exit {lock[0]};; esac\necho "what is $2?" >&2; exit 9\n'
    )
    script.chmod(0o755)
    command = [sys.executable, str(root / ".ci/audit.py"), str(script), "--requirement", "requirements.lock"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == code
    assert told in ran.stdout + ran.stderr
    if code == 3:
        assert "nothing is known about holes in requirements.lock" in ran.stderr
        assert NONE not in ran.stdout
    else:
        assert "left out" not in ran.stdout + ran.stderr


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_release_has_a_wheel_of_each_package_their_bill_of_materials_and_the_sums_of_all(
    root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dist"
    subprocess.run(
        ["make", "--no-print-directory", "dist", f"DIST={folder}"], cwd=root, capture_output=True, text=True, check=True
    )
    wheels = sorted(path.name for path in folder.glob("*.whl"))
    ours = {
        "lablet_common",
        "lablet_client",
        "lablet_gateway",
        "lablet_scheduler",
        "lablet_workers",
        "lablet_artifacts",
        "lablet_local",
    }
    assert {name.partition("-")[0] for name in wheels} == ours
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sorted(sums) == sorted([*wheels, "sbom.cdx.json"])
    assert sums == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sums}
    bill = json.loads((folder / "sbom.cdx.json").read_text())
    found = {component["name"]: component["version"] for component in bill["components"]}
    assert {name.replace("_", "-"): __version__ for name in ours}.items() <= found.items()
    locked = {tuple(re.findall(r"^([a-z0-9._-]+)\S*?==(\S+)", entry)[0]) for entry in requirements(root)}
    foreign = {name: version for name, version in found.items() if name.replace("-", "_") not in ours}
    assert len(foreign) > 40
    assert foreign.items() - locked == set(), "not as locked"
