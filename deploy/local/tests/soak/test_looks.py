"""What is read of processes, files and metrics."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

from lablet_local.soak.processes import children, look, weigh
from lablet_local.soak.sampling import series


def test_a_process_is_weighed_and_one_that_has_ended_is_nothing() -> None:
    before = look(os.getpid())
    with open(os.devnull), open(os.devnull):  # noqa: PTH123 - only descriptors are wanted
        after = look(os.getpid())
    assert after["fds"] == before["fds"] + 2
    assert before["rss_bytes"] >= before["uss_bytes"] > 1_000_000
    assert before["threads"] >= 1
    assert before["cpu_seconds"] > 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert look(ended.pid) == {}


def test_memory_that_is_taken_is_seen() -> None:
    assert not tracemalloc.is_tracing()
    before = look(os.getpid())["uss_bytes"]
    taken = bytearray(os.urandom(16)) * (2 * 1024 * 1024)
    assert look(os.getpid())["uss_bytes"] - before > len(taken) * 0.9


def test_children_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in children(os.getpid())
        assert child.stdin is not None
        child.stdin.close()
    assert child.pid not in children(os.getpid())


def test_files_and_their_blocks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one").write_bytes(b"x" * 10_000)
    (tmp_path / "two").write_bytes(b"")
    files, size = weigh(tmp_path)
    assert files == 2
    assert size >= 10_000


def test_series_are_read_with_their_labels() -> None:
    text = '# HELP a words\n# TYPE a gauge\na{kind="x y",of="z"} 3.0\n\nb 1e+06\n'
    assert dict(series(text)) == {'a{kind="x y",of="z"}': 3.0, "b": 1_000_000.0}
