"""`lablet quota …`: how much a tenant, and each of its owners, may have open."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_common.quotas import Limits, Quota, QuotaState

app = typer.Typer(no_args_is_help=True)
_TENANT = Annotated[str, typer.Argument(metavar="TENANT")]
_NONE = "none takes the limit away"
_ROWS = (
    ("open seats", "open_seats"),
    ("open seat-hours", "open_seat_hours"),
    ("longest slot, minutes", "longest_slot_minutes"),
    ("furthest ahead, days", "furthest_ahead_days"),
    ("total extension, minutes", "total_extension_minutes"),
)


@app.command()
def get(context: typer.Context, tenant: _TENANT = "default", output: Output = Format.TABLE) -> None:
    """Show the limits and what is open."""
    run = session(context)
    tell(run, run.run(lambda client: client.quotas.get(tenant)), output)


@app.command(name="set")
def set_(
    context: typer.Context,
    tenant: _TENANT = "default",
    per_owner: Annotated[
        bool, typer.Option("--per-owner", help="Of each owner, not of the tenant as a whole.")
    ] = False,
    seats: Annotated[str | None, typer.Option("--open-seats", help=f"Seats that are not over ({_NONE}).")] = None,
    hours: Annotated[str | None, typer.Option("--open-seat-hours", help="Their seats times their slots.")] = None,
    longest: Annotated[str | None, typer.Option("--longest", help='The longest slot: "4h".')] = None,
    ahead: Annotated[str | None, typer.Option("--ahead", help='The latest start, from now: "30d".')] = None,
    extension: Annotated[str | None, typer.Option("--extension", help='All extensions of one booking: "2h".')] = None,
    retention: Annotated[
        str | None,
        typer.Option("--retention", help='How long the tenant\'s collected work is kept: "400d" (none: as is usual).'),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Set limits, and how long work is kept; what is left out stays, and what is open already, too."""
    from lablet_client.cli.failures import WrongUsage

    run = session(context)
    wanted: dict[str, int | None] = {}
    for option, name, text in (("--open-seats", "open_seats", seats), ("--open-seat-hours", "open_seat_hours", hours)):
        if text is not None:
            wanted[name] = _number(option, text)
    for option, name, text, unit in (
        ("--longest", "longest_slot_minutes", longest, timedelta(minutes=1)),
        ("--ahead", "furthest_ahead_days", ahead, timedelta(days=1)),
        ("--extension", "total_extension_minutes", extension, timedelta(minutes=1)),
    ):
        if text is not None:
            wanted[name] = _span(option, text, unit)
    kept: dict[str, int | None] = {}
    if retention is not None:
        if per_owner:
            raise WrongUsage("--retention is the tenant's as a whole: leave out --per-owner")
        kept["retention_days"] = _span("--retention", retention, timedelta(days=1))
        if kept["retention_days"] == 0:
            raise WrongUsage("--retention: work is kept for a day at least")
    if not wanted and not kept:
        raise WrongUsage("nothing to set: give one of the limits, or --retention")

    def change(present: "Quota") -> "Quota":
        scope = "owner" if per_owner else "tenant"
        limits = getattr(present, scope).model_copy(update=wanted)
        return present.model_copy(update={scope: limits, **kept})

    tell(run, run.run(lambda client: client.quotas.set(tenant, change)), output)


def tell(run: Session, state: "QuotaState", output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, state.to_dict(), output)
        return
    table = plain_table("LIMIT", f"TENANT {state.tenant}", "EACH OWNER")
    for title, name in _ROWS:
        table.add_row(title, _limit(state.limits.tenant, name), _limit(state.limits.owner, name))
    run.show(table)
    if state.limits.retention_days is not None:
        run.console.print(f"collected work is kept for {state.limits.retention_days:g} days", markup=False)
    if state.used is None:
        run.console.print("nothing is counted: no limits, or no decision since they were set", markup=False)
        return
    used = plain_table("OPEN NOW", "SEATS", "SEAT-HOURS")
    for owner, usage in [("all", state.used), *sorted(state.owners.items())]:
        used.add_row(owner or "(no owner)", str(usage.seats), f"{usage.seat_minutes / 60:g}")
    run.show(used)


def _limit(limits: "Limits", name: str) -> str:
    found: Any = getattr(limits, name)
    return "–" if found is None else str(found)


def _number(option: str, text: str) -> int | None:
    from lablet_client.cli.failures import WrongUsage

    if text.lower() == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise WrongUsage(f"{option}: {text!r} is no number: write a whole one, or none")
    return int(text)


def _span(option: str, text: str, unit: timedelta) -> int | None:
    from lablet_client.cli.booking import usage
    from lablet_client.cli.times import parse_span

    if text.lower() == "none":
        return None
    span: timedelta = usage(option, lambda: parse_span(text))
    return int(span / unit)
