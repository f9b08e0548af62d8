"""`lablet worker …`: take a worker out of service and back, in good order."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.drains import DrainPlan
    from lablet_common.resources.worker import Worker

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="WORKER")]


@app.command()
def drain(
    context: typer.Context,
    name: Name,
    at: Annotated[str | None, typer.Option(help='When to begin (default: now): "tomorrow 18:00", "in 2h".')] = None,
    until: Annotated[str | None, typer.Option(help="When it may be used again.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help='Labs still running so long after that are stopped: "90m".')
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="For those whose labs run on it.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="End running labs as soon as it begins, collected first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell who would move, stay or be ended.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Empty a worker: running labs go on to their end or the deadline, booked seats move away."""
    from lablet_client.cli.failures import WrongUsage

    if force and deadline:
        raise WrongUsage("--force ends labs at once: give --force or --deadline, not both")
    run = session(context)

    async def span(client: "Client") -> dict[str, Any]:
        now = (await client.lab_time()).now
        return {
            "at": _time("--at", at, now),
            "until": _time("--until", until, now),
            "deadline_minutes": minutes_of("--deadline", deadline),
            "force": force,
        }

    async def work(client: "Client") -> "Worker":
        return await client.workers.drain(name, message=message, **await span(client))

    async def plan(client: "Client") -> "tuple[DrainPlan, datetime]":
        return await client.workers.drain_plan(name, **await span(client)), (await client.lab_time()).now

    if dry_run:
        _show(run, *run.run(plan), output)
    else:
        _tell(run, run.run(work), output)


def _show(run: Session, plan: "DrainPlan", now: datetime, output: Format) -> None:
    """Who would move, who would stay, and until when."""
    from lablet_client.cli.times import show_slot, show_time

    if output in (Format.JSON, Format.YAML):
        write_data(run.console, plan.to_dict(), output)
        return
    end = f", labs that still run are ended {show_time(plan.deadline, now)}" if plan.deadline is not None else ""
    run.console.print(
        f"{plan.worker} would be emptied from {show_time(plan.frm, now)} to {show_time(plan.to, now)}{end}",
        markup=False,
    )
    if not plan.seats:
        run.console.print("Nobody would notice: nothing runs or is booked on it then.")
        return
    table = plain_table()
    for title in ("SEAT", "PHASE", "SLOT", "WHAT"):
        table.add_column(title)
    for seat in plan.seats:
        until = show_time(seat.until, now) if seat.until is not None else ""
        what = {"moves": "moves to another worker", "stays": f"stays until {until}", "ends": f"is ended {until}"}
        slot = show_slot(seat.slot.start, seat.slot.end, now)
        table.add_row(f"{seat.reservation} {seat.seat}", seat.phase, slot, what[seat.fate])
    run.show(table)


@app.command(name="cancel-drain")
def cancel_drain(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Take a drain back."""
    run = session(context)
    _tell(run, run.run(lambda client: client.workers.cancel_drain(name)), output)


@app.command()
def cordon(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Shown to everybody who asks why.")] = "maintenance",
    until: Annotated[str | None, typer.Option(help='Until then: "tomorrow 18:00".')] = None,
    output: Output = Format.TABLE,
) -> None:
    """Place nothing new on a worker; what is there stays."""
    run = session(context)

    async def work(client: "Client") -> "Worker":
        now = (await client.lab_time()).now
        return await client.workers.cordon(name, reason=reason, until=_time("--until", until, now))

    _tell(run, run.run(work), output)


@app.command()
def uncordon(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Use a worker again."""
    run = session(context)
    _tell(run, run.run(lambda client: client.workers.uncordon(name)), output)


@app.command()
def replace(
    context: typer.Context,
    name: Name,
    deadline: Annotated[str | None, typer.Option(help='Labs still running so long from now are ended: "90m".')] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="For those whose labs run on it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="End running labs now, collected first.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Drain a worker and give it a new machine. `cancel-drain` takes it back."""
    run = session(context)
    minutes = minutes_of("--deadline", deadline)
    _tell(
        run,
        run.run(lambda client: client.workers.replace(name, deadline_minutes=minutes, message=message, force=force)),
        output,
    )


def _tell(run: Session, worker: "Worker", output: Format) -> None:
    from lablet_client.cli.tables import STYLES
    from lablet_common.resources.model import format_time

    phase, cordon_ = str(worker.phase), worker.spec.unschedulable
    note = f", cordoned: {cordon_.reason}" if cordon_ is not None else ", takes new seats"
    for span in worker.spec.maintenance:
        note += f", maintenance {format_time(span.frm)} to {format_time(span.to)}"

    def say() -> None:
        run.console.print(f"{worker.id} is [{STYLES.get(phase) or 'default'}]{phase}[/]", end="")
        run.console.print(note, markup=False)

    answer(run.console, worker.to_dict(), output, say)


def _time(option: str, text: str | None, now: Any) -> Any:
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime, parse_time

    try:
        return parse_time(text, now) if text is not None else None
    except WrongTime as error:
        raise WrongUsage(f"{option}: {error}") from error


def minutes_of(option: str, text: str | None) -> int | None:
    """A span of time as whole minutes. Raises `WrongUsage` naming the option."""
    return round(_span(option, text).total_seconds() / 60) if text else None


def _span(option: str, text: str) -> Any:
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime, parse_span

    try:
        return parse_span(text)
    except WrongTime as error:
        raise WrongUsage(f"{option}: {error}") from error
