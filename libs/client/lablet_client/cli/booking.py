"""Booking: reserve, cancel, extend, confirm, and the way into one's seat."""

from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, labels_of, pairs, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client, LabTime
    from lablet_client.instances import Access
    from lablet_common.intents import ReservationCreate, Simulation
    from lablet_common.resources.reservation import Reservation

app = typer.Typer()
_TIME = 'A time: "tomorrow 09:00", "in 2h", "mon 14:30", ISO 8601. Without a zone the local one is meant.'


@app.command()
def reserve(
    context: typer.Context,
    definition: Annotated[str, typer.Argument(help="Name, or name@version. Without a version the newest.")],
    seats: Annotated[int, typer.Option("--seats", "-n", min=1, max=100, help="All of them or none.")] = 1,
    start: Annotated[str | None, typer.Option("--start", "-s", help=f"{_TIME} (default: as soon as possible)")] = None,
    end: Annotated[str | None, typer.Option("--end", "-e", help="The end, likewise.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help='Instead of the end: "90m", "2h".')] = None,
    pools: Annotated[list[str] | None, typer.Option("--pool", "-p", help="Repeatable, first choice first.")] = None,
    hold: Annotated[
        str | None, typer.Option(help='Only hold it, for so long or until then: "30m", "today 18:00".')
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Who sits where: a user a line.")
    ] = None,
    extendable: Annotated[
        str | None, typer.Option(help='By how much the seats may make it longer themselves: "30m".')
    ] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value, repeatable.")] = None,
    selector: Annotated[
        list[str] | None, typer.Option("--worker", help="Workers with this label only: key=value.")
    ] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher ones leave the wait list first.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the labs run.")] = False,
    timeout: Annotated[str, typer.Option(help="With --wait: how long to wait (real time).")] = "24h",
    repeat: Annotated[
        str | None, typer.Option(help='Every date of a rule (RFC 5545): "FREQ=WEEKLY;BYDAY=TU;COUNT=14".')
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="With --repeat: the zone of its hours (default: this machine's).")
    ] = None,
    except_dates: Annotated[
        list[str] | None, typer.Option("--except", help="With --repeat: a date left out, YYYY-MM-DD. Repeatable.")
    ] = None,
    fits: Annotated[bool, typer.Option("--fits", help="With --repeat: the dates that fit, not all or none.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --repeat: book without showing and asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would come of it.")] = False,
    key: Annotated[
        str | None, typer.Option(help="A word of yours: the same booking under it is made once, however often you ask.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Book seats of a lab for a slot, as soon as possible, or for every date of a term."""
    from lablet_client.cli.progress import follow
    from lablet_client.cli.times import parse_span
    from lablet_common.resources.reservation import ReservationPhase

    run = session(context)
    patience = usage("--timeout", lambda: parse_span(timeout)).total_seconds()
    entries = roster_of(roster, seats) if roster else ()
    more = int(usage("--extendable", lambda: parse_span(extendable)) / timedelta(minutes=1)) if extendable else 0
    given_labels, wanted = labels_of(labels or (), "--label"), labels_of(selector or (), "--worker")

    if repeat is not None:
        from lablet_client.cli.failures import WrongUsage
        from lablet_client.cli.series import book, day, own_zone, term_of, zone_of

        if wait or hold or start is None:
            raise WrongUsage("--repeat needs --start and goes without --wait and --hold: a term is booked ahead")
        zone = timezone or own_zone()
        slot = _slot(start, end, duration, run.run(lambda client: client.lab_time()), zone_of(zone))
        term = {
            "definition": definition,
            "seats": seats,
            "pools": pools or (),
            "labels": given_labels,
            "worker_selector": wanted,
            "priority": priority,
            "roster": [{"seat": seat, "user": user} for seat, user in entries],
            "rule": repeat,
            "timezone": zone,
            "except_dates": [day("--except", text) for text in except_dates or ()],
            "mode": "fits" if fits else "all",
        }
        book(run, term_of(term | dict(slot)), dry_run=dry_run, yes=yes, key=key, output=output)
        return

    def wish(now: "LabTime") -> "ReservationCreate":
        from lablet_client.cli.failures import WrongUsage
        from lablet_common.intents import ReservationCreate
        from lablet_common.resources.reservation import Hold, RosterEntry

        slot = _slot(start, end, duration, now)
        if wait and hold:
            raise WrongUsage("--wait and --hold exclude each other: a hold does not run before it is confirmed")
        return ReservationCreate(
            definition=definition,
            seats=seats,
            pools=tuple(pools or ()),
            labels=dict(given_labels),
            worker_selector=dict(wanted),
            priority=priority,
            roster=tuple(RosterEntry(seat=seat, user=user) for seat, user in entries),
            extendable_minutes=more,
            hold=Hold(expires_at=_until("--hold", hold, now)) if hold else None,
            **slot,
        )

    async def look(client: "Client") -> "tuple[Simulation, LabTime]":
        from lablet_common.intents import SimulationCreate

        now = await client.lab_time()
        return await client.reservations.simulate(SimulationCreate(reservations=(wish(now),))), now

    if dry_run:
        from lablet_client.cli.simulate import tell

        tell(run, *run.run(look), output)
        return

    async def work(client: "Client") -> "tuple[Reservation, LabTime]":
        now = await client.lab_time()
        body = wish(now)
        run.notes.append("waiting for the scheduler's decision …")
        return await client.reservations.create(body, key=key), now

    booking, now = run.run(work)
    if wait:
        booking = follow(run, booking, (ReservationPhase.ACTIVE,), patience)
        now = run.run(lambda client: client.lab_time())
    answer(run.console, booking.to_dict(), output, lambda: _tell(run, booking, now))


@app.command()
def cancel(
    context: typer.Context,
    reservations: Annotated[list[str], typer.Argument(metavar="RESERVATION", help="Or series: ser-…")],
    reason: Annotated[str, typer.Option(help="Kept in its history.")] = "",
    date: Annotated[str | None, typer.Option("--date", help="Of a series: this date only, YYYY-MM-DD.")] = None,
    following: Annotated[bool, typer.Option("--following", help="Of a series: --date and all after it.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Give seats back; labs that run are collected and stopped. A series is given back as a whole, or by date."""
    run = session(context)
    reservations = [name for name in reservations if name != "series"]
    terms = [name for name in reservations if name.startswith("ser-")]
    if (date is not None or following) and len(terms) != len(reservations):
        from lablet_client.cli.failures import WrongUsage

        raise WrongUsage("--date and --following are about series (ser-…)")
    people = output not in (Format.JSON, Format.YAML)
    done: list[Mapping[str, Any]] = []

    async def work(client: "Client") -> None:
        for name in (name for name in reservations if name not in terms):
            booking = await client.reservations.cancel(name, reason=reason)
            done.append(booking.to_dict())
            if people:
                run.console.print(f"{booking.id} is [dim]{booking.phase}[/]")

    try:
        for name in terms:
            from lablet_client.cli.series import give_back, tell_done, with_done

            series, what = give_back(run, name, date, following, reason)
            done.append(with_done(series, what))
            if people:
                tell_done(run, series, what, verb="cancelled")
        run.run(work)
    finally:  # what was given back before one was refused is told as well
        answer(run.console, {"items": done}, output, lambda: None)


@app.command()
def confirm(
    context: typer.Context, reservation: Annotated[str, typer.Argument()], output: Output = Format.TABLE
) -> None:
    """Turn a hold into a booking."""
    run = session(context)

    async def work(client: "Client") -> "tuple[Reservation, LabTime]":
        return await client.reservations.confirm(reservation), await client.lab_time()

    booking, now = run.run(work)
    answer(run.console, booking.to_dict(), output, lambda: _tell(run, booking, now))


@app.command()
def extend(
    context: typer.Context,
    reservation: Annotated[str, typer.Argument()],
    by: Annotated[str | None, typer.Option(help='For so much longer: "30m". A minus shortens: "-30m".')] = None,
    end: Annotated[str | None, typer.Option("--end", "-e", help="Until then.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Move the end of a reservation."""
    run = session(context)

    async def work(client: "Client") -> "tuple[Reservation, LabTime]":
        from lablet_client.cli.failures import WrongUsage
        from lablet_client.cli.times import parse_span, parse_time

        if (by is None) == (end is None):
            raise WrongUsage("give --by or --end, one of the two")
        now = await client.lab_time()
        booking = await client.reservations.get(reservation)
        if booking.slot is None:
            raise WrongUsage(f"{booking.id} has no slot yet: it waits for the first that is free")
        if by is not None:
            span = usage("--by", lambda: parse_span(by.removeprefix("-")))
            wanted = booking.slot.end + (-span if by.startswith("-") else span)
        else:
            wanted = usage("--end", lambda: parse_time(end or "", now.now))
        return await client.reservations.change(booking, end=wanted), now

    changed, now = run.run(work)
    answer(run.console, changed.to_dict(), output, lambda: _tell(run, changed, now))


@app.command(name="open")
def open_seat(
    context: typer.Context,
    reservation: Annotated[
        str | None, typer.Argument(help="A reservation, or one of its instances (default: what is mine by now).")
    ] = None,
    seat: Annotated[int | None, typer.Option(help="This seat only.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the way into a lab: when, where, state, time left, consoles."""
    from lablet_client.cli.seats import mine, nothing_mine, say_more_time

    run = session(context)

    async def work(client: "Client") -> "tuple[list[tuple[Reservation | None, list[Access]]], LabTime]":
        now = await client.lab_time()
        if reservation is not None and reservation.startswith("ins-"):
            return [(None, [await client.instances.access(reservation)])], now
        bookings = await mine(client) if reservation is None else [await client.reservations.get(reservation)]
        return [(booking, await _accesses(client, booking, seat)) for booking in bookings], now

    found, now = run.run(work)
    if not found:
        nothing_mine(run, output)
        return
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, [access.to_dict() for _, accesses in found for access in accesses], output)
        return
    for booking, accesses in found:
        if booking is not None:
            _tell(run, booking, now)
            say_more_time(run, booking)
        for access in accesses:
            _show_access(run, access)


async def _accesses(client: "Client", booking: "Reservation", seat: int | None) -> "list[Access]":
    """Of every seat that is the caller's own and has a lab by now."""
    from lablet_client.errors import Forbidden, NotFound

    found: list[Access] = []
    for place in booking.status.placement:
        if seat is not None and place.seat != seat:
            continue
        try:
            found.append(await client.instances.access(place.instance))
        except (NotFound, Forbidden):
            if seat is not None:
                raise
    return found


def _show_access(run: Session, access: "Access") -> None:
    from lablet_client.cli.access import endpoints, heading

    run.console.print()
    run.console.print(heading(access))
    rows = endpoints(access)
    if rows:
        table = plain_table("PORT", "ADDRESS", "OPEN WITH")
        for row in rows:
            table.add_row(*row)
        run.show(table)


def _tell(run: Session, booking: "Reservation", now: "LabTime") -> None:
    """What has become of a booking, in a few lines."""
    from rich.markup import escape

    from lablet_client.cli.explain import verdict
    from lablet_client.cli.tables import STYLES
    from lablet_client.cli.times import show_age, show_slot

    style = STYLES.get(str(booking.phase), "")
    run.console.print(f"{booking.id}  [{style or 'default'}]{booking.phase}[/]  {escape(verdict(booking, now.now))}")
    slot = booking.slot
    places = ", ".join(f"{seat} on {worker}" for worker, seat in _by_worker(booking))
    run.console.print(
        pairs(
            [
                ("lab", f"{booking.spec.definition}, {_seats(booking.spec.seats)}"),
                (
                    "slot",
                    f"{show_slot(slot.start, slot.end, now.now)} ({show_age(slot.start, now.now)})" if slot else "",
                ),
                ("placed", places),
            ]
        )
    )


def _by_worker(booking: "Reservation") -> Sequence[tuple[str, str]]:
    workers: dict[str, list[int]] = {}
    for place in booking.status.placement:
        workers.setdefault(place.worker, []).append(place.seat)
    return [
        (worker, f"seat{'s' if len(numbers) > 1 else ''} {_ranges(numbers)}") for worker, numbers in workers.items()
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """`1–3, 5`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in spans)


def _seats(count: int) -> str:
    return "1 seat" if count == 1 else f"{count} seats"


def minutes_of(duration: str | None) -> int | None:
    """A length in whole minutes. Raises `WrongUsage`."""
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import parse_span

    if duration is None:
        return None
    length: timedelta = usage("--duration", lambda: parse_span(duration))
    if length < timedelta(minutes=1):
        raise WrongUsage("--duration: a slot lasts a minute at least")
    return round(length.total_seconds() / 60)


def _slot(
    start: str | None, end: str | None, duration: str | None, now: "LabTime", zone: tzinfo | None = None
) -> Mapping[str, Any]:
    """The slot's fields of the body; times without a zone are meant in `zone`. Raises `WrongUsage`."""
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import parse_time, show_slot

    minutes = minutes_of(duration)
    if start is None:
        if end is not None or minutes is None:
            raise WrongUsage("how long? Give --duration (as soon as possible), or --start with --end or --duration")
        return {"asap": True, "duration_minutes": minutes}
    begin = usage("--start", lambda: parse_time(start, now.now, zone))
    if (end is None) == (minutes is None):
        raise WrongUsage("give --end or --duration, one of the two")
    if minutes is not None:
        return {"start": begin, "duration_minutes": minutes}
    until = usage("--end", lambda: parse_time(end or "", now.now, zone))
    if until <= begin:
        raise WrongUsage(f"--end: the slot would end before it begins ({show_slot(begin, until, now.now)})")
    return {"start": begin, "end": until}


def _until(option: str, text: str, now: "LabTime") -> Any:
    """A moment given as one, or as a span from now."""
    from lablet_client.cli.times import WrongTime, parse_span, parse_time

    try:
        return now.now + parse_span(text)
    except WrongTime:
        return usage(option, lambda: parse_time(text, now.now))


def usage(option: str, parse: Any) -> Any:
    """What `parse` gives. Raises `WrongUsage` naming the option."""
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime

    try:
        return parse()
    except WrongTime as error:
        raise WrongUsage(f"{option}: {error}") from error


def roster_of(path: Path, seats: int) -> Sequence[tuple[int, str]]:
    """A user a line, seats in order; or `seat,user` lines. Raises `WrongUsage` naming the line."""
    from lablet_client.cli.documents import text_of
    from lablet_client.cli.failures import WrongUsage

    entries: list[tuple[int, str]] = []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text or text.lower().replace(" ", "") == "seat,user":
            continue
        first, comma, rest = (part.strip() for part in text.partition(","))
        if comma and not first.isdigit():
            raise WrongUsage(f"--roster: line {number} of {path} is neither `user` nor `seat,user`: {text!r}")
        entries.append((int(first), rest) if comma else (len(entries) + 1, first))
    beyond = [entry for entry in entries if not 1 <= entry[0] <= seats]
    if beyond:
        raise WrongUsage(f"--roster: {beyond[0][1]} would sit on seat {beyond[0][0]}, but there are {_seats(seats)}")
    return entries
