"""`lablet calendar POOL`: who is booked when, drawn with block characters, one line a worker.

Each cell is an equal span of lab time and shows the fullest moment in it, so that nothing booked is ever invisible.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from rich.text import Text

    from lablet_client.client import Client

app = typer.Typer()
_MOST_SEATS = 999.0
"""No worker has more: the room that its number may take."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_FREE, _CLOSED = "·", "╳"
_NICE = (1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440, 2880, 10080)


@app.command()
def calendar(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="A pool, or one of its workers.")],
    start: Annotated[
        str | None, typer.Option("--from", "-s", help='"today 08:00", "monday 09:00" (default: now)')
    ] = None,
    end: Annotated[str | None, typer.Option("--to", "-e", help="(default: a day later)")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Draw when a pool's workers are booked, and what is free."""
    run = session(context)

    async def work(client: "Client") -> Mapping[str, Any]:
        from lablet_client.cli.failures import WrongUsage
        from lablet_client.cli.times import WrongTime, parse_span, parse_time

        now = (await client.lab_time()).now
        try:
            begin = parse_time(start, now) if start else now.replace(second=0, microsecond=0)
            try:
                until = begin + parse_span(end) if end else begin + timedelta(days=1)
            except WrongTime:
                until = parse_time(end or "", now)
        except WrongTime as error:
            raise WrongUsage(str(error)) from error
        if until <= begin:
            raise WrongUsage("--to must be after --from")
        found: Mapping[str, Any] = await client.pools.calendar(pool, start=begin, end=until)
        return found

    found = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, found, output)
        return
    _draw(run, found)


def cells(
    bookings: Sequence[Mapping[str, Any]], start: datetime, step: timedelta, count: int, weight: Mapping[int, float]
) -> Sequence[float]:
    """For each cell the fullest moment in it: the most weight that is booked at one time. `weight` is by the booking's
    place in the list."""
    spans = [
        (datetime.fromisoformat(booking["start"]), datetime.fromisoformat(booking["end"]), weight.get(index, 1.0))
        for index, booking in enumerate(bookings)
    ]
    result = []
    for number in range(count):
        low = start + number * step
        high = low + step
        moments = [low, *(begin for begin, _, _ in spans if low < begin < high)]
        result.append(max(sum(w for begin, end, w in spans if begin <= moment < end) for moment in moments))
    return result


def block(share: float) -> str:
    """A bar as high as the share (0 to 1) of something that is in use."""
    if share <= 0:
        return _FREE
    return _BLOCKS[min(len(_BLOCKS) - 1, max(0, round(share * len(_BLOCKS)) - 1))]


def step_for(span: timedelta, width: int) -> timedelta:
    """The shortest round step with which the span fits into the width."""
    minutes = span / timedelta(minutes=1) / max(1, width)
    return timedelta(minutes=next((nice for nice in _NICE if nice >= minutes), _NICE[-1]))


def ruler(start: datetime, step: timedelta, count: int) -> str:
    """Whole hours (with short cells half ones too) over the cells they begin at; with long cells, days."""
    line = [" "] * (count + 8)
    free_from, day = 0, None
    for number in range(count):
        local = (start + number * step).astimezone()
        if step < timedelta(hours=3):
            mark, word = (
                local.minute % (30 if step <= timedelta(minutes=5) else 60) == 0 or number == 0,
                f"{local:%H:%M}",
            )
        else:
            mark, word = local.date() != day, f"{local:%a %d}"
        if mark and number >= free_from:
            line[number : number + len(word)] = word
            free_from, day = number + len(word) + 2, local.date()
    return "".join(line).rstrip()


def _draw(run: Session, found: Mapping[str, Any]) -> None:
    from rich.text import Text

    from lablet_client.cli.times import show_span, show_time

    start, end = datetime.fromisoformat(found["start"]), datetime.fromisoformat(found["end"])
    now = datetime.fromisoformat(found["now"])
    workers: Sequence[Mapping[str, Any]] = found["workers"]
    names = max([len(worker["worker"]) for worker in workers] + [len("free seats")])
    tails = max([len(_tail(worker, _MOST_SEATS)) for worker in workers], default=0)
    width = max(20, min(run.console.width, 160) - names - 2 - tails)
    step = step_for(end - start, width)
    count = -(-(end - start) // step)
    run.console.print(
        f"[bold]pool {found['pool']}[/]  {show_time(start, now)} to {show_time(end, now)}, one cell is {show_span(step)}"
    )
    run.console.print(Text(" " * (names + 2) + ruler(start, step, count)))
    for worker in workers:
        run.console.print(_line(worker, names, start, step, count))
    _legend(run, found)


def _line(worker: Mapping[str, Any], names: int, start: datetime, step: timedelta, count: int) -> Any:
    from rich.text import Text

    load = cells(worker.get("bookings", ()), start, step, count, {})
    top = max([*load, 1.0])
    closed = [
        (datetime.fromisoformat(rest["from"]), datetime.fromisoformat(rest["to"]))
        for rest in worker.get("maintenance", ())
    ]
    text = Text()
    text.append(f"{worker['worker']:<{names}}  ", style="" if worker.get("schedulable", True) else "yellow")
    for number, seats in enumerate(load):
        low = start + number * step
        if not seats and any(begin < low + step and low < end for begin, end in closed):
            text.append(_CLOSED, style="yellow")
        else:
            text.append(block(seats / top), style="green" if seats else "dim")
    text.append_text(_tail(worker, top))
    return text


def _tail(worker: Mapping[str, Any], top: float) -> "Text":
    """What is said behind a worker's line; `top` seats are booked on it at once at the most."""
    from rich.text import Text

    from lablet_client.cli.tables import STYLES

    phase = str(worker.get("phase", ""))
    text = Text("  ")
    text.append(phase, style=STYLES.get(phase, ""))
    if worker.get("bookings"):
        text.append(f", up to {top:g} seat{'s' if top > 1 else ''}")
    if not worker.get("schedulable", True):
        text.append(", cordoned", style="yellow")
    return text


def _legend(run: Session, found: Mapping[str, Any]) -> None:
    from lablet_client.cli.times import show_time

    steps = found.get("steps", ())
    now = datetime.fromisoformat(found["now"])
    run.console.print(f"[dim]{_BLOCKS[0]}{_BLOCKS[-1]} booked seats, {_FREE} free, {_CLOSED} maintenance[/]")
    if steps:
        tightest = min(steps, key=lambda step: step["free"].get("memoryGb", 0))
        free = tightest["free"]
        when = show_time(datetime.fromisoformat(tightest["start"]), now)
        run.console.print(
            f"fullest at {when}: {free.get('cpuCores', 0):g} CPU cores, {free.get('memoryGb', 0):g} GB of memory "
            f"and {free.get('nodes', 0)} licensed nodes free, {tightest['booked'].get('seats', 0)} seats booked"
        )
