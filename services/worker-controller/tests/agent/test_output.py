"""What is kept of a node's output is read at its own positions, whenever the older part is dropped."""

from pathlib import Path

import pytest

from lablet_workers.agent.output import OutputFile, older, read_output

KEEP = 80
"""Bytes of a part: ten lines, each the number of its place."""


def lines(first: int, count: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(first, first + count))


@pytest.mark.parametrize("count", [5, 10, 15, 20, 25, 30, 95])
@pytest.mark.parametrize("then", [0, 3, 9])
@pytest.mark.parametrize("renamed", [False, True], ids=["", "the present part is just being made"])
def test_a_reader_whose_record_is_of_before_a_turn_is_told_the_right_positions(
    tmp_path: Path, count: int, then: int, renamed: bool
) -> None:
    file = OutputFile(tmp_path / "a.log", KEEP)
    for number in range(count):
        file.write(lines(number, 1))
    dropped, written = file.dropped, file.written
    assert written == 8 * count
    file.write(lines(count, then))
    if renamed and count % 10 == 0 and not then:
        (tmp_path / "a.log").replace(older(tmp_path / "a.log"))
    position, found = 0, b""
    while data := (piece := read_output(tmp_path / "a.log", dropped, written, position, 24)).data:
        assert data == lines(0, 200)[piece.start : piece.end]
        position, found = piece.end, found + data
    assert len(found) >= min(KEEP, file.written)
    assert position == file.written


def test_a_disk_that_takes_a_part_of_it_is_counted_as_far_as_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OutputFile(tmp_path / "a.log", KEEP)

    class Full:
        def write(self, data: bytes) -> int:
            if len(data) < 8:
                raise OSError(28, "No space left on device")
            return len(data) // 2

    monkeypatch.setattr(file, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        file.write(b"x" * 24)
    assert file.written == 18
