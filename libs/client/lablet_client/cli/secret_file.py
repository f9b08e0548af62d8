"""A secret that is shown once goes into a file instead. The file is opened before the secret is asked for, so that none is
made that nobody can have."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opened(path: Path | None, *, new: bool = False) -> Iterator[Callable[[str], None]]:
    """What writes the secret (a line, mode 0600); nothing where there is no path. A file that was there keeps what it holds
    until then, one that was not is taken away where no secret comes; `new` allows none that is there. Raises `OSError`."""
    if path is None:
        yield lambda _: None
        return
    there = path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_EXCL if new else 0), 0o600)
    written = False
    plain = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write(secret: str) -> None:
        nonlocal written
        if plain:
            os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{secret}\n".encode())
        written = True

    try:
        if plain:
            os.fchmod(descriptor, 0o600)
        yield write
    finally:
        os.close(descriptor)
        if not written and not there:
            path.unlink(missing_ok=True)
