"""`lablet artifact …`: what labs have left behind, listed by instance or for the whole tenant, fetched and deleted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, plain_table, write_data
from lablet_client.cli.session import session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.artifact import ArtifactRole

app = typer.Typer(no_args_is_help=True)
_DIGEST_LENGTH = 64
_ROLES = ("topology", "rendered", "collected", "exported", "report")
Role = Annotated[str | None, typer.Option(help=f"One of {', '.join(_ROLES)} (default: all).")]


@app.command(name="list")
def list_artifacts(
    context: typer.Context,
    instance: Annotated[str | None, typer.Argument(metavar="INS-ID", help="(default: the whole tenant's)")] = None,
    role: Role = None,
    output: Output = Format.TABLE,
) -> None:
    """List what is stored, and what each file is called."""
    run = session(context)
    wanted = _role(role)
    rows, older = run.run(lambda client: _rows(client, instance))
    shown = [row for row in rows if wanted in (None, row["role"])]
    if older:
        run.aside.print(f"{older} older uses are not listed: a file shows its latest, an instance all that it has")
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, shown, output)
        return
    if not shown:
        run.aside.print("nothing is stored")
        return
    table = plain_table("SUBJECT", "ROLE", "NAME", "ATTEMPT", "BYTES", "DIGEST")
    for row in shown:
        digest = row["digest"] if output is Format.WIDE else row["digest"][:12]
        cells = (row["subject"], row["role"], row["name"], row["attempt"], row["bytes"], digest)
        table.add_row(*(str(cell) for cell in cells))
    run.show(table)


@app.command()
def get(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="DIGEST|INS-ID", help="The beginning of a digest will do.")],
    to: Annotated[Path | None, typer.Option(help="File, or for an instance folder (default: its id).")] = None,
    role: Role = None,
    link: Annotated[bool, typer.Option("--link", help="Print a link that works for a while, instead.")] = False,
) -> None:
    """Fetch one object, or everything that an instance has left into a folder."""
    run = session(context)
    wanted = _role(role)

    async def work(client: "Client") -> None:
        if what.startswith("ins-"):
            folder = to or Path(what)
            for file in await client.instances.artifacts(what):
                if wanted not in (None, file.role):
                    continue
                target = folder / str(file.attempt) / file.role / Path(file.name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(await client.artifacts.download(file.digest, instance=what))
                run.console.print(str(target), markup=False, highlight=False, soft_wrap=True)
            return
        digest = await _digest(client, what)
        if link:
            run.console.print((await client.artifacts.link(digest)).url, markup=False, highlight=False, soft_wrap=True)
            return
        data = await client.artifacts.download(digest)
        if to is None:
            typer.echo(data, nl=False)
        else:
            to.write_bytes(data)

    run.run(work)


@app.command()
def delete(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="DIGEST|INS-ID")],
    role: Role = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete one object, or everything that an instance has left. There is no way back."""
    run = session(context)
    wanted = _role(role)
    if not yes:
        typer.confirm(f"delete {'everything' if wanted is None else wanted} of {what} for good?", abort=True, err=True)

    async def work(client: "Client") -> str:
        if what.startswith("ins-"):
            await client.artifacts.delete_of(what, role=wanted)
            return what
        digest = await _digest(client, what)
        await client.artifacts.delete(digest, role=wanted)
        return digest

    gone = run.run(work)
    told = f"what {gone} had is deleted"
    answer(run.console, {"deleted": [gone]}, output, lambda: run.console.print(told, highlight=False))


async def _rows(client: "Client", instance: str | None) -> tuple[Sequence[Mapping[str, Any]], int]:
    """A row for each use, and how many older uses there are that no list has."""
    if instance is not None:
        subject = f"instance/{instance}"
        return [{"subject": subject, **file.to_dict()} for file in await client.instances.artifacts(instance)], 0
    artifacts = [artifact async for artifact in client.artifacts.list(page_size=500)]
    rows = [
        {
            "subject": reference.subject,
            "role": reference.role,
            "name": reference.name,
            "attempt": reference.attempt,
            "bytes": artifact.spec.bytes,
            "mediaType": artifact.spec.media_type,
            "digest": artifact.id,
        }
        for artifact in artifacts
        for reference in artifact.status.references
    ]
    return rows, sum(artifact.status.older_references for artifact in artifacts)


async def _digest(client: "Client", beginning: str) -> str:
    """The one digest that begins so."""
    from lablet_client.cli.failures import WrongUsage

    if len(beginning) == _DIGEST_LENGTH:
        return beginning
    found = [one.id async for one in client.artifacts.list(page_size=500) if one.id.startswith(beginning.lower())]
    if len(found) != 1:
        said = "none" if not found else f"{len(found)}"
        raise WrongUsage(
            f"{beginning!r} must begin exactly one digest: {said} begins so (lablet artifact list -o wide)"
        )
    return found[0]


def _role(role: str | None) -> "ArtifactRole | None":
    from typing import cast

    if role is not None and role not in _ROLES:
        raise typer.BadParameter(f"{role!r} is none of {', '.join(_ROLES)}", param_hint="--role")
    return cast("ArtifactRole | None", role)
