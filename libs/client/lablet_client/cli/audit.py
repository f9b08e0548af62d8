"""`lablet audit`: who changed what, and one change field by field."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, pairs, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client

app = typer.Typer()
_WIDE = 60
"""Letters of a value that a table shows."""


@app.command(name="audit")
def audit(
    context: typer.Context,
    request: Annotated[str | None, typer.Argument(metavar="REQUEST", help="Show this one, field by field")] = None,
    since: Annotated[str, typer.Option(help="2h, yesterday, 2027-03-01")] = "24h",
    until: Annotated[str | None, typer.Option(help="(default: now)")] = None,
    who: Annotated[str | None, typer.Option("--who", help="Only what this principal asked")] = None,
    subject: Annotated[str | None, typer.Option(help="KIND/ID, or a kind")] = None,
    action: Annotated[str | None, typer.Option(help="reservation.cancel, or a kind")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show who changed what: a line for each change, or one change with its before and after."""
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime, parse_past, show_time

    run = session(context)
    if request is not None:
        found = run.run(lambda client: client.audit.get(request))
        if output in (Format.JSON, Format.YAML):
            write_data(run.console, dict(found), output)
        else:
            _show(run, found)
        return

    async def work(client: "Client") -> "tuple[list[Mapping[str, Any]], datetime]":
        now = (await client.lab_time()).now
        try:
            start, end = parse_past(since, now), parse_past(until, now) if until else None
        except WrongTime as error:
            raise WrongUsage(f"--since, --until: {error}") from error
        entries = client.audit.list(
            principal=who,
            subject=subject,
            action=action,
            outcome="refused" if refused else None,
            start=start,
            end=end,
        )
        return [entry async for entry in entries], now

    entries, now = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, {"items": entries}, output)
        return
    if not entries:
        run.aside.print("no changes in that time")
        return
    from rich.text import Text

    wide = output is Format.WIDE
    table = plain_table("WHEN", "WHO", "ACTION", "SUBJECT", "OUTCOME", "REQUEST", *(["ASKED"] if wide else []))
    for entry in entries:
        outcome = Text(entry["outcome"], "" if entry["outcome"] == "done" else "red")
        asked = [json.dumps(entry.get("data"), ensure_ascii=False)] if wide else []
        when = show_time(datetime.fromisoformat(entry["at"]), now)
        table.add_row(when, entry["principal"], entry["action"], _name(entry), outcome, entry["request"], *asked)
    run.show(table)
    if not any(column.header == "REQUEST" for column in table.columns):
        run.aside.print(
            "[dim]a wider window, or -o json, shows the requests; `lablet audit REQUEST` shows one change[/]"
        )


def _show(run: Session, record: Mapping[str, Any]) -> None:
    entry = record["entry"]
    who = f"{entry['principal']}, {entry['role']}" if entry.get("role") else entry["principal"]
    outcome = f"{entry['outcome']}: {entry['message']}" if entry.get("message") else entry["outcome"]
    run.console.print(
        pairs(
            [
                ("request", entry["request"]),
                ("when", entry["at"]),
                ("who", who),
                ("action", entry["action"]),
                ("subject", entry["subject"]),
                ("outcome", outcome),
                ("asked", json.dumps(entry.get("data"), ensure_ascii=False)),
            ]
        )
    )
    if not record.get("changes"):
        return
    table = plain_table("FIELD", "BEFORE", "AFTER")
    for change in record["changes"]:
        table.add_row(change["path"], _value(change.get("before")), _value(change.get("after")))
    run.console.print()
    run.show(table)


def _name(entry: Mapping[str, Any]) -> str:
    """What was changed; its kind only where the action does not say it."""
    subject = str(entry["subject"])
    return subject.removeprefix(f"{str(entry['action']).partition('.')[0]}/")


def _value(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"
