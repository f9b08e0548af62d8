"""The same question put to OR-tools CP-SAT, whose answers are recorded in recorded.json (`--record`).

Runs in an environment of its own that has ortools (the project does not need it):

    python3 -m venv /tmp/ortools && /tmp/ortools/bin/pip install ortools
    cd bench && /tmp/ortools/bin/python -m quality.record small 0 370 --seconds 12
    cd bench && /tmp/ortools/bin/python -m quality.record large 0 50 --cpu-seconds 120 --threads 2

A limit in CPU seconds gives the search the same work on a busy machine: it ends when the process has used so much, 60
seconds on two idle cores, later where others take their share.

Variables: seats of each reservation on each worker, and for each worker whether it is on in each elementary interval
between two instants at which anything can change. A power-on costs the lead; a rest of at most `bridge` minutes between
two holds of one worker is forced to be on, which makes the model's price the rule's price.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .checker import cost
from .instances import Instance, Machine


def fewest_on(instance: Instance, at: int) -> int:
    """No fewer workers than this can be on in a minute: the largest ones that together hold the load, per dimension."""
    running = [one for one in instance.wanted if one.start <= at < one.end]
    holding = [one for one in instance.wanted if one.start <= at < one.end + instance.turnaround]
    fewest = 1 if holding else 0
    for dimension, present in (("cpu", running), ("memory", running), ("nodes", holding)):
        need = sum(one.seats * getattr(one, dimension) for one in present)
        count = 0
        for size in sorted((getattr(machine, dimension) for machine in instance.machines), reverse=True):
            if need <= 0:
                break
            need -= size
            count += 1
        fewest = max(fewest, count)
    return fewest


def _size(machine: Machine) -> tuple[int, int, int]:
    return (machine.cpu, machine.memory, machine.nodes)


def solve(instance: Instance, seconds: float, threads: int, cpu_seconds: float | None = None) -> dict[str, Any]:
    """The best cost found, the proven lower bound, whether it is the optimum, and the seats of each worker; within so
    many seconds by the clock on the wall and, if that is given, so many of CPU time."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    rest = instance.turnaround
    points = sorted({at for one in instance.wanted for at in (one.start, one.end, one.end + rest)})
    index = {at: i for i, at in enumerate(points)}
    slots = len(points) - 1
    machines = instance.machines
    seats, there, on, boots = {}, {}, {}, {}
    for w in range(len(machines)):
        for t in range(slots):
            on[w, t] = model.new_bool_var(f"on{w}_{t}")
            boots[w, t] = model.new_bool_var(f"boot{w}_{t}")
            if t:
                model.add(boots[w, t] >= on[w, t] - on[w, t - 1])
            else:
                model.add(boots[w, t] >= on[w, t])
        for i, one in enumerate(instance.wanted):
            seats[i, w] = model.new_int_var(0, one.seats, f"x{i}_{w}")
            there[i, w] = model.new_bool_var(f"y{i}_{w}")
            model.add(seats[i, w] <= one.seats * there[i, w])
            model.add(seats[i, w] >= there[i, w])
            for t in range(index[one.start], index[one.end + rest]):
                model.add_implication(there[i, w], on[w, t])
        for i, one in enumerate(instance.wanted):
            for j, other in enumerate(instance.wanted):
                if 0 < other.start - (one.end + rest) <= instance.bridge:
                    for t in range(index[one.end + rest], index[other.start]):
                        model.add_bool_or(there[i, w].Not(), there[j, w].Not(), on[w, t])
    for i, one in enumerate(instance.wanted):
        model.add(sum(seats[i, w] for w in range(len(machines))) == one.seats)
    for at in sorted({one.start for one in instance.wanted}):
        running = [(i, one) for i, one in enumerate(instance.wanted) if one.start <= at < one.end]
        holding = [(i, one) for i, one in enumerate(instance.wanted) if one.start <= at < one.end + rest]
        for w, machine in enumerate(machines):
            power = on[w, index[at]]
            model.add(sum(seats[i, w] * one.cpu for i, one in running) <= machine.cpu * power)
            model.add(sum(seats[i, w] * one.memory for i, one in running) <= machine.memory * power)
            model.add(sum(seats[i, w] * one.nodes for i, one in holding) <= machine.nodes * power)
    for t in range(slots):
        model.add(sum(on[w, t] for w in range(len(machines))) >= fewest_on(instance, points[t]))
    for w in range(1, len(machines)):
        if _size(machines[w]) == _size(machines[w - 1]):
            model.add(sum(on[w, t] for t in range(slots)) <= sum(on[w - 1, t] for t in range(slots)))
    length = [points[t + 1] - points[t] for t in range(slots)]
    model.minimize(
        sum(length[t] * on[w, t] + instance.lead * boots[w, t] for w in range(len(machines)) for t in range(slots))
    )
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = threads
    solver.parameters.random_seed = 1
    solver.parameters.linearization_level = 2
    begun, used = time.perf_counter(), time.process_time()
    with _cpu_limit(solver, cpu_seconds):
        status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise RuntimeError(f"seed {instance.seed}: CP-SAT says {solver.status_name(status)}")
    seats_of = {
        one.name: [solver.value(seats[i, w]) for w in range(len(machines))] for i, one in enumerate(instance.wanted)
    }
    found = cost(
        instance,
        {name: [machines[w].name for w, n in enumerate(given) for _ in range(n)] for name, given in seats_of.items()},
    )
    proven = status == cp_model.OPTIMAL
    if found > round(solver.objective_value) or (proven and found != round(solver.objective_value)):
        raise RuntimeError(f"seed {instance.seed}: the model says {solver.objective_value}, the checker {found}")
    return {
        "seed": instance.seed,
        "fingerprint": instance.fingerprint(),
        "cost": found,
        "bound": round(solver.best_objective_bound),
        "proven": proven,
        "seconds": round(time.perf_counter() - begun, 2),
        "limit": seconds,
        "threads": threads,
    } | ({} if cpu_seconds is None else {"cpu_seconds": round(time.process_time() - used, 1)})


@contextmanager
def _cpu_limit(solver: Any, seconds: float | None) -> Iterator[None]:
    """Stops the search once the process has used so many seconds of CPU time in here (all its threads together)."""
    until = None if seconds is None else time.process_time() + seconds
    over = threading.Event()

    def watch() -> None:
        while until is not None and not over.wait(0.2):
            if time.process_time() >= until:
                solver.stop_search()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
