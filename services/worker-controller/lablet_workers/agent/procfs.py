"""Processes as the kernel knows them: who is alive, since when, and whose child. Linux's /proc, read without trust in pids
alone: a pid is used again, a pid with its start time is not."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process began; None when there is none (or only its zombie)."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """That very process runs."""
    return start_time(pid) == started


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, zombies too."""
    parents: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields is not None:
            parents.setdefault(int(fields[1]), []).append(other)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def children(pid: int) -> list[int]:
    """The direct ones."""
    try:
        tasks = [task / "children" for task in (_PROC / str(pid) / "task").iterdir()]
        return [int(word) for task in tasks for word in task.read_text(encoding="ascii").split()]
    except OSError:  # a kernel without that file, or the process has just ended
        return [child for child in descendants(pid) if (fields := _stat(child)) is not None and int(fields[1]) == pid]


def marked(variable: str, value: str) -> list[int]:
    """Processes that were started with that variable in their environment, as far as this user may see it."""
    wanted = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if wanted in environment.split(b"\0") and start_time(pid) is not None:
            found.append(pid)
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL; what has ended meanwhile is no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str] | None:
    """The fields after the name, from the state on."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
