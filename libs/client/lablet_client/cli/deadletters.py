"""`lablet dlq …`: messages that nobody could handle, and another chance for them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, as_yaml, pairs, plain_table, write_data
from lablet_client.cli.session import session
from lablet_client.cli.times import show_time

if TYPE_CHECKING:
    from lablet_client.client import Client

app = typer.Typer(no_args_is_help=True)
Consumer = Annotated[str | None, typer.Option(help="Only of this consumer (a webhook's is webhook-NAME).")]


@app.command(name="list")
def list_letters(context: typer.Context, consumer: Consumer = None, output: Output = Format.TABLE) -> None:
    """List them."""
    run = session(context)
    found = run.run(lambda client: client.dead_letters.list(consumer))
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, list(found), output)
        return
    if not found:
        run.console.print("no dead letters: every message was handled")
        return
    table = plain_table("ID", "CONSUMER", "SUBJECT", "ATTEMPTS", "REASON")
    for letter in found:
        table.add_row(*(str(_first(letter, *names)) for names in _COLUMNS))
    run.show(table)


@app.command()
def show(
    context: typer.Context, letter: Annotated[str, typer.Argument(metavar="ID")], output: Output = Format.TABLE
) -> None:
    """Show one with its message."""
    run = session(context)
    found = run.run(lambda client: client.dead_letters.get(letter))
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, dict(found), output)
        return
    rest = dict(found)
    headers, payload = rest.pop("headers", {}), str(rest.pop("payload", ""))
    rest["at"] = show_time(datetime.fromisoformat(rest["at"]), datetime.now(UTC))
    run.console.print(pairs([(name, str(value)) for name, value in rest.items()]))
    for title, text in (("headers", as_yaml(headers) if headers else ""), ("message", _pretty(payload))):
        if text:
            run.console.print(f"\n[bold]{title}[/]")
            run.console.print(text.rstrip(), markup=False)


@app.command()
def replay(
    context: typer.Context,
    letters: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them that are whole.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Send them to their consumers again. One that cannot be is named, and the others go on."""
    from lablet_client.cli.failures import REFUSED, WrongUsage
    from lablet_client.errors import Conflict, NotFound

    run = session(context)
    if bool(letters) == everything:
        raise WrongUsage("say which: ids, or --all")

    people, sent, refused = output not in (Format.JSON, Format.YAML), list[str](), dict[str, str]()

    async def work(client: "Client") -> None:
        found = [] if letters else await client.dead_letters.list()
        chosen = letters or [str(_first(letter, *_COLUMNS[0])) for letter in found if not letter.get("without")]
        for letter in chosen:
            try:
                await client.dead_letters.replay(letter)
            except (Conflict, NotFound) as error:
                refused[letter] = error.sentence
                run.aside.print(f"✗ {letter}: {error.sentence}", markup=False, soft_wrap=True)
                continue
            sent.append(letter)
            if people:
                run.console.print(f"{letter} was sent again")
        if people and not chosen:
            run.console.print("no dead letters")

    try:
        run.run(work)
    finally:  # what was sent before one was refused is told as well
        answer(run.console, {"replayed": sent, "refused": refused}, output, lambda: None)
    if refused:
        raise typer.Exit(REFUSED)


@app.command()
def purge(
    context: typer.Context,
    letters: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    consumer: Consumer = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete them for good."""
    from lablet_client.cli.failures import WrongUsage

    run = session(context)
    if sum((bool(letters), consumer is not None, everything)) != 1:
        raise WrongUsage("say which: ids, --consumer NAME, or --all")

    async def work(client: "Client") -> int:
        if not letters:
            return await client.dead_letters.purge(consumer)
        for letter in letters:
            await client.dead_letters.forget(letter)
        return len(letters)

    count = run.run(work)
    told = f"{count} dead letter{'' if count == 1 else 's'} deleted"
    answer(run.console, {"deleted": count}, output, lambda: run.console.print(told))


_COLUMNS = (
    ("id", "sequence"),
    ("consumer",),
    ("subject", "eventType"),
    ("attempts", "deliveries"),
    ("reason", "error"),
)


def _pretty(payload: str) -> str:
    try:
        return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
    except ValueError:
        return payload  # it may be here because it is no JSON


def _first(letter: Mapping[str, Any], *names: str) -> Any:
    return next((letter[name] for name in names if name in letter), "")
