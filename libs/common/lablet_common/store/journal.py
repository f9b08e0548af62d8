"""A process's own account of what it has committed, for fault runs: with it and etcd's history a checker can tell who wrote
at a revision, and by right of which ownership.

One line for each write that etcd has confirmed: its revision, then `key@revision` for each comparison of a create revision.
A line is written in one piece before the caller hears of the commit, so that a killed process leaves whole lines. What
etcd has done and its answer got lost has none.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from lablet_common.store.api import Compare, Target


class Journal:
    """Adds to the file at `path`. Raises `OSError` where it cannot be opened or written."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, revision: int, compares: Sequence[Compare] = ()) -> None:
        """A confirmed write at `revision`, which rested on `compares`."""
        created = [f"{one.key}@{int(one.operand)}" for one in compares if one.target is Target.CREATE]
        os.write(self._descriptor, f"{' '.join([str(revision), *created])}\n".encode())

    def close(self) -> None:
        os.close(self._descriptor)
