"""A release: one version everywhere, and wheels that work where there is no checkout."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from lablet_common.version import __version__

PACKAGES = (
    "libs/common", "libs/client", "services/api-gateway", "services/scheduler", "services/worker-controller",
    "services/artifact-service", "deploy/local",
)  # fmt: skip
SERVER_ONLY = {"grpcio", "nats-py", "faststream", "fastapi", "uvicorn", "aiobotocore", "numpy", "opentelemetry-sdk"}
slow = [pytest.mark.long, pytest.mark.timeout(600)]


def run(*command: str | Path, **more: object) -> str:
    told = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=500, check=False, **more)  # type: ignore[call-overload]
    assert told.returncode == 0, f"{command}: {told.stdout[-2000:]} {told.stderr[-3000:]}"
    return str(told.stdout)


def test_the_version_is_written_in_one_place(root: Path) -> None:
    for package in PACKAGES:
        text = (root / package / "pyproject.toml").read_text(encoding="utf-8")
        assert re.search(r"^version\s*=", text, re.MULTILINE) is None, package
        assert 'dynamic = ["version"]' in text, package
        (path,) = re.findall(r'^path = "(.*version\.py)"', text, re.MULTILINE)
        assert (root / package / path).resolve() == root / "libs/common/lablet_common/version.py"


def test_the_changelog_begins_with_this_version(root: Path) -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == __version__


@pytest.fixture(scope="module")
def wheels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    build = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    )
    run(*build, *(root / package for package in PACKAGES))
    return folder


def environment(folder: Path, wheels: Path, constraints: Path, *names: str) -> Path:
    """A clean environment with packages from files; what they need comes from the index, at the versions of the lock."""
    venv.create(folder, with_pip=True)
    pip = (folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--find-links", wheels, "--constraint", constraints, *names, cwd=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def constraints(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of the lock, without its hashes: pip asks for those of our own files too, otherwise."""
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("lock") / "constraints.txt"
    versions = [line.removesuffix("\\").rstrip() for line in lines if re.match(r"[a-z]", line)]
    path.write_text("\n".join(versions))
    return path


def installed(bin_folder: Path) -> set[str]:
    told = run(bin_folder / "python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
    return {row["name"].lower() for row in json.loads(told)}


class TestWheels:
    pytestmark = slow

    def test_there_is_one_for_each_package_all_of_this_version(self, wheels: Path) -> None:
        names = sorted(path.name for path in wheels.glob("*.whl"))
        assert len(names) == len(PACKAGES)
        assert all(f"-{__version__}-py3-none-any.whl" in name for name in names), names

    def test_the_client_brings_only_the_client(self, wheels: Path, constraints: Path, tmp_path: Path) -> None:
        found = environment(tmp_path / "client", wheels, constraints, "lablet-client")
        names = installed(found)
        assert {"lablet-client", "lablet-common"} <= names
        assert names.isdisjoint(SERVER_ONLY | {"lablet-local", "lablet-gateway"}), names & SERVER_ONLY
        told = subprocess.run(
            [found / "lablet", "--url", "http://127.0.0.1:9", "version"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert told.stdout.strip() == f"lablet {__version__}"
        assert told.returncode == 3, "no mesh answers there"
        run(found / "python", "-c", "import lablet_client, lablet_client.sync", cwd=tmp_path)

    def test_the_local_mesh_runs_from_wheels_alone(self, wheels: Path, constraints: Path, tmp_path: Path) -> None:
        found = environment(tmp_path / "all", wheels, constraints, "lablet-local")
        more = {"cwd": tmp_path, "env": {"PATH": f"{found}:/usr/bin:/bin", "HOME": str(tmp_path)}}
        run(found / "lablet", "up", "--detach", "--data", tmp_path / "mesh", **more)
        try:
            told = json.loads(run(found / "lablet", "version", "-o", "json", **more))
            assert (told["client"], told["server"]["version"]) == (__version__, __version__)
            workers = json.loads(run(found / "lablet", "get", "workers", "-o", "json", **more))
            assert workers["items"] if isinstance(workers, dict) else workers
        finally:
            run(found / "lablet", "down", "--data", tmp_path / "mesh", **more)
