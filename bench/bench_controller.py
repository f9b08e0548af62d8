"""200 labs come up on 20 workers at the same time: when does each step begin after it may, and what does it take?

The controller is the real one, on a twin of etcd and on runtimes that answer after a real network's time. All slots begin
at the same instant. A step may begin when its cause is committed. Measured is the real time from there to the call that the
step makes, over the import and the start of every lab, and the memory of the process.

    .venv/bin/python bench/bench_controller.py
"""

import argparse
import asyncio
import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from report import options as common
from report import report

from lablet_common.clock import ClockOrigin, ScaledClock
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE
from lablet_workers.runtimes.memory import MemoryRuntime, MemoryRuntimes

WORKERS, INSTANCES = 20, 200
ANSWER_SECONDS = 0.005
SPEED = 60.0
"""A boot's eight minutes take as many seconds."""


class Slow(MemoryRuntime):
    """Answers as a controller on the network does, and notes when it is called."""

    calls: list[tuple[str, str, float]]
    """(what, lab title, when), of all runtimes."""

    async def import_lab(self, title: str, topology: bytes) -> str:
        self.calls.append(("import", title, time.monotonic()))
        await asyncio.sleep(ANSWER_SECONDS)
        return await super().import_lab(title, topology)

    async def start(self, lab: str) -> None:
        self.calls.append(("start", self.lab_by_id[lab].title, time.monotonic()))
        await asyncio.sleep(ANSWER_SECONDS)
        await super().start(lab)


class SlowRuntimes(MemoryRuntimes):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str, float]] = []

    def open(self, url: str, password: str) -> MemoryRuntime:
        if url not in self.by_url:
            made = Slow()
            made.calls = self.calls
            self.by_url[url] = made
        return super().open(url, password)


def harness() -> Any:
    """One pool with its controller, as the tests have it."""
    path = Path(__file__).parents[1] / "services" / "worker-controller" / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("lablet_fleet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lablet_fleet"] = module
    spec.loader.exec_module(module)
    return module


async def wait_for(what: str, met: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


async def no_closed_ports(host: str, ports: Any, timeout: float) -> dict[str, str]:  # noqa: ARG001 - its signature
    return {}


def every_port_answers() -> None:
    """From now on, in this process."""
    patch("lablet_workers.labs.closed_ports", no_closed_ports).start()


async def measure() -> dict[str, float]:
    made = harness()
    every_port_answers()
    now = made.datetime.now(made.UTC).replace(microsecond=0)
    fleet = made.Fleet(clock=ScaledClock(ClockOrigin(real=now, lab=made.MORNING, speed=SPEED)), runtimes=SlowRuntimes())
    fleet.settings = {"controller_probe_seconds": 2.0, "resync_seconds": 30.0}
    await fleet.seed(max=WORKERS, preparation_minutes=5)
    await fleet.define()
    moved: dict[tuple[str, str], float] = {}
    """(instance, phase) → when its commit was seen."""

    def note(old: Instance | None, new: Instance | None, _: int) -> None:
        if new is not None and (old is None or old.phase != new.phase):
            moved[new.id, str(new.phase)] = time.monotonic()

    await fleet.start()
    fleet.controller.estate.caches[INSTANCE].subscribe(note)
    fleet.settle = _nothing  # time runs by itself here
    per = 50
    # shifted from batch to batch: seats of the same number have the same ports and must not meet on a worker
    names = tuple(f"default-{1 + (n + n // per) % WORKERS:03d}" for n in range(INSTANCES))
    start = round((fleet.clock.now() - made.MORNING) / timedelta(minutes=1)) + 16
    for batch in range(0, INSTANCES, per):
        await fleet.book(f"b{batch}", start, start + 240, workers=names[batch : batch + per])
    ids = [f"ins-b{n - n % per}-{1 + n % per}" for n in range(INSTANCES)]
    await wait_for("all labs run", lambda: all((name, "Running") in moved for name in ids))
    imported = {title: at for what, title, at in fleet.runtimes.calls if what == "import"}
    started = {title: at for what, title, at in fleet.runtimes.calls if what == "start"}
    delays = [imported[name] - moved[name, "Instantiating"] for name in ids]
    delays += [started[name] - imported[name] - ANSWER_SECONDS for name in ids]
    delays.sort()
    await fleet.close()
    return {
        "p50": statistics.median(delays) * 1000,
        "p99": delays[int(len(delays) * 0.99)] * 1000,
        "spread": (max(moved[n, "Running"] for n in ids) - min(moved[n, "Instantiating"] for n in ids)),
    }


async def _nothing() -> None:
    return None


def main() -> None:
    parser = common(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    options = parser.parse_args()
    figures = asyncio.run(measure())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told: dict[str, object] = {
        "instances": INSTANCES,
        "workers": WORKERS,
        "step_delay_p50_ms": f"{figures['p50']:.0f}",
        "step_delay_p99_ms": f"{figures['p99']:.0f}",
        "all_running_seconds": f"{figures['spread']:.1f}",
        "memory_mb": f"{memory:.0f}",
    }
    report("controller", told, options.json)


if __name__ == "__main__":
    main()
