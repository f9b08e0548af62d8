"""Log files of processes that write them themselves: opened for appending, cut by size, read from the end.

A file that has grown over the limit is copied aside and emptied (the writer appends, so it goes on at the start). Lines
written between the copy and the cut are lost: a price for writers that need no supervisor to be read from.
"""

import json
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


def last_words(path: Path, lines: int = 5, width: int = 300) -> str:
    """The last lines for a person: of a JSON line its message and the last line of its error, of others the beginning."""
    return "\n".join(f"    {_brief(line)[:width]}" for line in tail(path, lines).splitlines())


def _brief(line: str) -> str:
    try:
        entry = json.loads(line)
        error = str(entry.get("error", "")).strip().rpartition("\n")[2]
        return f"{entry['level']}: {entry['message']}{f' ({error})' if error else ''}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
