"""Runs benchmarks one after the other, shows what they say and keeps a record of each in out/bench/NAME.json.

    .venv/bin/python bench/run.py store                    # make bench-store
    .venv/bin/python bench/run.py engine -- --curve        # with options of its own
    .venv/bin/python bench/run.py --brief                  # all, each at the length that fits into 15 minutes together

A benchmark that fails or takes too long is named at the end (status 1) and leaves no record; the others run all the same.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from records import NoResult, Record, now, parse_line, this_machine, write

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "bench"
BRIEF: dict[str, tuple[str, ...]] = {
    "store": (),
    "bus": (),
    "engine": ("--seconds", "4"),
    "quality": ("--small", "5", "--large", "1"),
    "mesh": ("--reservations", "3000", "--seconds", "5"),
    "api": ("--seconds", "4", "--streams", "200"),
    "peers": ("--brief",),
    "scale": ("--brief",),
    "controller": (),
    "artifacts": (),
    "run": ("--jobs", "400", "--seconds", "8"),
    "console": (),
    "punctuality": ("--days", "2"),
    "tracing": ("--rounds", "3", "--each", "100"),
}
"""In the order in which they run: what each takes so that all of them are through in a quarter of an hour."""
MOST_SECONDS = 240.0
"""For a brief one; a full one may take what it needs."""
ALL_SECONDS = 900.0
"""For all brief ones together: one that has no time left is named as such and leaves no record."""


def run(name: str, options: Sequence[str], limit: float | None) -> Record:
    """With options of its own it is a brief one. Raises `NoResult` when it fails, takes longer than the limit (seconds) or
    does not end with its line."""
    script = HERE / f"bench_{name}.py"
    command = [sys.executable, str(script), *options]
    machine, load, at, began = this_machine(), os.getloadavg()[0], now(), time.monotonic()
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        timer = threading.Timer(limit, process.terminate) if limit else None
        if timer is not None:
            timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
        status = process.wait()
        if timer is not None:
            timer.cancel()
    seconds = time.monotonic() - began
    if status:
        raise NoResult(f"ended with status {status} after {seconds:.0f} s")
    told, figures = parse_line("".join(said))
    if told != name:
        raise NoResult(f"calls itself {told}")
    shown = " ".join([f"bench/bench_{name}.py", *options])
    return Record(name, figures, machine, at, round(seconds, 1), round(load, 1), shown, bool(options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BRIEF)}; default: all")
    parser.add_argument("--brief", action="store_true", help="the short form of each")
    ours, theirs = split(sys.argv[1:])
    options = parser.parse_args(ours)
    if unknown := [name for name in options.names if name not in BRIEF]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BRIEF)}")
    began, failed = time.monotonic(), []
    for name in options.names or BRIEF:
        print(f"--- {name}", flush=True)
        try:
            record = run(
                name,
                theirs or (BRIEF[name] if options.brief else ()),
                limit(time.monotonic() - began) if options.brief else None,
            )
        except NoResult as error:
            failed.append(f"{name}: {error}")
            print(f"{name} left no record: {error}", flush=True)
            continue
        write(record, OUT)
    if len(options.names) != 1:
        done = len(options.names or BRIEF) - len(failed)
        print(f"--- {done} benchmarks in {time.monotonic() - began:.0f} s; records in {OUT.relative_to(HERE.parent)}")
    if failed:
        raise SystemExit("\n".join(failed))


def limit(spent: float) -> float:
    """Seconds that a brief one may take after so many that all have taken together. Raises `NoResult` when none are left."""
    if spent >= ALL_SECONDS:
        raise NoResult(f"no time was left: all together may take {ALL_SECONDS:.0f} s")
    return min(MOST_SECONDS, ALL_SECONDS - spent)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what stands after `--` for the benchmark."""
    words = list(arguments)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


if __name__ == "__main__":
    main()
