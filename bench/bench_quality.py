"""How much power the scheduler's placements need, beside what the best possible placements would need.

Three parts. *Small*: instances whose optimum CP-SAT has proven (recorded, see quality/record.py): placed online one by
one in the order of the requests, then replanned; the gap to the optimum, in worker-on minutes with boots, the cost
counted by a checker without any of the engine's code. *Online* is what a pool does with its default settings, which lets
a few seats that have not started move after each placement; *pure* is the same where nothing moves, and that is also
where replanning begins. An instance in which a request is refused either way has no comparable cost; it is passed over
and counted. *Large*: 40–60 reservations, replanned for two seconds each, against the
best that CP-SAT found in its limit. *Long*: weeks of a real log and a term of classes against a lower bound and crude
planners, in worker-hours.

The replan of small instances is limited by steps, so its figures repeat exactly; the others are limited by CPU time, so
that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from quality import checker, instances, loads, planners, record, rivals
from report import options as common
from report import report

from lablet_scheduler.engine import Calendar

SMALL = 200
LARGE = 50
ORDERS = 10
"""Random orders of the requests beside the one that they came in: what the order costs, seen with hindsight."""
SMALL_STEPS = 250_000
LARGE_SECONDS = 2.0
LONG_SECONDS = 15.0
UNLIMITED = 10**12
TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"


def small(most: int) -> dict[str, float]:
    known = [row for _, row in sorted(record.read()["small"].items()) if row["proven"]]
    pure_gaps: list[float] = []
    online_gaps: list[float] = []
    gaps: list[float] = []
    seconds: list[float] = []
    passed_over = 0
    in_order: list[float] = []
    hindsight: list[float] = []
    moves: list[int] = []
    seats = 0
    by_fleet: dict[str, list[float]] = {"like": [], "mixed": []}
    for row in known:
        if len(gaps) == most:
            break
        instance = instances.small(row["seed"])
        calendar, refused = planners.online(instance)
        settled, more_refused, moved = planners.settled(instance)
        if refused or more_refused:
            passed_over += 1
            continue
        pure_gaps.append(gap(instance, calendar, row["cost"]))
        online_gaps.append(gap(instance, settled, row["cost"]))
        moves.append(moved)
        seats += sum(one.seats for one in instance.wanted)
        sorted_calendar, refused = planners.online(instance.in_order_of_start())
        if not refused:
            in_order.append(gap(instance, sorted_calendar, row["cost"]))
        hindsight.append(min(gap(instance, one, row["cost"]) for one in (calendar, *other_orders(instance))))
        sizes = {(one.cpu, one.memory, one.nodes) for one in instance.machines}
        by_fleet["like" if len(sizes) == 1 else "mixed"].append(online_gaps[-1])
        begun = time.process_time()
        planners.replanned(instance, calendar, 60.0, SMALL_STEPS)
        seconds.append(time.process_time() - begun)
        gaps.append(gap(instance, calendar, row["cost"]))
        if min(gaps[-1], online_gaps[-1]) < 0:
            raise AssertionError(f"seed {row['seed']}: better than the proven optimum; one of the two counts wrongly")
    if not gaps:
        return {"instances": 0}
    print(
        f"small: {len(gaps)} instances with a proven optimum ({passed_over} passed over: a request was refused online)\n"
        f"  online   mean {statistics.mean(online_gaps):.2f} %, median {statistics.median(online_gaps):.2f} %, "
        f"worst {max(online_gaps):.2f} %; "
        + ", ".join(f"{name} workers {statistics.mean(of):.2f} % ({len(of)})" for name, of in by_fleet.items() if of)
        + f"; {sum(moves)} moves for {seats} seats\n"
        f"  pure     mean {statistics.mean(pure_gaps):.2f} %, median {statistics.median(pure_gaps):.2f} %, "
        f"worst {max(pure_gaps):.2f} % where nothing moves\n"
        f"  pure     mean {statistics.mean(in_order):.2f} % had the requests come in the order of their starts, "
        f"{statistics.mean(hindsight):.2f} % in the best of {ORDERS + 1} orders\n"
        f"  replan   mean {statistics.mean(gaps):.3f} %, worst {max(gaps):.2f} %, "
        f"optimal in {sum(one == 0 for one in gaps)}; {statistics.mean(seconds):.2f} s each, longest {max(seconds):.2f} s"
    )
    return {
        "instances": len(gaps),
        "online_gap_pct": round(statistics.mean(online_gaps), 2),
        "mean_gap_pct": round(statistics.mean(gaps), 3),
        "worst_gap_pct": round(max(gaps), 2),
        "optimal": sum(one == 0 for one in gaps),
        "online_worst_gap_pct": round(max(online_gaps), 2),
        "online_moves_per_seat": round(sum(moves) / seats, 3),
        "pure_online_gap_pct": round(statistics.mean(pure_gaps), 2),
        "pure_in_order_gap_pct": round(statistics.mean(in_order), 2),
        "pure_hindsight_gap_pct": round(statistics.mean(hindsight), 2),
        "passed_over": passed_over,
    }


def other_orders(instance: instances.Instance) -> Iterator[Calendar]:
    """The same requests placed online in random orders, those in which one is refused left out."""
    rng = random.Random(instance.seed)
    for _ in range(ORDERS):
        shuffled = replace(instance, wanted=tuple(rng.sample(instance.wanted, len(instance.wanted))))
        calendar, refused = planners.online(shuffled)
        if not refused:
            yield calendar


def large(most: int) -> dict[str, float]:
    known = [row for _, row in sorted(record.read()["large"].items())]
    pure_gaps: list[float] = []
    online_gaps: list[float] = []
    gaps: list[float] = []
    worse = passed_over = 0
    for row in known:
        if len(gaps) == most:
            break
        instance = instances.large(row["seed"])
        calendar, refused = planners.online(instance)
        if refused:
            passed_over += 1
            continue
        pure_gaps.append(gap(instance, calendar, row["cost"]))
        settled, refused, _ = planners.settled(instance)
        if not refused:
            online_gaps.append(gap(instance, settled, row["cost"]))
        planners.replanned(instance, calendar, LARGE_SECONDS, UNLIMITED)
        gaps.append(gap(instance, calendar, row["cost"]))
        worse += gaps[-1] > 0
    if not gaps or not online_gaps:
        return {"large_instances": 0}
    limits = sorted({(row["limit"], row["threads"]) for row in known})
    print(
        f"large: {len(gaps)} instances ({passed_over} passed over), CP-SAT's best in "
        + ", ".join(f"{limit:g} s on {threads} thread(s)" for limit, threads in limits)
        + f"\n  online   mean {statistics.mean(online_gaps):+.2f} % ({len(online_gaps)} instances)"
        f"\n  pure     mean {statistics.mean(pure_gaps):+.2f} % where nothing moves"
        f"\n  replan   mean {statistics.mean(gaps):+.2f} % in "
        f"{LARGE_SECONDS:g} s each (below zero: cheaper than CP-SAT), worst {max(gaps):+.2f} %, best {min(gaps):+.2f} %, "
        f"dearer than CP-SAT's in {worse}"
    )
    return {
        "large_instances": len(gaps),
        "large_mean_gap_pct": round(statistics.mean(gaps), 2),
        "large_worst_gap_pct": round(max(gaps), 2),
    }


def gap(instance: instances.Instance, calendar: Calendar, best: int) -> float:
    return 100 * (checker.cost(instance, planners.assignment(calendar)) / best - 1)


def long() -> dict[str, float]:
    rows: dict[str, dict[str, str]] = {}
    figures: dict[str, float] = {}
    for name, instance in (("term", loads.term()), ("kth", loads.kth(TRACES))):
        if instance is None:
            print(f"{name}: skipped, {TRACES / loads.KTH} is not there")
            continue
        calendar, refused = planners.online(instance)
        if refused:
            # compare all planners on what the engine took
            taken = tuple(one for one in instance.wanted if one.name not in refused)
            instance = instances.Instance(
                instance.seed, instance.machines, instance.lead, instance.grace, instance.turnaround, taken
            )
        pure = checker.cost(instance, planners.assignment(calendar))
        settled, lost, _ = planners.settled(instance)
        online = checker.cost(instance, planners.assignment(settled))
        planners.replanned(instance, calendar, LONG_SECONDS, UNLIMITED)
        replanned = checker.cost(instance, planners.assignment(calendar))
        bound = rivals.lower_bound(instance)
        seats = sum(one.seats for one in instance.wanted)
        column = f"{name}: {len(instance.wanted)} reservations, {seats} seats"
        if refused:
            column += f" ({len(refused)} more refused)"
        table = {"lower bound": (bound, 0), "after replan": (replanned, 0), "placed online": (online, len(lost))}
        table["where nothing moves"] = (pure, 0)
        table["best-fit"], table["first-fit"] = rivals.best_fit(instance), rivals.first_fit(instance)
        table["one worker per class"] = (rivals.per_class(instance), 0)
        rows[column] = {
            planner: f"{minutes / 60:10.1f} h {100 * (minutes / bound - 1):+6.1f} %"
            + (f" ({lost} seats refused)" if lost else "")
            for planner, (minutes, lost) in table.items()
        }
        figures[f"{name}_online_over_bound_pct"] = round(100 * (online / bound - 1), 1)
        figures[f"{name}_pure_online_over_bound_pct"] = round(100 * (pure / bound - 1), 1)
        figures[f"{name}_replan_over_bound_pct"] = round(100 * (replanned / bound - 1), 1)
    planners_named = list(dict.fromkeys(planner for column in rows.values() for planner in column))
    print("worker-hours, and how far over the lower bound")
    print("  " + " " * 21 + "".join(f" | {column:<42}" for column in rows))
    for planner in planners_named:
        print(f"  {planner:<21}" + "".join(f" | {column.get(planner, ''):<42}" for column in rows.values()))
    return figures


def main() -> int:
    parser = common(argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None))
    parser.add_argument("--small", type=int, default=SMALL, help="how many small instances (default: %(default)s)")
    parser.add_argument("--large", type=int, default=LARGE, help="how many large instances (default: %(default)s)")
    options = parser.parse_args()
    begun = time.perf_counter()
    figures = small(options.small) | large(options.large) | long()
    figures["seconds"] = round(time.perf_counter() - begun)
    report("quality", figures, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
