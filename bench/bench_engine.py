"""How fast the placement engine decides, beside a plain-Python calendar that asks every worker, or takes the first.

1,000 workers, 50,000 booked seats over four weeks at 75 % of the CPU capacity: the calendar is rebuilt from the seats
(timed), then the same load is kept up: reservations of one to eight seats are placed and booked while old ones end
(cancelled), so that the fill stays where it is. Reported: seats placed a second over that time (refusals cost time and
count for nothing), the 99th percentile of one decision, of one explanation of a refusal with the earliest start, the
rebuild, and the resident memory. `--curve` prints the same for other sizes.

Times are the process's own CPU time: everything here is one thread that waits for nothing, so on an idle core that is
the wall time, and on a shared one it is what the core gave. `wall_per_second` is the same rate by the clock on the wall.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace

from rebuilding import rebuilt
from report import options as common
from report import report

from lablet_common.resources.worker import PoolSpec
from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Stir,
    WorkerView,
    earliest,
    place,
    settle,
)

EPOCH = 30_000_000 // 1440 * 1440
WEEKS = 4
SHAPES = ((2, 8, 4), (4, 16, 8), (8, 24, 12), (16, 64, 20))
"""cpu, memory, nodes of a seat; a worker has 16 cores, 64 GB and 40 nodes."""


def demand(rng: random.Random) -> Demand:
    cpu, memory, nodes = SHAPES[rng.choices(range(4), weights=(3, 3, 2, 1))[0]]
    return Demand(cpu, memory, 20, nodes, ("r1_serial", "r2_serial"))


def duration(rng: random.Random, mean_hours: float) -> int:
    """Minutes in quarters of an hour, a quarter to four times the mean."""
    hours = min(max(rng.lognormvariate(0, 0.6) * mean_hours * 0.83, mean_hours / 4), mean_hours * 4)
    return max(15, int(hours * 4) * 15)


def mean_hours(workers: int, seats: int, fill: float) -> float:
    """The mean slot that brings so many seats to that share of the CPUs over four weeks."""
    mean_cpu = sum(w * s[0] for w, s in zip((3, 3, 2, 1), SHAPES, strict=True)) / 9
    return workers * 16 * WEEKS * 7 * 24 * fill / (seats * mean_cpu)


def wanted(rng: random.Random, number: int, hours: float, offgrid: bool) -> PlacementRequest:
    length = duration(rng, hours)
    begin = rng.randrange(0, max(1, WEEKS * 7 * 24 * 60 - length))
    start = EPOCH + (begin if offgrid else begin // 15 * 15)
    seats = rng.choice((1, 1, 1, 2, 3, 4, 8))
    return PlacementRequest(f"r{number}", "default", demand(rng), start, start + length, seats=seats, now=EPOCH - 1440)


PART = 1000
"""A larger pool is filled as copies of one of so many workers."""


def pool(workers: int) -> Calendar:
    """A calendar with nothing on it."""
    return Calendar(
        [PoolPolicy("default", turnaround=10, grace=30, preparation=10)],
        [WorkerView(f"w-{i:05d}", "default", 16, 64, 2000, max_nodes=40, boot_minutes=20) for i in range(workers)],
    )


def filled(workers: int, seats: int, fill: float, rng: random.Random, offgrid: bool) -> list[Booking]:
    """So many seats, placed by the engine itself."""
    if workers > PART:
        copies = workers // PART
        part = filled(PART, seats // copies, fill, rng, offgrid)
        most = max(int(one.reservation[1:]) for one in part) + 1
        return [
            replace(
                one,
                reservation=f"r{int(one.reservation[1:]) + copy * most}",
                worker=f"w-{int(one.worker[2:]) + copy * PART:05d}",
            )
            for copy in range(copies)
            for one in part
        ]
    calendar = pool(workers)
    hours, booked, number, refused = mean_hours(workers, seats, fill), 0, 0, 0
    while booked < seats and refused < 5 * seats:
        decision = place(calendar, wanted(rng, number, hours, offgrid))
        number += 1
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings(), check=False)
            booked += len(decision.seats)
        else:
            refused += 1
    return list(calendar.bookings())


def utilisation(bookings: list[Booking], workers: int) -> float:
    used = sum((booking.end - booking.start) * booking.demand.cpu_cores for booking in bookings)
    return used / (workers * 16 * WEEKS * 7 * 24 * 60)


class PlainCalendar:
    """The baseline: sorted bookings per worker in plain Python, the peak counted anew for each worker that is asked."""

    def __init__(self, bookings: list[Booking], workers: int) -> None:
        self.booked: dict[str, list[tuple[int, int, int, int, int]]] = {f"w-{i:05d}": [] for i in range(workers)}
        self.longest = 0
        for one in bookings:
            self.add(one.worker, one.start, one.end, one.demand)

    def add(self, worker: str, start: int, end: int, need: Demand) -> None:
        insort(self.booked[worker], (start, end, int(need.cpu_cores), int(need.memory_gb), need.nodes))
        self.longest = max(self.longest, end - start)

    def first_fit(self, request: PlacementRequest) -> str | None:
        return next((worker for worker in self.booked if self.peak_with(worker, request) is not None), None)

    def best_fit(self, request: PlacementRequest) -> str | None:
        """The fullest worker with room, by its CPUs at the worst minute: what the engine's rule asks at the least."""
        fullest: tuple[int, str] | None = None
        for worker in self.booked:
            peak = self.peak_with(worker, request)
            if peak is not None and (fullest is None or peak > fullest[0]):
                fullest = (peak, worker)
        return None if fullest is None else fullest[1]

    def peak_with(self, worker: str, request: PlacementRequest) -> int | None:
        """CPUs in use at the worst minute of the slot with a seat more; None where it does not fit."""
        need = (int(request.demand.cpu_cores), int(request.demand.memory_gb), request.demand.nodes)
        booked, peak = self.booked[worker], need[0]
        first = bisect_left(booked, (request.start - self.longest,))
        last = bisect_left(booked, (request.end,))
        near = [one for one in booked[first:last] if one[1] > request.start]
        for at in (request.start, *(one[0] for one in near if one[0] > request.start)):
            now = [one for one in near if one[0] <= at < one[1]]
            used = [sum(one[2 + i] for one in now) + need[i] for i in range(3)]
            if used[0] > 16 or used[1] > 64 or used[2] > 40:
                return None
            peak = max(peak, used[0])
        return peak


def baseline(
    calendar: Calendar, workers: int, rng: random.Random, hours: float, offgrid: bool, budget: float, *, best: bool
) -> float:
    """Seats placed a second by the plain calendar: on the first worker with room, or (`best`) on the fullest one."""
    plain = PlainCalendar(list(calendar.bookings()), workers)
    find = plain.best_fit if best else plain.first_fit
    placed, number, begun = 0, 0, time.process_time()
    while time.process_time() - begun < budget:
        request = wanted(rng, number, hours, offgrid)
        number += 1
        for _ in range(request.seats):
            worker = find(request)
            if worker is None:
                break
            plain.add(worker, request.start, request.end, request.demand)
            placed += 1
    return placed / (time.process_time() - begun)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def explained(calendar: Calendar, rng: random.Random, hours: float, offgrid: bool, budget: float) -> list[float]:
    """Seconds of each explanation of up to 300 requests that are refused in their slot: the most seats of the largest
    shape that the load has."""
    seconds: list[float] = []
    cpu, memory, nodes = SHAPES[-1]
    for number in range(3000):
        request = wanted(rng, 20_000_000 + number, hours, offgrid)
        request = replace(
            request, demand=replace(request.demand, cpu_cores=cpu, memory_gb=memory, nodes=nodes), seats=8
        )
        if isinstance(place(calendar, request), Placement):
            continue
        begun = time.process_time()
        place(calendar, request)
        earliest(calendar, request, max(request.start, request.now))
        seconds.append(time.process_time() - begun)
        if len(seconds) == 300 or sum(seconds) > 2 * budget:
            break
    return seconds


@dataclass
class Settled:
    """Looks for power to be saved, each after a reservation that was placed or cancelled."""

    seconds: list[float] = field(default_factory=list)
    """Of each look, with its moves where there were any."""
    moves: int = 0
    minutes: int = 0
    """Of power that they saved."""


def settled(
    calendar: Calendar, live: list[str], rng: random.Random, hours: float, offgrid: bool, budget: float
) -> Settled:
    """Up to 1,000 looks, as a pool's owner takes them in quiet moments with the default setting; for each reservation that
    is placed as many seats of others are cancelled, so that the fill stays."""
    out, number, owed = Settled(), 30_000_000, 0
    most = PoolSpec.model_fields["recourse_moves"].default
    while len(out.seconds) < 1000 and sum(out.seconds) < budget:
        request = wanted(rng, number, hours, offgrid)
        number += 1
        decision = place(calendar, request)
        if not isinstance(decision, Placement):
            continue
        calendar.book_all(decision.bookings(), check=False)
        stir = Stir(tuple({seat.worker for seat in decision.seats}), request.start, request.end)
        begun = time.process_time()
        found = settle(calendar, "default", EPOCH - 1440, stir, max_moves=most)
        found.apply(calendar)
        out.seconds.append(time.process_time() - begun)
        out.moves += len(found.moves)
        out.minutes += found.saved_minutes
        live.append(request.reservation)
        owed = cancelled(calendar, live, owed + len(decision.seats), rng)
    return out


def cancelled(calendar: Calendar, live: list[str], owed: int, rng: random.Random) -> int:
    """Cancels reservations until so many seats are free again; what is still owed, negative where the last had more."""
    while owed > 0 and live:
        index = rng.randrange(len(live))
        live[index], live[-1] = live[-1], live[index]
        owed -= len(calendar.release(live.pop()))
    return owed


def measure(workers: int, seats: int, fill: float, *, offgrid: bool, budget: float, seed: int = 7) -> dict[str, float]:
    rng = random.Random(seed)
    bookings = filled(workers, seats, fill, rng, offgrid)
    fill_now = utilisation(bookings, workers)
    begun = time.process_time()
    calendar = pool(workers)
    calendar.book_all(bookings, check=False)
    rebuild = time.process_time() - begun

    hours = mean_hours(workers, seats, fill)
    live = sorted({booking.reservation for booking in bookings}, key=lambda name: int(name[1:]))
    rng.shuffle(live)
    decisions = []
    placed = refused = owed = 0
    spent = wall = 0.0
    number = 10_000_000
    while spent < budget:
        request = wanted(rng, number, hours, offgrid)
        number += 1
        clock, begun = time.perf_counter(), time.process_time()
        decision = place(calendar, request)
        middle = time.process_time()
        if isinstance(decision, Placement):
            calendar.book_all(decision.bookings(), check=False)
        spent += time.process_time() - begun
        wall += time.perf_counter() - clock
        decisions.append(middle - begun)
        if isinstance(decision, Placement):
            placed += len(decision.seats)
            live.append(request.reservation)
            owed = cancelled(calendar, live, owed + len(decision.seats), rng)
        else:
            refused += 1
    fill_after = utilisation(list(calendar.bookings()), workers)
    explanations = explained(calendar, rng, hours, offgrid, budget)
    recourse = settled(calendar, live, rng, hours, offgrid, min(budget, 3.0))
    plain, first = (
        baseline(calendar, workers, rng, hours, offgrid, min(budget, 2.0), best=best) for best in (True, False)
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stored, reservations = rebuilt(
        list(calendar.workers()), sorted(bookings, key=lambda one: (int(one.reservation[1:]), one.seat)), "default"
    )
    return {
        "workers": workers,
        "seats": len(bookings),
        "fill_pct": round(100 * fill_now, 1),
        "fill_after_pct": round(100 * fill_after, 1),
        "placements_per_second": round(placed / spent),
        "wall_per_second": round(placed / wall),
        "p50_ms": round(1000 * percentile(decisions, 0.5), 3),
        "p99_ms": round(1000 * percentile(decisions, 0.99), 3),
        "refused_pct": round(100 * refused / len(decisions), 1),
        "explain_p50_ms": round(1000 * percentile(explanations, 0.5), 2),
        "explain_p99_ms": round(1000 * percentile(explanations, 0.99), 2),
        "explained": len(explanations),
        "recourse_p50_ms": round(1000 * percentile(recourse.seconds, 0.5), 2),
        "recourse_p99_ms": round(1000 * percentile(recourse.seconds, 0.99), 2),
        "recourse_worst_ms": round(1000 * max(recourse.seconds), 2),
        "recourse_moves": recourse.moves,
        "recourse_saved_hours": round(recourse.minutes / 60),
        "recourse_steps": len(recourse.seconds),
        "rebuild_seconds": round(rebuild, 2),
        "rebuild_stored_seconds": round(stored, 2),
        "reservations": reservations,
        "memory_mb": round(memory),
        "baseline_per_second": round(plain),
        "first_fit_per_second": round(first),
    }


def main() -> None:
    parser = common(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seats", type=int, default=50_000)
    parser.add_argument("--fill", type=float, default=0.75)
    parser.add_argument("--seconds", type=float, default=6.0, help="measured time")
    parser.add_argument("--offgrid", action="store_true", help="slots begin at any minute, not at quarters of an hour")
    parser.add_argument("--curve", action="store_true", help="10 to 10,000 workers at 45, 75 and 90 %% (minutes)")
    options = parser.parse_args()
    if options.curve:
        for workers in (10, 100, 1000, 10_000):
            for fill in (45, 75, 90):
                shape = [f"--workers={workers}", f"--seats={workers * 50}", f"--fill={fill / 100}", "--seconds=1.5"]
                subprocess.run([sys.executable, __file__, *shape, *(["--offgrid"] * options.offgrid)], check=True)
        return
    row = measure(options.workers, options.seats, options.fill, offgrid=options.offgrid, budget=options.seconds)
    report("engine", row, options.json)


if __name__ == "__main__":
    main()
