"""Looking: get, describe, explain, version."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, as_yaml, pairs, plain_table, table_of, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client, LabTime
    from lablet_common.loads import WorkerLoad
    from lablet_common.resources.reservation import Reservation

app = typer.Typer()
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")
Kind = Annotated[str, typer.Argument(help="reservations, series, instances, definitions, workers, pools, templates …")]


@app.command()
def get(
    context: typer.Context,
    kind: Kind,
    name: Annotated[str | None, typer.Argument(metavar="ID")] = None,
    labels: Annotated[
        str | None, typer.Option("--selector", "-l", help="Label selector: course=ccna-1,group!=b")
    ] = None,
    fields: Annotated[str | None, typer.Option("--fields", "-f", help="Field selector: status.phase=Scheduled")] = None,
    output: Output = Format.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
) -> None:
    """List resources of a kind, or get one."""
    run = session(context)
    word = _kind(kind)

    async def work(client: "Client") -> "tuple[Sequence[Mapping[str, Any]], LabTime]":
        return await _documents(client, word, name, labels, fields), await client.lab_time()

    found, now = run.run(work)
    documents = output in (Format.JSON, Format.YAML)
    if documents and not watch:
        write_data(run.console, found[0] if name is not None else {"items": list(found)}, output)
        return
    if documents:
        for one in found:
            _show_document(run, one, output)
    elif found or not watch:
        _show(run, word, found, now.now, output)
    if watch:
        run.run(lambda client: _watch(run, client, word, name, labels, output, found), draws=True)


@app.command()
def describe(
    context: typer.Context,
    kind: Kind,
    name: Annotated[str, typer.Argument(metavar="ID")],
    output: Output = Format.TABLE,
) -> None:
    """Show everything about one resource: what was wanted, what is, and what happened."""
    from lablet_client.errors import NotFound, Refused

    run = session(context)
    word = _kind(kind)
    dates: list[Reservation] = []
    loads: list[WorkerLoad | None] = []

    async def work(client: "Client") -> "tuple[Mapping[str, Any], Sequence[Any], LabTime]":
        document = (await _documents(client, word, name, None, None))[0]
        if word == "series":
            dates.extend(await client.series.dates(document["metadata"]["id"]))
        identity = document["metadata"]["id"]
        if word == "worker":
            try:
                loads.append(await client.workers.load(identity))
            except NotFound:  # a gateway of an earlier release, or the worker has just been taken away
                loads.append(None)
        try:
            events = await client.events.history(f"{word}/{identity}")
        except Refused as error:
            run.aside.print(f"the events cannot be shown: {error}", style="yellow", markup=False)
            events = ()
        return document, events, await client.lab_time()

    document, events, now = run.run(work)
    if output in (Format.JSON, Format.YAML):
        told = {"load": loads[0].to_dict()} if loads and loads[0] is not None else {}
        write_data(run.console, {**document, **told, "events": [event.document() for event in events]}, output)
        return
    _describe(run, document, events, now.now)
    for load in loads:
        _tell_load(run, load, now.now)
    if word == "series":
        from lablet_client.cli.series import tell_dates
        from lablet_common.resources.series import Series

        run.console.print("\n[bold]dates[/]")
        tell_dates(run, Series.model_validate(document, extra="ignore"), dates)


@app.command()
def explain(
    context: typer.Context, reservation: Annotated[str, typer.Argument()], output: Output = Format.TABLE
) -> None:
    """Say why a reservation is as it is, and what would fit."""
    from lablet_client.cli.explain import answer

    run = session(context)

    async def work(client: "Client") -> Any:
        booking = await client.reservations.get(reservation)
        return booking, await client.reservations.explanation(reservation), await client.lab_time()

    booking, why, now = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, why.to_dict() if why else None, output)
        return
    for paragraph in answer(booking, why, now.now):
        run.console.print(paragraph, markup=False)


@app.command()
def version(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Show the versions of the command and of the mesh, and who we are to it."""
    from lablet_client.errors import LabletError
    from lablet_common.version import __version__

    run = session(context)
    rows: dict[str, Any] = {"client": __version__}

    async def work(client: "Client") -> None:
        rows["url"] = client.connection.url
        rows["server"] = dict(await client.version())
        rows["me"] = dict(await client.whoami())

    try:
        run.run(work)
    except LabletError:
        if output is Format.TABLE:
            run.console.print(f"lablet {__version__}")
        raise
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, rows, output)
        return
    me = rows["me"]
    who = f"{me.get('name', '?')}, role {me.get('role', '?')}, tenant {me.get('tenant', '?')}"
    run.console.print(
        pairs(
            [("lablet", __version__), ("mesh", f"{rows['server'].get('version', '?')} at {rows['url']}"), ("you", who)]
        )
    )


async def _documents(
    client: "Client", word: str, name: str | None, labels: str | None, fields: str | None
) -> Sequence[Mapping[str, Any]]:
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.errors import NotFound

    if word == "request":
        if name is None:
            raise WrongUsage("requests are looked up one by one: lablet get request REQ-ID")
        return [(await client.requests.get(name)).to_dict()]
    if word == "artifact":
        if name is None or not name.startswith("ins-"):
            raise WrongUsage(
                "artifacts are listed for an instance: lablet get artifacts INS-ID (all of them: lablet artifact list)"
            )
        return [artifact.to_dict() for artifact in await client.instances.artifacts(name)]
    room = client.collections[word]
    if name is not None:
        try:
            return [await room.document(name)]
        except NotFound as error:
            raise await _with_nearest(client, word, name, error) from error
    found: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await room.documents(labels=labels, fields=fields, limit=500, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def _with_nearest(client: "Client", word: str, name: str, error: Exception) -> Exception:
    """The same refusal with the names that come nearest."""
    from difflib import get_close_matches

    from lablet_client.errors import NotFound

    assert isinstance(error, NotFound)
    page = await client.collections[word].documents(limit=500)
    names = [str(item["metadata"]["id"]) for item in page.items]
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if not close:
        return error
    remedy = {"path": "", "message": f"did you mean {' or '.join(close)}?"}
    return NotFound(error.status, {**error.problem, "errors": [remedy]})


async def _watch(
    run: Session,
    client: "Client",
    word: str,
    name: str | None,
    labels: str | None,
    output: Format,
    found: Sequence[Mapping[str, Any]],
) -> None:
    """A line for each change, for ever. What the table showed already is not shown again."""
    from lablet_client.events import Filter

    wanted = Filter(kind=word, id=name, label=labels)
    known = {str(one["metadata"]["id"]): one for one in found}
    events = client.events.watch(wanted, on_state=say_when_lost(run), on_reset=lambda: None)
    async with aclosing(as_generator(events)) as stream:
        async for event in stream:
            if not isinstance(event.data, Mapping) or "metadata" not in event.data:
                continue
            if output in (Format.JSON, Format.YAML):
                _show_document(run, event.data, output)
            else:
                now = await client.lab_time()
                known[str(event.data["metadata"]["id"])] = event.data
                _show_change(run, word, known, event.data, now.now, output)


async def as_generator(events: AsyncIterator[Any]) -> Any:
    async for event in events:
        yield event


def say_when_lost(run: Session) -> Any:
    state = {"connected": False, "seen": False}

    def tell(connected: bool) -> None:
        if state["seen"] and connected != state["connected"]:
            run.aside.print("[green]connected again[/]" if connected else "[yellow]connection lost, trying again …[/]")
        state["connected"], state["seen"] = connected, True

    return tell


def _show_document(run: Session, document: Mapping[str, Any], form: Format) -> None:
    """One of many: a line of JSON, or a document of a YAML stream."""
    text = json.dumps(document, ensure_ascii=False) if form is Format.JSON else "---\n" + as_yaml(document).rstrip()
    run.console.out(text, highlight=False)


def _show(run: Session, word: str, found: Sequence[Mapping[str, Any]], now: datetime, form: Format) -> None:
    if not found:
        run.aside.print(f"no {word}s")
        return
    run.show(table_of(word, found, now, wide=form is Format.WIDE))


def _show_change(
    run: Session,
    word: str,
    known: Mapping[str, Mapping[str, Any]],
    changed: Mapping[str, Any],
    now: datetime,
    form: Format,
) -> None:
    """One line, its columns where they stand for all that is known."""
    rows = [changed, *(one for one in known.values() if one is not changed)]
    run.show_first(table_of(word, rows, now, wide=form is Format.WIDE))


def _describe(run: Session, document: Mapping[str, Any], events: Sequence[Any], now: datetime) -> None:
    from rich.markup import escape

    from lablet_client.cli.tables import STYLES, at
    from lablet_client.cli.times import show_age, show_time

    meta, status = document["metadata"], document.get("status", {})
    phase = str(status.get("phase", ""))
    run.console.print(f"[bold]{document['kind']} {escape(meta['id'])}[/]  [{STYLES.get(phase) or 'default'}]{phase}[/]")
    made = datetime.fromisoformat(meta["createdAt"])
    labels = " ".join(f"{key}={value}" for key, value in meta.get("labels", {}).items())
    run.console.print(
        pairs(
            [
                ("tenant", meta.get("tenant")),
                ("owner", meta.get("owner")),
                ("labels", labels),
                ("created", f"{show_time(made, now)} ({show_age(made, now)})"),
                ("deleted", meta.get("deletionTimestamp")),
                ("reason", status.get("message") or status.get("reason")),
            ]
        )
    )
    for title in ("spec", "status"):
        rest = {k: v for k, v in document.get(title, {}).items() if k not in _SHOWN_APART and v not in ([], {}, None)}
        if rest:
            run.console.print(f"\n[bold]{title}[/]")
            run.console.print(as_yaml(_readable(rest, now)).rstrip(), markup=False)
    extra = {k: v for k, v in document.items() if k not in ("kind", "metadata", "spec", "status")}
    if extra:
        run.console.print(as_yaml(extra).rstrip(), markup=False)
    _show_seats(run, document)
    _show_conditions(run, document, now)
    moves = at(document, "status.history", [])
    if moves:
        table = plain_table("WHEN", "FROM", "TO", "BY", "REASON")
        for move in moves:
            when = show_time(datetime.fromisoformat(move["at"]), now)
            note = move.get("message") or move.get("reason", "")
            table.add_row(when, move["from"], move["to"], move.get("by", "").removeprefix("/lablet/"), note)
        run.console.print("\n[bold]history[/]")
        run.show(table)
    if events:
        table = plain_table("WHEN", "EVENT", "SEQUENCE", "SOURCE")
        for event in events:
            when = show_time(event.time, now) if event.time else ""
            sequence = event.extensions.get("sequence", "").lstrip("0")
            fact = event.fact.removeprefix(f"{document['kind'].lower()}.")
            table.add_row(when, fact, sequence, event.source.removeprefix("/lablet/"))
        run.console.print("\n[bold]events[/]")
        run.show(table)


def _readable(value: Any, now: datetime) -> Any:
    """The same with its moments as people say them."""
    from lablet_client.cli.times import show_time

    if isinstance(value, Mapping):
        return {name: _readable(part, now) for name, part in value.items()}
    if isinstance(value, list):
        return [_readable(part, now) for part in value]
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return show_time(datetime.fromisoformat(value), now)
    return value


def _show_conditions(run: Session, document: Mapping[str, Any], now: datetime) -> None:
    """What holds, and since when; that an event went out stands among the events."""
    from rich.markup import escape

    from lablet_client.cli.tables import NOTICES, at
    from lablet_client.cli.times import show_time

    told = [c for c in at(document, "status.conditions", []) if c.get("status", True) and c["type"] not in NOTICES]
    if told:
        run.console.print("\n[bold]conditions[/]")
    for condition in told:
        since = show_time(datetime.fromisoformat(condition["since"]), now)
        note = condition.get("message") or condition.get("reason") or ""
        run.console.print(f"[yellow]{condition['type']}[/] since {since}{': ' if note else ''}{escape(note)}")


def _tell_load(run: Session, load: "WorkerLoad | None", now: datetime) -> None:
    """What a worker's machine uses, or that nothing is known of it."""
    from lablet_client.cli.times import show_age

    run.console.print("\n[bold]load[/]")
    if load is None:
        run.console.print("not known: it is off, or does not answer")
        return
    rows = [
        (name, f"{used.ratio:.0%} ({used.used:g} of {used.total:g}{unit})")
        for name, used, unit in (
            ("processors", load.cpu_cores, ""),
            ("memory", load.memory_gb, " GB"),
            ("disk", load.storage_gb, " GB"),
        )
    ]
    run.console.print(pairs([*rows, ("running nodes", str(load.nodes)), ("told", show_age(load.at, now))]))


def _show_seats(run: Session, document: Mapping[str, Any]) -> None:
    """The placement, a line a seat."""
    from lablet_client.cli.tables import at

    seats = at(document, "status.placement", [])
    if not seats:
        return
    table = plain_table("SEAT", "WORKER", "INSTANCE", "PORTS", "STATE")
    for seat in seats:
        ports = ", ".join(f"{name} {port}" for name, port in seat.get("ports", {}).items())
        again = f", attempt {seat['attempt']}" if seat.get("attempt", 1) > 1 else ""
        state = f"{seat.get('state', '')}{again}".removeprefix("placed").removeprefix(", ")
        table.add_row(str(seat["seat"]), seat["worker"], seat["instance"], ports, state)
    run.console.print("\n[bold]seats[/]")
    run.show(table)


_SHOWN_APART = frozenset(
    {"placement", "phase", "history", "conditions", "lastFact", "reason", "message", "occurrences"}
)


def _kind(text: str) -> str:
    from lablet_client.cli.failures import WrongUsage, nearest
    from lablet_client.cli.tables import ALIASES, KINDS, kind_word

    word = kind_word(text)
    if word is None:
        close = nearest(text.lower(), [*(kind if kind.endswith("s") else f"{kind}s" for kind in KINDS), *ALIASES])
        raise WrongUsage(f"there is no kind {text!r}: {close if 'mean' in close else 'known are ' + ', '.join(KINDS)}")
    return word
