"""What the kernel knows about a process, from /proc. Linux only, as the mesh is."""

import contextlib
import os
from pathlib import Path

_KIB = 1024
_TICKS = os.sysconf("SC_CLK_TCK")
_ROLLUP = {"Rss": "rss_bytes", "Pss": "pss_bytes", "Private_Clean": "uss_bytes", "Private_Dirty": "uss_bytes"}


def look(pid: int) -> dict[str, float]:
    """Memory in bytes (resident, proportional, its own), open files, threads, seconds of CPU. Empty where it has ended."""
    home = Path("/proc") / str(pid)
    found: dict[str, float] = {}
    try:
        for line in (home / "smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in _ROLLUP:
                found[_ROLLUP[name]] = found.get(_ROLLUP[name], 0.0) + int(value.split()[0]) * _KIB
        fields = _stat(pid)
        found["cpu_seconds"] = (int(fields[11]) + int(fields[12])) / _TICKS
        found["threads"] = float(fields[17])
        found["fds"] = float(sum(1 for _ in (home / "fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return {}
    return found


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for home in Path("/proc").iterdir():
        if (name := home.name).isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
                if int(_stat(int(name))[1]) == pid:
                    found.append(int(name))
    return found


def _stat(pid: int) -> list[str]:
    """The fields from the third on; the second, the name, may hold anything."""
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()


def weigh(folder: Path) -> tuple[int, int]:
    """Files below a folder and their bytes on disk; what vanishes meanwhile does not count."""
    files = size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += (Path(root) / name).stat().st_blocks * 512
                files += 1
    return files, size
