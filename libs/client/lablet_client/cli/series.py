"""A term of classes: every date's fit before it is booked, and changes by date."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, pairs, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.reservation import Reservation
    from lablet_common.resources.series import Series
    from lablet_common.terms import Scope, SeriesCreate, SeriesRehearsal

app = typer.Typer(no_args_is_help=True)
_NAME = Annotated[str, typer.Argument(metavar="SERIES")]
_DATE = Annotated[
    str | None, typer.Option("--date", help="The date that is meant, as the series calls it: YYYY-MM-DD.")
]
_FOLLOWING = Annotated[bool, typer.Option("--following", help="The date and all after it.")]
_STATES = {"held": "cyan", "placed": "green", "unfit": "red", "cancelled": "dim"}


@app.command()
def show(context: typer.Context, name: _NAME, output: Output = Format.TABLE) -> None:
    """Show a series with what has become of each date."""
    run = session(context)

    async def work(client: "Client") -> "tuple[Series, list[Reservation]]":
        return await client.series.get(name), await client.series.dates(name)

    found, dates = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, found.to_dict() | {"reservations": [one.to_dict() for one in dates]}, output)
    else:
        tell(run, found, dates)


@app.command()
def change(
    context: typer.Context,
    name: _NAME,
    date: _DATE = None,
    following: _FOLLOWING = False,
    start: Annotated[
        str | None, typer.Option("--start", "-s", help="New start of --date (or of the next); the others move along.")
    ] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help='"90m", "2h".')] = None,
    seats: Annotated[int | None, typer.Option("--seats", "-n", min=1, max=100, help="So many instead.")] = None,
    definition: Annotated[str | None, typer.Option(help="Another lab.")] = None,
    roster: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Who sits where: a user a line.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Change one date (--date), this and the following (--date --following), or all."""
    from lablet_client.cli.booking import minutes_of, roster_of, usage
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import parse_time

    run = session(context)
    scope = _scope(date, following)
    if following and date is None:
        raise WrongUsage("--following needs --date: from which date on?")

    async def work(client: "Client") -> "tuple[Series, dict[str, Any]]":
        from lablet_common.resources.reservation import RosterEntry

        found = await client.series.get(name)
        now = (await client.lab_time()).now
        zone = zone_of(found.spec.timezone)
        entries = roster_of(roster, seats or found.spec.template.seats) if roster else None
        return await client.series.change(
            found,
            scope=scope,
            date=date,
            start=usage("--start", lambda: parse_time(start, now, zone)) if start else None,
            duration_minutes=minutes_of(duration),
            seats=seats,
            definition=definition,
            roster=None if entries is None else [RosterEntry(seat=seat, user=user) for seat, user in entries],
        )

    series, done = run.run(work)
    answer(run.console, with_done(series, done), output, lambda: tell_done(run, series, done, verb="changed"))


@app.command()
def cancel(
    context: typer.Context,
    name: _NAME,
    date: _DATE = None,
    following: _FOLLOWING = False,
    reason: Annotated[str, typer.Option(help="Kept in the history of each date.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Give back one date (--date), this and the following (--date --following), or all."""
    run = session(context)
    series, done = give_back(run, name, date, following, reason)
    answer(run.console, with_done(series, done), output, lambda: tell_done(run, series, done, verb="cancelled"))


def give_back(
    run: Session, name: str, date: str | None, following: bool, reason: str
) -> "tuple[Series, dict[str, Any]]":
    """The series as it is then, and what was done."""
    from lablet_client.cli.failures import WrongUsage

    if following and date is None:
        raise WrongUsage("--following needs --date: from which date on?")
    scope = _scope(date, following)

    async def work(client: "Client") -> "tuple[Series, dict[str, Any]]":
        return await client.series.cancel(name, scope=scope, date=date, reason=reason)

    return run.run(work)


def term_of(fields: "Mapping[str, Any]") -> "SeriesCreate":
    """What is asked for. Raises `WrongUsage` naming the field at fault."""
    from pydantic import ValidationError

    from lablet_client.cli.failures import WrongUsage
    from lablet_common.terms import SeriesCreate

    try:
        return SeriesCreate.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongUsage(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


def day(option: str, text: str) -> str:
    """A local date as it was written. Raises `WrongUsage`."""
    from datetime import date

    from lablet_client.cli.failures import WrongUsage

    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise WrongUsage(f"{option}: {text!r} is no date: write it as YYYY-MM-DD") from error


def book(run: Session, body: "SeriesCreate", *, dry_run: bool, yes: bool, key: str | None, output: Format) -> None:
    """Shows how every date fits, asks, and books."""
    from lablet_client.cli.failures import REFUSED, WrongUsage

    if output in (Format.JSON, Format.YAML) and not (yes or dry_run):
        raise WrongUsage(f"-o {output} asks nobody: add --dry-run to see how every date fits, or --yes to book")
    if not yes or dry_run:
        rehearsal = run.run(lambda client: client.series.rehearse(body))
        if dry_run and output in (Format.JSON, Format.YAML):
            write_data(run.console, rehearsal.to_dict(), output)
            return
        _tell_rehearsal(run, body, rehearsal)
        if dry_run:
            return
        if not rehearsal.granted:
            remedy = (
                "" if body.mode == "fits" or rehearsal.unfit == len(rehearsal.dates) else "; --fits books the others"
            )
            run.aside.print(f"[bold red]✗[/] {rehearsal.unfit} of {len(rehearsal.dates)} dates do not fit{remedy}")
            raise typer.Exit(REFUSED)
        dates = len(rehearsal.dates) - rehearsal.unfit
        if not typer.confirm(f"Book {dates} date{'' if dates == 1 else 's'}?", err=True):
            run.aside.print("nothing was booked")
            raise typer.Exit(REFUSED)
    run.notes.append("waiting for the scheduler's decision …")
    booked = run.run(lambda client: client.series.create(body, key=key))
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, booked.to_dict(), output)
    else:
        tell(run, booked, ())


def tell(run: Session, series: "Series", dates: "Sequence[Reservation]") -> None:
    """The series and its dates, in the series' own local time."""
    from lablet_client.cli.tables import STYLES

    run.console.print(f"{series.id}  [{STYLES.get(str(series.phase)) or 'default'}]{series.phase}[/]")
    template = series.spec.template
    run.console.print(
        pairs(
            [
                ("lab", f"{template.definition}, {template.seats} seat{'' if template.seats == 1 else 's'}"),
                ("rule", f"{series.spec.rule}, {series.spec.timezone}"),
                ("pools", ", ".join(template.pools)),
                ("why", series.status.message or ""),
            ]
        )
    )
    tell_dates(run, series, dates)


def tell_dates(run: Session, series: "Series", dates: "Sequence[Reservation]") -> None:
    """A line a date: what has become of its reservation, where that is known."""
    from rich.text import Text

    from lablet_client.cli.tables import STYLES

    zone = zone_of(series.spec.timezone)
    known = {one.id: one for one in dates}
    table = plain_table("DATE", "SLOT", "STATE", "RESERVATION", "POOL", "WHY")
    for one in series.status.occurrences:
        booking = known.get(one.reservation or "")
        slot = booking.slot if booking is not None and booking.slot is not None else one
        state = str(one.state) if booking is None else str(booking.phase)
        style = _STATES.get(state) or STYLES.get(state, "")
        table.add_row(
            one.date, _local(slot.start, slot.end, zone), Text(state, style), one.reservation or "", one.pool or "",
            Text(one.reason or ""),
        )  # fmt: skip
    if series.status.occurrences:
        run.show(table)


def _tell_rehearsal(run: Session, body: "SeriesCreate", rehearsal: "SeriesRehearsal") -> None:
    from rich.text import Text

    zone = zone_of(body.timezone)
    table = plain_table("DATE", "SLOT", "FITS", "POOL", "WHY")
    for one in rehearsal.dates:
        fits = Text("yes", "green") if one.fits else Text("no", "red")
        slot = _local(one.start, one.end, zone)
        table.add_row(one.date, slot, fits, one.pool or "", Text("" if one.fits else one.reason))
    run.show(table)
    hours, cost = rehearsal.worker_hours_added, rehearsal.cost_added_usd
    run.console.print(
        pairs(
            [
                ("dates", f"{len(rehearsal.dates) - rehearsal.unfit} of {len(rehearsal.dates)} fit"),
                ("power", f"{hours:+g} worker-hours"),
                ("cost", f"{cost:+.2f} USD" if cost else ""),
            ]
        )
    )


def with_done(series: "Series", done: dict[str, Any]) -> "Mapping[str, Any]":
    """For programs: the series, and what was done under `done`."""
    return {**series.to_dict(), "done": done}


def tell_done(run: Session, series: "Series", done: dict[str, Any], *, verb: str) -> None:
    count, kept = done.get(verb, 0), done.get("kept", {})
    run.console.print(f"{series.id} is {series.phase}: {count} date{'' if count == 1 else 's'} {verb}")
    for date, why in sorted(kept.items()):
        run.console.print(f"  {date} stays: {why}", markup=False)


def _scope(date: str | None, following: bool) -> "Scope":
    return "following" if following else "this" if date is not None else "all"


def _local(start: Any, end: Any, zone: Any) -> str:
    begin, until = start.astimezone(zone), end.astimezone(zone)
    return f"{begin:%a %d %b %Y %H:%M}–{until:%H:%M}"


def zone_of(name: str) -> Any:
    """The zone. Raises `WrongUsage`."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from lablet_client.cli.failures import WrongUsage

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WrongUsage(f"--timezone: there is no zone {name!r}: write one like Europe/Berlin") from error


def own_zone() -> str:
    """The machine's zone by its IANA name; UTC where it has none."""
    link = Path("/etc/localtime")
    _, found, name = str(link.resolve()).partition("/zoneinfo/")
    return name if found else "UTC"
