"""`lablet events …`: follow what happens, look up what happened, send."""

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_client.events import Event

app = typer.Typer(no_args_is_help=True)


@app.command()
def tail(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="reservation, instance, worker …")] = None,
    identity: Annotated[str | None, typer.Option("--id", help="Of one resource only.")] = None,
    correlation: Annotated[str | None, typer.Option(help="Everything that one request led to.")] = None,
    labels: Annotated[str | None, typer.Option("--selector", "-l", help="Label selector.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this place in the stream.")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after so many.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show events as they happen, over lost connections, until Ctrl-C."""
    from lablet_client.cli.look import as_generator, say_when_lost

    run = session(context)

    async def work(client: "Client") -> None:
        from lablet_client.events import Filter

        wanted = Filter(kind=kind, id=identity, correlation=correlation, label=labels)

        def lost() -> None:
            run.aside.print("[yellow]the stream has begun anew: events may be missing[/]")

        stream = client.events.watch(wanted, after=after, on_state=say_when_lost(run), on_reset=lost)
        left = count
        async with aclosing(as_generator(stream)) as events:
            async for event in events:
                _write(run, event, output)
                left = left - 1 if left is not None else None
                if left == 0:
                    return

    run.run(work, draws=True)


@app.command()
def history(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="KIND/ID, or the id of a reservation, instance or request.")],
    output: Output = Format.TABLE,
) -> None:
    """Show everything that has happened to one resource, in order."""
    from lablet_client.cli.times import show_time

    run = session(context)
    full = _subject(subject)

    async def work(client: "Client") -> "tuple[tuple[Event, ...], datetime]":
        return await client.events.history(full), (await client.lab_time()).now

    found, now = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, [event.document() for event in found], output)
        return
    if not found:
        run.aside.print(f"no events of {full}", markup=False)
        return
    table = plain_table("WHEN", "EVENT", "PHASE", "REASON", "SOURCE")
    for move in _untold(found):
        when = show_time(datetime.fromisoformat(str(move["at"])), now)
        why = str(move.get("message") or move.get("reason") or "")
        table.add_row(when, "", str(move["to"]), why, str(move.get("by", "")).removeprefix("/lablet/"))
    said = ""
    for event in found:
        phase, reason = _told(event)
        when = show_time(event.time, now) if event.time else ""
        news, said = "" if reason == said else reason, reason
        fact = event.fact.removeprefix(f"{full.partition('/')[0]}.")
        table.add_row(when, fact, phase, news, event.source.removeprefix("/lablet/"))
    run.show(table)


@app.command()
def publish(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="worker.cordon.requested, or the full type.")
    ] = None,
    subject: Annotated[str, typer.Option("--subject", "-s", help="KIND/ID of what it is about.")] = "",
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, or @FILE.")] = "{}",
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", exists=True, dir_okay=False, help="CloudEvents (JSON, one or a list)."),
    ] = None,
    source: Annotated[str, typer.Option(help="Who says so.")] = "/lablet/cli",
    output: Output = Format.TABLE,
) -> None:
    """Send CloudEvents to the mesh and show what became of each."""
    run = session(context)
    events = _events(kind, subject, data, file, source)
    results = run.run(lambda client: client.events.publish(*events))
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, results, output)
    else:
        for event, result in zip(events, results, strict=False):
            _tell_result(run, event, result)
    if any(_problem(result) for result in results):
        raise typer.Exit(1)


def _tell_result(run: Session, event: "Event", result: Mapping[str, Any]) -> None:
    from rich.markup import escape

    problem = _problem(result)
    if problem:
        why = str(problem.get("detail") or problem.get("title"))
        run.console.print(f"[red]✗[/] {escape(event.fact)}: {escape(why)}")
        for error in problem.get("errors") or ():
            if error.get("remedy"):
                run.console.print(f"    [green]→[/] {escape(str(error['remedy']))}")
    else:
        about = " ".join(str(result[name]) for name in ("request", "resource") if result.get(name))
        run.console.print(f"[green]✓[/] {event.fact}: {about}")


def _problem(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = result.get("problem")
    return found if isinstance(found, Mapping) else None


def _events(kind: str | None, subject: str, data: str, file: Path | None, source: str) -> "list[Event]":
    from lablet_client.cli.documents import text_of
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.events import Event, new_event

    if (kind is None) == (file is None):
        raise WrongUsage("give a TYPE with --subject and --data, or --file")
    if file is not None:
        documents = _json(text_of(file), str(file))
        try:
            return [Event.parse(item) for item in (documents if isinstance(documents, list) else [documents])]
        except (KeyError, TypeError, ValueError) as error:
            raise WrongUsage(f"{file}: no CloudEvent: {error}") from error
    text = text_of(Path(data[1:])) if data.startswith("@") else data
    return [new_event(kind or "", subject, _json(text, "--data"), source=source)]


def _json(text: str, place: str) -> Any:
    from lablet_client.cli.failures import WrongUsage

    try:
        return json.loads(text)
    except ValueError as error:
        raise WrongUsage(f"{place} is no JSON: {error}") from error


def _write(run: Session, event: "Event", form: Format) -> None:
    from rich.text import Text

    from lablet_client.cli.tables import STYLES

    if form is Format.JSON:
        run.console.out(json.dumps(event.document(), ensure_ascii=False), highlight=False)
        return
    if form is Format.YAML:
        from lablet_client.cli.output import as_yaml

        run.console.out("---\n" + as_yaml(event.document()).rstrip(), highlight=False)
        return
    phase, reason = _told(event)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{event.time.astimezone():%H:%M:%S}  " if event.time else " " * 10, style="dim")
    text.append(f"{event.fact:<26} ", style=STYLES.get(phase, ""))
    text.append(event.subject.partition("/")[2])
    if reason:
        text.append(f"  {reason}", style="dim")
    run.console.print(text)


def _untold(found: "Sequence[Event]") -> list[Mapping[str, Any]]:
    """Moves that the resource remembers and no event tells any more: those before the first that is left. A state that is
    told in place of forgotten events tells its last move itself."""
    first, data = found[0], found[-1].data
    moves = data.get("status", {}).get("history", ()) if isinstance(data, Mapping) else ()
    if first.extensions.get("replayed"):
        return list(moves[:-1])
    return [move for move in moves if first.time is not None and datetime.fromisoformat(str(move["at"])) < first.time]


def _told(event: "Event") -> tuple[str, str]:
    """Phase and reason of the resource that the event carries."""
    status = event.data.get("status") if isinstance(event.data, Mapping) else None
    if not isinstance(status, Mapping):
        return "", ""
    return str(status.get("phase", "")), str(status.get("message") or status.get("reason") or "")


def _subject(text: str) -> str:
    if "/" in text:
        return text
    for prefix, kind in (("rsv-", "reservation"), ("ins-", "instance"), ("req-", "request")):
        if text.startswith(prefix):
            return f"{kind}/{text}"
    return f"definition/{text}" if "@" in text else f"worker/{text}"
