"""Two longer loads for the table: weeks of a real log, and a term of classes.

The KTH-SP2 log (Feitelson's archive) is a batch log: each job becomes a reservation at the time when it really ran,
requested in the order of submission, its processors seats of two cores. It is not part of the repository.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from .instances import BASE, DAY, Instance, Machine, Wanted

KTH = "KTH-SP2-1996-2.1-cln.swf.gz"
MINUTE = 60


def kth(folder: Path, days: int = 14, first_day: int = 60) -> Instance | None:
    """Jobs that ran in some days of the log (at most a day long, a quarter of an hour at least), on 16-core workers;
    None where the log is absent."""
    path = folder / KTH
    if not path.exists():
        return None
    rows: list[tuple[int, Wanted]] = []
    with gzip.open(path, "rt") as log:
        for line in log:
            if line.startswith(";") or not line.strip():
                continue
            number, submitted, waited, ran, processors = (int(float(field)) for field in line.split()[:5])
            begin = (submitted + max(waited, 0)) // MINUTE
            if ran < 15 * MINUTE or not first_day * DAY <= begin < (first_day + days) * DAY:
                continue
            length = min(-(-ran // MINUTE), DAY)
            begin += BASE - first_day * DAY
            one = Wanted(f"job{number}", begin, begin + length, min(processors, 100), 2, 8, 2)
            rows.append((submitted, one))
    rows.sort(key=lambda row: (row[0], row[1].name))
    machines = tuple(Machine(f"w-{i + 1:02d}", 16, 64, 40) for i in range(16))
    return Instance(0, machines, 20, 30, 10, tuple(one for _, one in rows))


def term(seed: int = 1, weeks: int = 4, workers: int = 12) -> Instance:
    """A term: 16 classes, each once or twice a week at its hour for all weeks, booked class by class before the term;
    then practice slots of one or two seats at any hour, as they come."""
    rng = random.Random(f"term {seed}")
    shapes = ((2, 8, 2), (2, 4, 5), (4, 16, 4), (4, 8, 8))
    wanted: list[Wanted] = []
    for number in range(16):
        cpu, memory, nodes = rng.choice(shapes)
        seats, length = rng.choice((6, 8, 10, 12, 16)), rng.choice((90, 120, 180, 240))
        for day in rng.sample(range(5), rng.choice((1, 2))):
            begin = rng.randrange(8 * 4, 17 * 4) * 15
            for week in range(weeks):
                start = BASE + (week * 7 + day) * DAY + begin
                name = f"class{number:02d}-{week}-{day}"
                wanted.append(Wanted(name, start, start + length, seats, cpu, memory, nodes))
    for number in range(40 * weeks):
        cpu, memory, nodes = rng.choice(shapes)
        start = BASE + rng.randrange(weeks * 7) * DAY + rng.randrange(8 * 4, 21 * 4) * 15
        length = rng.choice((60, 120, 120, 180, 240))
        wanted.append(Wanted(f"practice{number:03d}", start, start + length, rng.choice((1, 1, 2)), cpu, memory, nodes))
    machines = tuple(Machine(f"w-{i + 1:02d}", 16, 64, 40) for i in range(workers))
    return Instance(seed, machines, 20, 30, 10, tuple(wanted))
