"""What a host has, and what of it is used now; Linux's /proc, with a container's memory limit where there is one."""

import os
import time
from pathlib import Path

from lablet_common.agents import Usage
from lablet_common.loads import Load, Used
from lablet_common.resources.worker import Capacity

_GIB = 1024**3
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_SHARE = 0.9
"""Of memory and free disk that is offered to labs: the host lives too."""


def measured(folder: Path) -> Capacity:
    """What the host can offer to labs whose files lie in `folder`."""
    disk = os.statvfs(folder)
    return Capacity(
        cpu_cores=float(len(os.sched_getaffinity(0))),
        memory_gb=round(_memory_total() * _SHARE / _GIB, 2),
        storage_gb=max(0.01, round(disk.f_bavail * disk.f_frsize * _SHARE / _GIB, 2)),
    )


def _memory_total() -> int:
    total = _memory("MemTotal")
    for limit in _LIMITS:
        try:
            text = limit.read_text(encoding="ascii").strip()
        except OSError:  # no such hierarchy here
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _memory(name: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/meminfo has no {name}")


class Meter:
    """Tells the usage since it was asked last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._busy = self._busy_seconds()
        self._at = time.monotonic()

    def usage(self, labs: int) -> Usage:
        busy, at = self._busy_seconds(), time.monotonic()
        cores = (busy - self._busy) / max(at - self._at, 0.001)
        self._busy, self._at = busy, at
        disk = os.statvfs(self._folder)
        return Usage(
            cpu_cores=round(cores, 2),
            memory_gb=round((_memory("MemTotal") - _memory("MemAvailable")) / _GIB, 2),
            storage_gb=round((disk.f_blocks - disk.f_bfree) * disk.f_frsize / _GIB, 2),
            labs=labs,
        )

    def load(self, nodes: int) -> Load:
        """The same beside what there is; `nodes` of labs run."""
        used, disk = self.usage(nodes), os.statvfs(self._folder)
        return Load(
            cpu_cores=Used(used=used.cpu_cores, total=float(os.cpu_count() or 1)),
            memory_gb=Used(used=used.memory_gb, total=round(_memory("MemTotal") / _GIB, 2)),
            storage_gb=Used(used=used.storage_gb, total=round(disk.f_blocks * disk.f_frsize / _GIB, 2)),
            nodes=nodes,
        )

    @staticmethod
    def _busy_seconds() -> float:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        user, nice, system, _idle, _wait, irq, soft, *_ = map(int, fields)
        return float(user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
