"""A node's output: everything it writes goes to a file that is kept bounded, and can be read by position.

Two files: when the present one is full it takes the older one's place. Positions count from the node's first byte; what
has been dropped is skipped, and the reader is told.
"""

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


def older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


class OutputFile:
    """The writing side. Between `keep` and twice as many bytes are kept. Raises OSError where the disk refuses."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size
        self.dropped = 0
        last = older(path)
        self.written = self._size + (last.stat().st_size if last.exists() else 0)

    def turns_with(self, data: bytes) -> bool:
        """Writing that will drop the older part. To be recorded before and after it (see `read_output`)."""
        return self._size + len(data) > self._keep

    def write(self, data: bytes) -> None:
        while data:
            if self._size >= self._keep:
                self._turn()
            count = self._file.write(data[: self._keep - self._size])  # a disk that is full may take less
            data = data[count:]
            self._size += count
            self.written += count

    def _turn(self) -> None:
        last = older(self._path)
        if last.exists():
            self.dropped += last.stat().st_size
        self._file.close()
        self._path.replace(last)
        self._file = self._path.open("ab", buffering=0)
        self._size = 0

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes from `start` on; `start` is above what was asked for where the beginning is no longer kept."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


def read_output(path: Path, dropped: int, written: int, position: int, limit: int) -> Piece:
    """At most `limit` bytes from `position` on. `dropped` and `written` are what the writer has recorded last: before each
    turn and after it. So files that hold less than had been written by then have turned since, and what was dropped by that
    is as long as what is the older part now: a part is full when it becomes that."""
    with ExitStack() as files:
        parts = _opened(path, files)
        sizes = [os.fstat(part.fileno()).st_size for part in parts]
        begin = dropped
        missing = written - begin - sum(sizes)
        if missing > 0 and sizes and sizes[0]:
            begin += math.ceil(missing / sizes[0]) * sizes[0]
        for part, size in zip(parts, sizes, strict=True):
            if position < begin + size:
                start = max(position, begin)
                part.seek(start - begin)
                return Piece(start, part.read(min(limit, size - (start - begin))))
            begin += size
    return Piece(max(position, dropped), b"")


def _opened(path: Path, files: ExitStack) -> list[BinaryIO]:
    """The older part and the present one, as far as there are any. The present one first: where it has become the older one
    before that was opened, they are opened anew."""
    while True:
        found: dict[tuple[int, int], BinaryIO] = {}
        for part in (path, older(path)):
            try:
                file = files.enter_context(part.open("rb"))
            except FileNotFoundError:
                continue
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) in found:
                break
            found[status.st_dev, status.st_ino] = file
        else:
            return list(reversed(found.values()))
