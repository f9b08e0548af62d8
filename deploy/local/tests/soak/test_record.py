"""The record of a soak: what is written is read again, and a file that is none is refused with the line."""

from pathlib import Path

import pytest

from lablet_local.soak.record import BadRecord, Sample, Writer, read


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "soak.jsonl"
    writer = Writer(path)
    writer.begin({"seconds": 60.0})
    writer.sample(1.25, {"fds/etcd": 3.0})
    writer.sample(2.5, {"fds/etcd": 4.0})
    found = read(path)
    assert found.end == {}
    writer.end({"labs": 3})
    found = read(path)
    assert found.begin == {"seconds": 60.0}
    assert list(found.samples) == [Sample(1.25, {"fds/etcd": 3.0}), Sample(2.5, {"fds/etcd": 4.0})]
    assert found.end == {"labs": 3}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"begin":{}}\n{"at":1', ":2:"),
        ('{"begin":{}}\n{"values":{}}\n', ":2:"),
        ('{"begin":{}}\n[]\n', ":2:"),
        ('{"at":1,"values":{}}\n', "no line tells"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "soak.jsonl"
    path.write_text(text)
    with pytest.raises(BadRecord, match=where):
        read(path)
