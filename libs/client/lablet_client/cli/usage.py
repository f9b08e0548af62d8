"""`lablet usage`: what the tenant has booked and used, and what that came to."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, plain_table, write_data
from lablet_client.cli.session import session

if TYPE_CHECKING:
    from lablet_client.client import Client

app = typer.Typer()


@app.command()
def usage(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="30d, yesterday, 2027-03-01")] = "30d",
    until: Annotated[str | None, typer.Option(help="(default: now)")] = None,
    table: Annotated[bool, typer.Option("--csv", help="Comma-separated, for a spreadsheet.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show seats, hours and cost of a span, by definition."""
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime, parse_past

    run = session(context)

    async def work(client: "Client") -> Any:
        now = (await client.lab_time()).now
        try:
            start, end = parse_past(since, now), parse_past(until, now) if until else now
        except WrongTime as error:
            raise WrongUsage(f"--since, --until: {error}") from error
        return await (client.usage_csv(start, end) if table else client.usage(start, end))

    found = run.run(work)
    if table:
        run.console.out(found.replace("\r\n", "\n").rstrip("\n"), highlight=False)
    elif output in (Format.JSON, Format.YAML):
        write_data(run.console, dict(found), output)
    else:
        _show(run, found)


def _show(run: Any, found: Any) -> None:
    from rich.text import Text

    first, last = (datetime.fromisoformat(found[name]).astimezone() for name in ("start", "end"))
    phases = ", ".join(f"{count} {phase.lower()}" for phase, count in found["reservations"].items()) or "none"
    run.console.print(f"[bold]{found['tenant']}[/], {first:%a %d %b %Y %H:%M} to {last:%a %d %b %Y %H:%M}")
    run.console.print(f"reservations: {phases}\n")
    table = plain_table("DEFINITION", "RESERVATIONS", "SEATS", "SEAT HOURS", "WORKER HOURS", "COST USD")
    for column in table.columns[1:]:
        column.justify = "right"
    counted = 0
    for used in found["definitions"]:
        counted += used["reservations"]
        table.add_row(used["definition"], str(used["reservations"]), *_numbers(used))
    table.add_row(Text("all", "bold"), str(counted), *_numbers(found))
    run.show(table)
    if found["unpricedSeatHours"]:
        run.console.print(
            f"\n{found['unpricedSeatHours']:g} seat hours have no price: their workers or definitions are not known any more"
        )


def _numbers(used: Any) -> tuple[str, str, str, str]:
    return str(used["seats"]), f"{used['seatHours']:.1f}", f"{used['workerHours']:.1f}", f"{used['costUsd']:.2f}"
