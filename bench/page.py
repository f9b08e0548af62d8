"""Renders docs/performance.md and its pictures from the records of benchmarks and the prose beside them.

    .venv/bin/python bench/page.py             # from bench/records
    .venv/bin/python bench/page.py --adopt     # takes out/bench over into bench/records first (make bench)

The page is written by nobody: what a person has to say about a benchmark (what is measured, where the time goes, what was
tried) stands in `prose/NAME.md`, where `<!-- figures -->` stands for the record's line with date, machine and targets, and
`<!-- plot -->` for its picture. Targets and floors are in `floors.json`; a floor is what a run on this machine must not
fall below without a reason (`better: lower`: rise above). What does is printed; nothing fails by it, since a busy machine
is reason enough. A brief record never takes the place of a full one. Rendering is a function of these files.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bounds import Bound, read_floors
from plot import bars, lines
from records import Record, read_all, write

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PAGE = (
    "store", "bus", "engine", "quality", "mesh", "start", "api", "console", "peers", "scale", "controller", "artifacts",
    "run", "punctuality", "tracing",
)  # fmt: skip
"""The page's sections in their order; each has its prose, some have no record."""
FIGURES, PLOT = "<!-- figures -->", "<!-- plot -->"
HEAD = """\
<!-- Rendered by bench/page.py (make bench) from bench/records and bench/prose: change those. -->
# Performance

Every figure comes from a command in this repository, and each benchmark ends with one line `bench NAME: key=value …`. `make
bench` runs all in their short form and renders this page; `make bench-NAME` runs one in full. Each stands here with its date,
its command and the machine's load before it began: with a load above the number of cores, what is measured by the clock
says little, what is measured in CPU time and in ratios of one run more. Absolute times drift; compare figures of one run.
"""


# -- rendering: pure -----------------------------------------------------------------------------------------------------


def render(
    records: Mapping[str, Record], prose: Mapping[str, str], floors: Mapping[str, Sequence[Bound]], plots: Sequence[str]
) -> str:
    """The page. `plots` are the names of those that have a picture. Raises `KeyError` for a section without prose."""
    sections = [HEAD]
    for name in PAGE:
        text = prose[name].strip() + "\n"
        record = records.get(name)
        shown = figures(record, floors.get(name, ())) if record else "Not recorded yet."
        picture = f"![{name}](performance/{name}.svg)" if name in plots else ""
        sections.append(text.replace(FIGURES, shown).replace(PLOT, picture))
    return "\n".join(sections)


def figures(record: Record, bounds: Sequence[Bound]) -> str:
    """The record's line, where it comes from, and what it was to be."""
    load = "load not known" if record.load is None else f"load {record.load:g} before"
    when = f"{record.began[:10]} {record.began[11:16]} UTC" if "T" in record.began else record.began
    about = f"{when} · `{record.command}` · {record.machine} · {load}"
    about += " · short form" if record.brief else ""
    rows = [row for bound in bounds if (row := row_of(bound, record)) is not None]
    table = ["", "| figure | target | this run | |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join(["```", record.line(), "```", "", about, *table])


def row_of(bound: Bound, record: Record) -> str | None:
    value = bound.value(record)
    if value is None or bound.target is None:
        return None
    return f"| `{bound.key}` | {bound.wish} | {value:.4g} | {bound.verdict(value)} |"


def regressions(records: Mapping[str, Record], floors: Mapping[str, Sequence[Bound]]) -> list[str]:
    """A sentence for each figure that is worse than its floor, or is not there any more."""
    found = []
    for name, bounds in floors.items():
        record = records.get(name)
        if record is None:
            continue
        for bound in bounds:
            value = bound.value(record)
            if bound.floor is None or (value is not None and bound.meets(value, bound.floor)):
                continue
            if value is None:
                found.append(f"{name}: {bound.key} is not told any more")
            else:
                side = "above" if bound.lower else "below"
                found.append(f"{name}: {bound.key} is {value:.4g}, {side} its floor of {bound.floor:g}")
    return found


# -- pictures ------------------------------------------------------------------------------------------------------------


def store_plot(record: Record) -> str:
    names = {"get32": "get, 32 at once", "put32": "put, 32 at once", "txn100": "transactions of 100"}
    rows = [
        (f"{label}: {who}", record.number(f"{side}_{key}") or 0.0)
        for key, label in names.items()
        for side, who in (("ours", "ours"), ("bare", "bare stubs"), ("etcd3py", "etcd3-py"))
    ]
    return bars("etcd operations a second", rows, logarithmic=True)


def peers_plot(record: Record) -> str:
    names = {
        "blazar": "Blazar",
        "slurm_chooses": "Slurm chooses",
        "slurm_named": "Slurm, node named",
        "post": "Lablet, POSTs in turn",
        "batch": "Lablet, batches",
    }
    rows = [
        (f"{label}, {hosts} hosts", value)
        for hosts in (100, 1000)
        for side, label in names.items()
        if (value := record.number(f"{side}_{hosts}_per_second")) is not None
    ]
    return bars("reservations a second", rows, logarithmic=True)


def scale_plot(record: Record) -> str:
    sizes = sorted(
        int(key.split("_")[1]) for key in record.figures if key.startswith("labs_") and key.endswith("_etcd_mb")
    )
    series = {
        name: [(float(size), record.number(f"labs_{size}_{key}") or 0.0) for size in sizes]
        for name, key in (("memory", "memory_mb"), ("etcd", "etcd_mb"))
    }
    return lines("megabytes of the worker-controller and of etcd", "labs that run", series)


def engine_plot(record: Record) -> str:
    rows = [("engine", "placements_per_second"), ("plain Python", "baseline_per_second")]
    return bars("placed seats a second of CPU time", [(label, record.number(key) or 0.0) for label, key in rows])


def quality_plot(record: Record) -> str:
    rows = [
        ("a term: after replan", "term_replan_over_bound_pct"),
        ("a term: placed online", "term_online_over_bound_pct"),
        ("KTH's jobs: after replan", "kth_replan_over_bound_pct"),
        ("KTH's jobs: placed online", "kth_online_over_bound_pct"),
    ]
    return bars("worker-hours over the lower bound, %", [(label, record.number(key) or 0.0) for label, key in rows])


PLOTS: Mapping[str, Callable[[Record], str]] = {
    "store": store_plot,
    "engine": engine_plot,
    "quality": quality_plot,
    "peers": peers_plot,
    "scale": scale_plot,
}


# -- files ---------------------------------------------------------------------------------------------------------------


def adopt(fresh: Mapping[str, Record], known: Mapping[str, Record], folder: Path) -> None:
    """Takes new records over, a brief one only where there is no full one."""
    for name, record in fresh.items():
        if not record.brief or name not in known or known[name].brief:
            write(record, folder)


def page_of(folder: Path) -> tuple[str, dict[str, str]]:
    """The page and the pictures that the files of a bench folder give."""
    records = read_all(folder / "records")
    prose = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "prose").glob("*.md")}
    pictures = {name: draw(records[name]) for name, draw in PLOTS.items() if name in records}
    return render(records, prose, read_floors(folder / "floors.json"), sorted(pictures)), pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adopt", action="store_true", help="first takes the records of out/bench over")
    options = parser.parse_args()
    fresh = read_all(HERE.parent / "out" / "bench")
    if options.adopt:
        adopt(fresh, read_all(HERE / "records"), HERE / "records")
    page, pictures = page_of(HERE)
    (DOCS / "performance.md").write_text(page, encoding="utf-8")
    (DOCS / "performance").mkdir(exist_ok=True)
    for name, picture in pictures.items():
        (DOCS / "performance" / f"{name}.svg").write_text(picture, encoding="utf-8")
    told = regressions(fresh if options.adopt else read_all(HERE / "records"), read_floors(HERE / "floors.json"))
    print("\n".join(told) if told else "nothing is worse than its floor")


if __name__ == "__main__":
    main()
