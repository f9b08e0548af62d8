"""A month of classes on a cloud whose machines boot late or not at all: how many labs are Running before their slot?

The scheduler, the worker-controller and the artifact-service run on twins of their servers and on a manual clock, so a month
takes a minute. Boot times are drawn from a seed: 93 of 100 boots take half to all of the template's time, 5 take up to
half as long again, 2 fail on the way. Each lab that was late is explained by the boots of its worker before its slot. The
pool's preparation and reserve are those that a pool has by default, where they are not given.

    .venv/bin/python bench/bench_punctuality.py [--days 28] [--seeds 1 2 3] [--preparation 5] [--reserve 20] [--failing 2]
"""

import argparse
import asyncio
import importlib.util
import random
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from report import options as common
from report import report

from lablet_common.clock import ManualClock
from lablet_common.resources.kinds import INSTANCE, RESERVATION
from lablet_common.resources.worker import PoolSpec
from lablet_workers.providers.memory import MemoryProvider
from lablet_workers.providers.port import LaunchOrder, MachineInfo, MachineState

ROOT = Path(__file__).parents[1]
BOOT_MINUTES = 20
EXCEEDING, FAILING = 0.05, 0.02
"""Shares of the boots."""
MONDAY = datetime(2027, 3, 1, 6, 0, tzinfo=UTC)
CLASSES = ((9, 0, 150, 12), (13, 0, 100, 12), (15, 0, 105, 10), (17, 30, 90, 6), (19, 0, 60, 3))
"""Hour, minute, length and seats of a day's classes: some follow each other closely, others after more than the grace."""


@dataclass(frozen=True)
class Boot:
    """One power-on of one worker."""

    worker: str
    at: datetime
    minutes: float
    fails: bool

    def __str__(self) -> str:
        what = "failed after" if self.fails else "took"
        return f"boot at {self.at:%H:%M} {what} {self.minutes:.0f} of {BOOT_MINUTES} minutes"


class DrawnCloud(MemoryProvider):
    """Machines whose boots are drawn."""

    def __init__(self, clock: ManualClock, seed: int, failing: float = FAILING) -> None:
        super().__init__(instant=False)
        self.clock, self.random, self.failing = clock, random.Random(seed), failing
        self.boots: list[Boot] = []
        self.powered = timedelta(0)
        """For how long machines were on."""
        self._on_since: dict[str, datetime] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        made = len(self.launches)
        info = await super().launch(order)
        if len(self.launches) > made:
            self._boots(info)
        return info

    async def start(self, machine_id: str) -> MachineInfo:
        stood = self.machines[machine_id].state is MachineState.STOPPED
        info = await super().start(machine_id)
        if stood:
            self._boots(info)
        return info

    async def stop(self, machine_id: str) -> MachineInfo:
        await super().stop(machine_id)
        self._off(machine_id)
        self.become(machine_id, MachineState.STOPPED)
        return self.machines[machine_id]

    async def terminate(self, machine_id: str) -> None:
        await super().terminate(machine_id)
        self._off(machine_id)
        self.become(machine_id, MachineState.TERMINATED)

    def _off(self, machine_id: str) -> None:
        since = self._on_since.pop(machine_id, None)
        if since is not None:
            self.powered += self.clock.now() - since

    def _boots(self, machine: MachineInfo) -> None:
        self._on_since[machine.id] = self.clock.now()
        lot = self.random.random()
        fails = lot < self.failing
        share = (0.2, 1.0) if fails else (1.0, 1.5) if lot < self.failing + EXCEEDING else (0.5, 1.0)
        boot = Boot(machine.name, self.clock.now(), BOOT_MINUTES * self.random.uniform(*share), fails)
        self.boots.append(boot)
        task = asyncio.create_task(self._come_up(machine.id, boot))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _come_up(self, machine: str, boot: Boot) -> None:
        await self.clock.sleep(timedelta(minutes=boot.minutes))
        if self.machines[machine].state is MachineState.PENDING:
            self.become(machine, *((MachineState.STOPPED, "boot failed") if boot.fails else (MachineState.RUNNING,)))

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)


@dataclass
class Month:
    """What came of it."""

    labs: int = 0
    late: list[str] = field(default_factory=list)
    """Each lab that was not Running when its slot began, explained."""
    boots: list[Boot] = field(default_factory=list)
    worker_hours: float = 0.0

    @property
    def on_time(self) -> float:
        return 1 - len(self.late) / self.labs


def twins() -> Any:
    """The mesh of twins that the tests have."""
    path = ROOT / "tests" / "twins" / "conftest.py"
    spec = importlib.util.spec_from_file_location("lablet_twins", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lablet_twins"] = module
    spec.loader.exec_module(module)
    return module


async def live(days: int, seed: int, *, failing: float = FAILING, **pool: int) -> Month:
    """So many days from a Monday on; nothing happens at weekends. `pool` wins over what pools have by default."""
    made = twins()
    clock = ManualClock(MONDAY)
    cloud = DrawnCloud(clock, seed, failing)
    settings = {
        "controller_probe_seconds": 600.0,
        "controller_watch_seconds": 7200.0,
        "controller_poll_minutes": 0.5,
        "controller_sweep_minutes": 600.0,
        "controller_license_minutes": 600.0,
    }
    template = {
        "boot_minutes": BOOT_MINUTES,
        "max_nodes": 60,
        "capacity": {"cpu_cores": 64, "memory_gb": 256, "storage_gb": 2000},
    }
    usual = PoolSpec(template="sim", max=6)
    defaults = usual.model_dump(include={"max", "preparation_minutes", "boot_reserve_minutes"})
    month = Month(boots=cloud.boots)
    # how long planning takes on this machine must not decide what the month sees
    patient = patch("lablet_workers.fleet._SLOW_SECONDS", float("inf"))
    running = made.running(cloud, clock, template=template, pool=defaults | pool, settings=settings)
    try:
        with patient, patch("lablet_workers.labs.closed_ports", made.no_closed_ports):
            async with running as mesh:
                await mesh.publish("ospf-basics")
                for day in range(days):
                    if day % 7 >= 5:
                        continue
                    await _one_day(mesh, clock, MONDAY + timedelta(days=day), month)
                    print(f"day {day + 1}: {month.labs} labs, {len(month.late)} late", file=sys.stderr, flush=True)
    finally:
        await cloud.close()
        month.worker_hours = cloud.powered / timedelta(hours=1)
    return month


async def _one_day(mesh: Any, clock: ManualClock, dawn: datetime, month: Month) -> None:
    await clock.set(dawn)
    await mesh.settle()
    names = []
    origin = sys.modules["lablet_twins"].MORNING
    for hour, minute, length, seats in CLASSES:
        start = dawn.replace(hour=hour, minute=minute)
        name = f"rsv-{start:%m%d-%H%M}"
        await mesh.reserve(name, at=start - origin, minutes=length, seats=seats)
        names.append((name, start))
    for name, start in sorted(names, key=lambda one: one[1]):
        while clock.now() < start:
            await clock.advance(min(timedelta(minutes=5), start - clock.now()))
            await mesh.settle()
        await _judge(mesh, name, start, month)
    while clock.now() < dawn.replace(hour=23):
        await clock.advance(timedelta(minutes=15))
        await mesh.settle()


async def _judge(mesh: Any, name: str, start: datetime, month: Month) -> None:
    booking = await mesh.repository(RESERVATION).get(name)
    placement = booking.status.placement
    assert len(placement) == booking.spec.seats, f"{name} is {booking.phase}: {booking.status.reason}"
    for seat in placement:
        month.labs += 1
        lab = await mesh.repository(INSTANCE).get(seat.instance)
        if lab is None or lab.phase != "Running":
            month.late.append(_explained(seat, lab, start, month))


def _explained(seat: Any, lab: Any, start: datetime, month: Month) -> str:
    """By the boots of its worker; where those were as they should be, by those of the others, from which it may have come."""
    phase = f"{lab.phase} ({lab.status.reason})" if lab is not None else "not there"
    boots = [boot for boot in month.boots if start - timedelta(hours=2) < boot.at <= start]
    own = [boot for boot in boots if boot.worker == seat.worker]
    unusual = [boot for boot in boots if boot.fails or boot.minutes > BOOT_MINUTES]
    why = [str(boot) for boot in unusual if boot.worker == seat.worker]
    if not why:
        why = [*map(str, own), *(f"{boot.worker}: {boot}" for boot in unusual)]
    told = "; ".join(why) or "its worker was not powered on"
    return f"{start:%a %d %H:%M} {seat.instance} on {seat.worker}: {phase}: {told}"


def main() -> None:
    parser = common(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--preparation", type=int, help="minutes; by default what pools have by default")
    parser.add_argument("--reserve", type=int, help="minutes; by default what pools have by default")
    parser.add_argument("--failing", type=float, default=100 * FAILING, help="boots that fail, in percent")
    given = parser.parse_args()
    if given.json is not None and len(given.seeds) > 1:
        parser.error("--json: a record is of one seed; give --seeds one number")
    pool = {"preparation_minutes": given.preparation, "boot_reserve_minutes": given.reserve}
    pool = {name: minutes for name, minutes in pool.items() if minutes is not None}
    for seed in given.seeds:
        began = time.process_time()
        month = asyncio.run(live(given.days, seed, failing=given.failing / 100, **pool))
        for line in month.late:
            print(line)
        exceeded = sum(boot.minutes > BOOT_MINUTES for boot in month.boots)
        failed = sum(boot.fails for boot in month.boots)
        told: dict[str, object] = {
            "seed": seed,
            "days": given.days,
            "labs": month.labs,
            "boots": len(month.boots),
            "exceeded": exceeded,
            "failed": failed,
            "late": len(month.late),
            "on_time_pct": f"{100 * month.on_time:.2f}",
            "worker_hours": f"{month.worker_hours:.0f}",
            "cpu_seconds": f"{time.process_time() - began:.0f}",
        }
        report("punctuality", told, given.json)


if __name__ == "__main__":
    main()
