"""A learner's way: links that give seats (`claims`), taking one (`claim`), and what is mine by now (`open` alone)."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.reservation import Reservation

app = typer.Typer()
_OVER = ("Completed", "Cancelled", "Rejected", "Expired", "Failed")
_MOST = 5
_SOME_DAY = datetime.max.replace(tzinfo=UTC)


@app.command()
def claims(
    context: typer.Context,
    reservation: Annotated[str, typer.Argument()],
    seats: Annotated[list[int] | None, typer.Option("--seat", min=1, help="(default: every free one)")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Links that are out count no more.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make one-time links for the seats of a class. Whoever opens one has the seat."""
    from lablet_client.cli.failures import WrongUsage

    run = session(context)
    if withdraw:
        if seats:
            raise WrongUsage("--withdraw ends all links: leave out --seat")
        run.run(lambda client: client.reservations.withdraw_claims(reservation))
        withdrawn = {"reservation": reservation, "links": []}
        answer(run.console, withdrawn, output, lambda: run.console.print(f"no link for {reservation} counts any more"))
        return
    made = run.run(lambda client: client.reservations.open_claims(reservation, seats=tuple(seats or ())))
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, dict(made), output)
        return
    table = plain_table("SEAT", "SEND THIS TO ITS USER")
    table.columns[1].no_wrap = True
    for link in made["links"]:
        table.add_row(str(link["seat"]), f"lablet claim {link['code']}")
    run.show(table)
    run.aside.print("Each counts once, until the slot ends. They are not shown again.")


@app.command()
def claim(
    context: typer.Context,
    code: Annotated[
        str | None, typer.Argument(help="From whoever booked the class (default: it is asked for, and read unseen).")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Take the seat that a link is for."""
    from lablet_client.cli.times import show_slot

    run = session(context)
    word = code or _asked()

    async def work(client: "Client") -> "tuple[Reservation, str, datetime]":
        booking = await client.reservations.claim(word.strip().rpartition("/")[2])
        me = str((await client.whoami())["name"])
        return booking, me, (await client.lab_time()).now

    booking, me, now = run.run(work)
    seat = next((entry.seat for entry in booking.spec.roster if entry.user == me), None)
    when = f", {show_slot(booking.slot.start, booking.slot.end, now)}" if booking.slot else ""

    def say() -> None:
        run.console.print(f"[green]✓[/] seat {seat} of {booking.spec.definition}{when}", soft_wrap=True)
        run.console.print(f"  `lablet open {booking.id}` shows the way in", soft_wrap=True)

    answer(run.console, {"seat": seat, "reservation": booking.to_dict()}, output, say)


def _asked() -> str:
    """The code, from a pipe or unseen from a terminal. Raises `WrongUsage`."""
    from lablet_client.cli.failures import WrongUsage

    text: str = typer.prompt("code", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        raise WrongUsage("which code? Give it, or write it to standard input")
    return text


async def mine(client: "Client") -> "list[Reservation]":
    """What the caller has booked or sits in and what is not over: what runs first, then by the start."""
    me = str((await client.whoami())["name"])
    found = [
        booking
        async for booking in client.reservations.list(fields=",".join(f"status.phase!={phase}" for phase in _OVER))
        if booking.metadata.owner == me or any(entry.user == me for entry in booking.spec.roster)
    ]

    def place(booking: "Reservation") -> tuple[bool, datetime]:
        return booking.phase != "Active", booking.slot.start if booking.slot else _SOME_DAY

    return sorted(found, key=place)[:_MOST]


def say_more_time(run: Session, booking: "Reservation") -> None:
    """What a seat may still ask for."""
    left = booking.spec.extendable_minutes - booking.status.extended_minutes
    if left > 0 and booking.phase in ("Active", "Scheduled"):
        run.console.print(f"  up to {left} min more may be asked for: lablet extend {booking.id} --by {left}m")


def nothing_mine(run: Session, output: Format) -> Any:
    """The answer where nothing is booked."""
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, [], output)
        return
    run.aside.print("no lab is yours just now: book one with `lablet reserve`, or take a seat with `lablet claim`")
