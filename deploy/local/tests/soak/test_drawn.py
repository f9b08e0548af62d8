"""The curves and the report: whole, self-contained, readable."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lablet_local.soak.chart import Panel, _apart, _round_up, grid
from lablet_local.soak.command import show
from lablet_local.soak.record import Recorded, Sample, Writer, read
from lablet_local.soak.report import figure, markdown, render
from lablet_local.soak.verdict import judge


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "soak.jsonl"
    writer = Writer(path)
    writer.begin({"seconds": 7200.0, "speed": 150.0, "rate": 75.0, "every": 15.0, "settings": {"A": "<1>"}})
    for at in range(0, 7200, 15):
        writer.sample(
            at,
            {
                "rss_bytes/scheduler-1": 1e8, "fds/nats": 20.0 + at / 100, "cpu_seconds/etcd": at * 0.1,
                "cpu_seconds/soak": at * 0.01, "load/deeds": at * 1.25, "load/accepted": at * 1.0, "objects/objects": 7.0,
            },
        )  # fmt: skip
    writer.end({"checks": [{"source": "etcd", "claim": "all < ended", "lookedAt": 2, "broken": []}], "labs": 1234})
    return path


def test_labels_at_the_lines_ends_do_not_cover_each_other() -> None:
    found = _apart({"a": 100.0, "b": 101.0, "c": 102.0, "low": 182.0, "lower": 182.0, "lowest": 182.0})
    heights = sorted(found.values())
    assert all(after - before >= 12 for before, after in pairwise(heights))
    assert heights[-1] <= 184
    assert found["a"] == 100.0


@pytest.mark.parametrize(
    ("value", "top"), [(0.0, 1.0), (0.9, 1.0), (1.2, 1.5), (37.0, 40.0), (61.0, 80.0), (100.0, 100.0)]
)
def test_scales_end_at_a_round_number(value: float, top: float) -> None:
    assert _round_up(value) == pytest.approx(top)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="anything"):
        grid([Panel("a", "b")], 60, 10)
    with pytest.raises(ValueError, match="anything"):
        figure(Recorded({"seconds": 60.0}, [Sample(0.0, {})]))


def test_the_figure_is_small_and_well_formed(record: Path) -> None:
    svg = figure(read(record))
    ET.fromstring(svg)
    assert len(svg) < 100_000
    assert {"Memory of services", "Open files", "Processor"} <= set(re.findall(r'class="t"[^>]*>([^<]*)<', svg))


def test_the_report_holds_everything_and_loads_nothing(record: Path) -> None:
    recorded = read(record)
    page = render(recorded, judge(recorded))
    assert "A=&lt;1&gt;" in page
    assert "all &lt; ended" in page
    assert "fds/nats" in page
    assert "1,234" in page
    assert page.index("<code>fds/nats") < page.index("<code>cpu_seconds/etcd"), "what is only shown comes last"
    assert not re.search(r"(src|href)=|<script|@import|url\(", page)


def test_a_record_is_judged_and_drawn_again(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, picture = tmp_path / "out" / "r.html", tmp_path / "f.svg"
    assert show(record, report, picture) == 1
    said = capsys.readouterr().out
    assert "BROKEN fds/nats grew by" in said
    assert said.splitlines()[-1].startswith("soak: FAILED hours=2.00")
    assert "**grew**" in said
    assert report.exists()
    assert picture.exists()
    record.write_text("nonsense")
    assert show(record, report, None) == 2


def test_the_table_has_a_line_for_each_limit_that_is_judged(record: Path) -> None:
    lines = markdown(judge(read(record))).splitlines()
    assert any(line.startswith("| open files of a process | `fds/nats` |") for line in lines)
    assert not any("cpu_seconds" in line for line in lines)
