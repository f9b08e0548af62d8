"""`lablet key …`: keys for machines (LMS, CI, graders). A key is shown once, when it is made."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, table_of, write_data
from lablet_client.cli.session import session

if TYPE_CHECKING:
    from lablet_client.client import Client

app = typer.Typer(no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for: lms-sync. It acts as key:NAME.")],
    role: Annotated[
        str, typer.Option(help="admin, operator, instructor, learner, machine, or host (an agent's)")
    ] = "machine",
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="Only this, such as reservations:write; repeatable"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days until it ends")] = 90,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Write the token there (mode 0600), not to the screen")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a key and show its token, this once."""
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.secret_file import opened
    from lablet_client.cli.times import show_time

    run = session(context)
    if file is not None and file.exists():
        raise WrongUsage(f"{file} is there already: a token is not written over anything")
    chosen = [part for value in scopes or [] for part in value.split(",") if part]
    with opened(file, new=True) as write:
        made = run.run(lambda client: client.keys.create(name, role=role, scopes=chosen, days=days))
        if made.token is not None:
            write(made.token)
    if output in (Format.JSON, Format.YAML):
        shown: dict[str, Any] = {"key": made.key.to_dict()} | ({} if file or not made.token else {"token": made.token})
        write_data(run.console, shown, output)
        return
    until = show_time(made.key.spec.expires_at, datetime.now(UTC))
    run.aside.print(f"✓ {made.key.id} acts as key:{name} until {until}", markup=False, soft_wrap=True)
    if file is not None:
        run.aside.print(f"  its token is in {file}: LABLET_TOKEN_FILE={file}", markup=False, soft_wrap=True)
        return
    run.aside.print("  This is its token. It is not kept anywhere and will not be shown again:", soft_wrap=True)
    run.console.out(made.token or "", highlight=False)


@app.command(name="list")
def list_keys(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List the tenant's keys, with when they were last used."""
    run = session(context)

    async def work(client: "Client") -> "tuple[list[Any], Any]":
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = await client.keys.documents(cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found, await client.lab_time()

    found, now = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, {"items": found}, output)
        return
    if not found:
        run.aside.print("no keys")
        return
    run.show(table_of("key", found, now.now, wide=output is Format.WIDE))


@app.command()
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="ID|NAME", help="key-… or the name it was made under")],
    reason: Annotated[str | None, typer.Option(help="Why, for the audit")] = None,
    output: Output = Format.TABLE,
) -> None:
    """End a key at once. A name ends all keys of that name."""
    from lablet_client.cli.failures import WrongUsage, nearest

    run = session(context)

    async def work(client: "Client") -> list[str]:
        keys = [found async for found in client.keys.list()]
        chosen = [found.id for found in keys if key in (found.id, found.spec.name) and found.phase == "Active"]
        if not chosen:
            known = sorted({found.spec.name for found in keys if found.phase == "Active"})
            raise WrongUsage(f"there is no key {key}: {nearest(key, known) if known else 'there are none'}")
        for key_id in chosen:
            await client.keys.revoke(key_id, reason=reason)
        return chosen

    revoked = run.run(work)
    told = "\n".join(f"{key_id} is revoked" for key_id in revoked)
    answer(run.console, {"revoked": revoked}, output, lambda: run.console.print(told))
