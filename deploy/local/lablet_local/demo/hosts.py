"""What runs on this machine for the agents, read from /proc: each lab's supervisor and its processes.

Neither agents nor the mesh are asked, so that a lab that is only said to run is found out.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lablet_local.demo.evidence import Ran

_SUPERVISOR = "lablet_workers.agent.supervisor"
_PROC = Path("/proc")


def running(folders: dict[str, Path]) -> list[Ran]:
    """Every lab that runs below the agents' folders (agent → folder), with the processes that its nodes are."""
    found = []
    for pid, words in _commands():
        if _SUPERVISOR not in words:
            continue
        for agent, folder in folders.items():
            inside = [Path(word) for word in words if word.startswith(f"{folder}/")]
            if inside:
                found.append(Ran(_title(inside[0]), agent, tuple(_children(pid))))
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it has ended, or is somebody else's


def _title(lab: Path) -> str:
    """Of the lab in a folder; its name where it is being removed."""
    try:
        return str(json.loads((lab / "plan.json").read_text(encoding="utf-8"))["title"])
    except (FileNotFoundError, ValueError, KeyError):
        return lab.name


def _children(pid: int) -> Iterable[int]:
    try:
        threads = list((_PROC / str(pid) / "task").iterdir())
        told = [(thread / "children").read_text(encoding="utf-8") for thread in threads]
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return sorted(int(word) for text in told for word in text.split())
