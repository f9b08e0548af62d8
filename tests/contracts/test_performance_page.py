"""The page of measured figures is what the benchmarks' records and the prose beside them give, and nothing else."""

import importlib
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
IN_CONTRACTS = ("engine", "quality", "store", "bus", "mesh", "api", "peers")
NAMES = ("records", "bounds", "plot", "page", "run", "report")
WISHED = {
    "store": (
        "ours_get/bare_get",
        "ours_put32/bare_put32",
        "ours_txn100/bare_txn100",
        "bare_list_ms/ours_list_ms",
        "ours_watch/bare_watch",
    ),
    "bus": ("ratio", "bridge_changes_per_s", "bridge_delay_p99_ms"),
    "engine": ("placements_per_second", "p99_ms", "explain_p99_ms", "rebuild_seconds", "memory_mb"),
    "quality": ("online_gap_pct", "mean_gap_pct", "worst_gap_pct", "large_mean_gap_pct"),
    "mesh": (
        "decisions_per_second",
        "decision_p99_ms",
        "failover_kill_seconds",
        "failover_handover_seconds",
        *(
            f"rss_mb_{name}"
            for name in ("api_gateway", "scheduler", "worker_controller", "artifact_service", "etcd", "nats")
        ),
    ),
    "api": (
        "reads_per_second",
        "lists_per_second",
        "posts_per_second",
        "batch_intents_per_second",
        "sse_missed",
        "sse_p99_ms",
    ),
    "peers": ("post_over_blazar_100", "post_over_slurm_chooses_100", "post_over_slurm_named_100"),
    "controller": ("step_delay_p99_ms", "memory_mb"),
    "artifacts": ("render_300_ms",),
    "run": ("accepted_per_s", "queued_per_s"),
    "console": ("open_ms", "update_ms"),
    "punctuality": ("on_time_pct",),
    "tracing": ("tenth_cpu_cost_pct",),
}
"""Benchmark → figures for which a number was wished."""


class Modules(NamedTuple):
    records: Any
    bounds: Any
    plot: Any
    page: Any
    run: Any
    report: Any


@pytest.fixture(scope="module")
def bench() -> Iterator[Modules]:
    """The benchmarks' own modules, which are scripts in one folder and no package."""
    kept: dict[str, ModuleType | None] = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(BENCH))
    try:
        yield Modules(*(importlib.import_module(name) for name in NAMES))
    finally:
        sys.path.remove(str(BENCH))
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def record(bench: Modules, name: str = "store", brief: bool = False, **figures: str) -> Any:
    machine = bench.records.Machine("a processor", 2, 24, "Debian 12", "3.11.7")
    return bench.records.Record(
        name, figures, machine, "2027-03-01T09:00:00Z", 12.5, 0.4, f"bench/bench_{name}.py", brief
    )


def bounds(bench: Modules, tmp_path: Path, text: str) -> Any:
    path = tmp_path / "floors.json"
    path.write_text(text, encoding="utf-8")
    return bench.page.read_floors(path)


def prose(bench: Modules, **more: str) -> dict[str, str]:
    return {name: f"## {name}" for name in bench.page.PAGE} | more


def test_the_page_and_its_pictures_are_what_records_and_prose_give(bench: Modules) -> None:
    page, pictures = bench.page.page_of(BENCH)
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page, "run: make performance"
    for name, picture in pictures.items():
        assert (ROOT / "docs" / "performance" / f"{name}.svg").read_text(encoding="utf-8") == picture


def test_figures_stand_where_the_prose_wants_them_with_date_machine_and_targets(bench: Modules, tmp_path: Path) -> None:
    text = "## The client\n\n<!-- figures -->\n\nWhere the time goes.\n\n<!-- plot -->"
    floors = bounds(
        bench, tmp_path, '{"store": {"get/bare": {"target": 0.85}, "ms": {"target": 5, "better": "lower"}}}'
    )
    made = record(bench, get="90", bare="100", ms="7.5")
    page = bench.page.render({"store": made}, prose(bench, store=text), floors, ["store"])
    section = page.split("## The client")[1].split("## ")[0]
    assert "bench store: get=90 bare=100 ms=7.5" in section
    assert "2027-03-01 09:00 UTC · `bench/bench_store.py` · 2 cores (a processor), 24 GB, Debian 12" in section
    assert "load 0.4 before" in section
    assert "| `get/bare` | ≥ 0.85 | 0.9 | met |" in section
    assert "| `ms` | ≤ 5 | 7.5 | not met |" in section
    assert section.index("Where the time goes.") < section.index("![store](performance/store.svg)")


def test_a_benchmark_without_a_record_says_so(bench: Modules) -> None:
    page = bench.page.render({}, prose(bench, mesh="## Mesh\n\n<!-- figures -->"), {}, [])
    assert "## Mesh\n\nNot recorded yet.\n" in page


def test_a_section_without_its_prose_is_missed(bench: Modules) -> None:
    texts = prose(bench)
    del texts["mesh"]
    with pytest.raises(KeyError, match="mesh"):
        bench.page.render({}, texts, {}, [])


def test_what_is_worse_than_its_floor_or_not_told_any_more_is_named(bench: Modules, tmp_path: Path) -> None:
    floors = bounds(
        bench,
        tmp_path,
        '{"store": {"get": {"floor": 100}, "ms": {"floor": 5, "better": "lower"}, '
        '"a/b": {"floor": 0.5}, "gone": {"floor": 1}}}',
    )
    worse = record(bench, get="99", ms="5.1", a="1", b="4")
    assert bench.page.regressions({"store": worse}, floors) == [
        "store: get is 99, below its floor of 100",
        "store: ms is 5.1, above its floor of 5",
        "store: a/b is 0.25, below its floor of 0.5",
        "store: gone is not told any more",
    ]
    assert bench.page.regressions({"store": record(bench, get="100", ms="5", a="2", b="4", gone="1")}, floors) == []


def test_a_brief_record_takes_the_place_of_a_brief_one_only(bench: Modules, tmp_path: Path) -> None:
    full, brief = record(bench, get="1"), record(bench, get="2", brief=True)
    cases = [(full, brief, None), (brief, replace(brief, seconds=1.0), "2"), (None, brief, "2"), (full, full, "1")]
    for number, (known, fresh, written) in enumerate(cases):
        folder = tmp_path / str(number)
        bench.page.adopt({"store": fresh}, {"store": known} if known else {}, folder)
        found = bench.records.read_all(folder).get("store")
        assert (found.figures["get"] if found else None) == written


def test_a_record_is_read_as_it_was_written(bench: Modules, tmp_path: Path) -> None:
    made = record(bench, get="1.50", worker="failed:TypeError")
    bench.records.write(made, tmp_path)
    read = bench.records.read_all(tmp_path)["store"]
    assert read == made
    assert read.line() == "bench store: get=1.50 worker=failed:TypeError"
    assert read.number("worker") is None


def test_only_a_benchmarks_own_last_line_is_a_result(bench: Modules) -> None:
    assert bench.records.parse_line("a table\nbench bus: ratio=0.60 p99_ms=1.8\n") == (
        "bus",
        {"ratio": "0.60", "p99_ms": "1.8"},
    )
    for output in ("", "bench bus: ratio=0.60\nand more", "bench bus:", "bus: ratio=1"):
        with pytest.raises(bench.records.NoResult):
            bench.records.parse_line(output)


def test_every_benchmark_of_the_contracts_can_be_run_and_has_a_section(bench: Modules) -> None:
    scripts = {path.stem.removeprefix("bench_") for path in BENCH.glob("bench_*.py")}
    assert scripts == set(bench.run.BRIEF)
    assert set(IN_CONTRACTS) <= scripts <= set(bench.page.PAGE)
    assert set(bench.page.read_floors(BENCH / "floors.json")) <= scripts


def test_every_benchmark_takes_a_file_for_its_record_and_reports_in_one_way() -> None:
    for path in BENCH.glob("bench_*.py"):
        source = path.read_text(encoding="utf-8")
        assert "from report import" in source, path.name
        assert re.search(r"\b(common|options)\((parser|argparse\.)", source), f"{path.name}: takes no --json"
        assert re.search(r"\breport\(\s*\"", source), f"{path.name}: does not report"


def test_every_number_that_was_wished_has_its_row(bench: Modules) -> None:
    rows = {name: {bound.key for bound in of} for name, of in bench.page.read_floors(BENCH / "floors.json").items()}
    assert set(WISHED) <= set(rows)
    for name, keys in WISHED.items():
        assert set(keys) <= rows[name], name
    recorded = bench.records.read_all(BENCH / "records")
    for name, of in bench.page.read_floors(BENCH / "floors.json").items():
        for bound in of:
            assert bound.value(recorded[name]) is not None, f"{name}: {bound.key} is not told by its record"


def test_short_ones_share_a_quarter_of_an_hour(bench: Modules) -> None:
    assert bench.run.limit(0.0) == bench.run.MOST_SECONDS
    assert bench.run.limit(bench.run.ALL_SECONDS - 10) == 10
    with pytest.raises(bench.records.NoResult, match="no time was left"):
        bench.run.limit(bench.run.ALL_SECONDS)


def test_a_run_shows_each_figure_beside_its_target(bench: Modules, tmp_path: Path) -> None:
    floors = bounds(
        bench,
        tmp_path,
        '{"store": {"get": {"target": 100}, "ms": {"target": 5, "better": "lower"}, "a/b": {"target": 1}}}',
    )
    shown = bench.report.table(record(bench, get="99", ms="4", a="1", b="4"), floors["store"]).splitlines()
    assert [" ".join(row.split()) for row in shown] == [
        "get 99 ≥ 100 not met",
        "ms 4 ≤ 5 met",
        "a 1",
        "b 4",
        "a/b 0.25 ≥ 1 not met",
    ]


def test_what_stands_after_the_dashes_is_the_benchmarks_own(bench: Modules) -> None:
    assert bench.run.split(["engine", "--", "--curve"]) == (["engine"], ["--curve"])
    assert bench.run.split(["--brief"]) == (["--brief"], [])


def test_pictures_are_well_formed_and_a_longer_bar_is_more(bench: Modules) -> None:
    drawn = ET.fromstring(bench.plot.bars("a & b", [("x < y", 10.0), ("z", 40.0), ("none", 0.0)]))
    widths = [float(bar.attrib["width"]) for bar in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == [82.5, 330.0, 0.0]
    line = ET.fromstring(bench.plot.lines("memory", "labs", {"a": [(0, 0), (100, 50)], "b": [(100, 25)]}))
    ends = [
        (float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in line.iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert ends == [(60.0, 264.0), (560.0, 44.0), (560.0, 154.0)]


def test_a_picture_of_nothing_is_an_error(bench: Modules) -> None:
    for draw in (lambda: bench.plot.bars("a", [("b", 0.0)]), lambda: bench.plot.lines("a", "b", {"c": [(0, 0)]})):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw()
