"""A node's output: everything it writes goes to a file that is kept bounded, and can be read by position.

Two files: when the present one is full it takes the older one's place. Positions count from the node's first byte; what
has been dropped is skipped, and the reader is told.
"""

import os
from dataclasses import dataclass
from pathlib import Path


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
        self.written = self._size

    def write(self, data: bytes) -> None:
        while data:
            if self._size >= self._keep:
                self._turn()
            part, data = data[: self._keep - self._size], data[self._keep - self._size :]
            self._file.write(part)
            self._size += len(part)
            self.written += len(part)

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


def read_output(path: Path, dropped: int, position: int, limit: int) -> Piece:
    """At most `limit` bytes from `position` on. `dropped` is what the writer says. A turn between two reads gives less, not
    wrong bytes: sizes are taken from the files as they are opened."""
    begin = dropped
    for part in (older(path), path):
        try:
            with part.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if position < begin + size:
                    start = max(position, begin)
                    file.seek(start - begin)
                    return Piece(start, file.read(limit))
                begin += size
        except FileNotFoundError:
            continue
    return Piece(max(position, dropped), b"")
