"""Log files of processes that write them themselves: opened for appending, cut by size, read from the end.

A file that has grown over the limit is copied aside and emptied (the writer appends, so it goes on at the start). Lines
written between the copy and the cut are lost: a price for writers that need no supervisor to be read from.
"""

import os
import shutil
from pathlib import Path

LIMIT_BYTES = 8 * 1024 * 1024


def open_log(path: Path) -> int:
    """A descriptor that appends, readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def rotate(path: Path, limit: int = LIMIT_BYTES, keep: int = 2) -> bool:
    """Moves the content to `<name>.1` (and that to `.2` …) once it is larger than `limit` bytes."""
    if not path.exists() or path.stat().st_size <= limit:
        return False
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copy2(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


def tail(path: Path, lines: int = 10, longest: int = 8192) -> str:
    """The last lines; empty when there is no file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - longest))
            text = log.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
