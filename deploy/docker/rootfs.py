"""Gathers what the image consists of: the interpreter, its standard library, our virtual environment, the shared
libraries that those need, certificates. Nothing else: no shell, no package manager, no compiler.

Run as root in the build stage, on Debian or an image made from it. Shared libraries are found by `ldd`, so what is only
opened by name at run time (there is nothing of that kind among our packages) has to be added here. Left out of the
packages are tests, type stubs, sources of extensions, and what botocore knows of services that we never call.

    python3 rootfs.py /opt/lablet /image --user 10001
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

STDLIB_LEFT_OUT = (
    "test", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data", "distutils",
    "site-packages", "dist-packages", "config-*", "__phello__", "*.opt-1.pyc", "*.opt-2.pyc",
)  # fmt: skip
PACKAGES_LEFT_OUT = (
    "tests", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.cpp", "*.h", "*.a", "numpy/f2py", "numpy/distutils",
    "numpy/doc",
)  # fmt: skip
AWS_SERVICES = frozenset({"ec2", "s3", "sts", "iam", "service-quotas", "pricing"})
"""botocore's descriptions of these are kept: the ones that the EC2 provider, the object store and `doctor` call."""
FILES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/openssl.cnf", "/usr/lib/ssl", "/etc/os-release",
    "/usr/lib/os-release", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/services", "/etc/protocols",
)  # fmt: skip


def copy(source: Path, root: Path, left_out: Iterable[str] = ()) -> None:
    """A file, link or tree to the same place below `root`. The targets of links are copied too."""
    target = root / source.relative_to("/")
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(source.readlink())
        copy(Path(os.path.normpath(source.parent / source.readlink())), root, left_out)
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def prune(packages: Path) -> None:
    """Takes out of `site-packages` what no service reads at run time."""
    for pattern in PACKAGES_LEFT_OUT:
        for path in sorted(packages.rglob(pattern) if "/" not in pattern else packages.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
    for service in (packages / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in AWS_SERVICES:
            shutil.rmtree(service)
    for compiled in packages.rglob("__pycache__/*.pyc"):
        if not (compiled.parents[1] / f"{compiled.name.split('.')[0]}.py").exists():
            compiled.unlink()


def binaries(root: Path) -> Iterator[Path]:
    """Every ELF file below `root`."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as start:
                if start.read(4) == b"\x7fELF":
                    yield path


def libraries(binary: Path) -> Iterator[Path]:
    """What the loader would map for a program or library, with the loader itself. Raises `RuntimeError` for one missing."""
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    for line in told.stdout.splitlines():
        name, _, rest = line.strip().partition(" => ")
        if rest.startswith("not found"):
            raise RuntimeError(f"{binary} needs {name}, which is not here")
        path = (rest or name).partition(" (")[0].strip()
        if path.startswith("/"):
            yield Path(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def skeleton(root: Path, user: int) -> None:
    """Folders and the few files of /etc that libraries look for."""
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():
            (root / "usr" / name).mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(f"usr/{name}")
    write(
        root / "etc/passwd",
        f"root:x:0:0:root:/root:/sbin/nologin\nlablet:x:{user}:{user}::/home/lablet:/sbin/nologin\n",
    )
    write(root / "etc/group", f"root:x:0:\nlablet:x:{user}:\n")
    write(root / "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")
    for name in ("tmp", "home/lablet", "root", "run", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    os.chown(root / "home/lablet", user, user)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="the virtual environment")
    parser.add_argument("root", type=Path, help="the new root; must not exist")
    parser.add_argument("--user", type=int, default=10001)
    options = parser.parse_args()
    options.root.mkdir(parents=True)
    skeleton(options.root, options.user)
    environment = options.environment.resolve()
    (packages,) = environment.glob("lib/python3.*/site-packages")
    prune(packages)
    copy(environment, options.root)
    copy(environment / "bin" / "python", options.root)
    copy(Path(os.path.realpath(environment / "bin" / "python")), options.root)
    copy(Path(sysconfig.get_path("stdlib")), options.root, STDLIB_LEFT_OUT)
    for name in FILES:
        if Path(name).exists():
            copy(Path(name), options.root)
    wanted = {
        library
        for binary in binaries(options.root)
        for library in libraries(Path("/", binary.relative_to(options.root)))
    }
    for library in sorted(wanted):
        copy(library, options.root)
    subprocess.run(["/sbin/ldconfig", "-r", str(options.root)], check=True)
    print(f"{len(wanted)} shared libraries", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
