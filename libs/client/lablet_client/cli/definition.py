"""`lablet definition …`: publish a lab file, fetch it again, take a version out of use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, pairs, write_data
from lablet_client.cli.session import session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.definition import Definition

app = typer.Typer(no_args_is_help=True)


@app.command()
def publish(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A CML topology file.")],
    name: Annotated[str | None, typer.Option(help="(default: the file's name)")] = None,
    version: Annotated[str | None, typer.Option(help="(default: the next patch version)")] = None,
    override: Annotated[
        Path | None,
        typer.Option("--spec", exists=True, dir_okay=False, help="YAML with fields that win over the file."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Publish a lab. What it needs is inferred from the file."""
    from lablet_client.cli.failures import WrongUsage

    run = session(context)
    content = file.read_bytes()
    if not content.strip():
        raise WrongUsage(f"{file} is empty")
    overrides = _overrides(override) if override else None
    word = name or name_of(file)

    async def work(client: "Client") -> "Definition":
        return await client.definitions.publish(content, name=word, version=version, overrides=overrides)

    run.notes.append(f"publishing {word} …")
    found = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, found.to_dict(), output)
        return
    spec, needs = found.spec, found.spec.requirements
    run.console.print(f"[green]{found.phase}[/] [bold]{found.id}[/]  ", end="")
    run.console.print(spec.title, markup=False)
    run.console.print(
        pairs(
            [
                ("needs", f"{needs.cpu_cores:g} CPU cores, {needs.memory_gb:g} GB of memory, {needs.node_count} nodes"),
                ("ports", ", ".join(port.name for port in spec.ports)),
                ("licences", ", ".join(str(kind) for kind in spec.licenses)),
            ]
        )
    )


@app.command()
def topology(context: typer.Context, definition: Annotated[str, typer.Argument(help="name or name@version")]) -> None:
    """Write the lab file to standard output, byte by byte as it was published."""
    run = session(context)
    content = run.run(lambda client: client.definitions.topology(definition))
    typer.echo(content, nl=False)


@app.command()
def approve(
    context: typer.Context,
    definition: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    output: Output = Format.TABLE,
) -> None:
    """Let agents run a version's processes on their hosts (for operators)."""
    from lablet_client.cli.failures import WrongUsage

    if "@" not in definition:
        raise WrongUsage(f"which version of {definition}? Write it as {definition}@1.0.0")
    run = session(context)
    found = run.run(lambda client: client.definitions.approve(definition))
    word = found.status.approved
    told = f"{found.id} may run on agents" + (f" (approved by {word.by})" if word else "")
    answer(run.console, found.to_dict(), output, lambda: run.console.print(told, markup=False))


@app.command()
def deprecate(
    context: typer.Context,
    definition: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    output: Output = Format.TABLE,
) -> None:
    """Take a version out of use for new bookings."""
    from lablet_client.cli.failures import WrongUsage

    if "@" not in definition:
        raise WrongUsage(f"which version of {definition}? Write it as {definition}@1.0.0")
    run = session(context)
    found = run.run(lambda client: client.definitions.deprecate(definition))
    told = f"{found.id} is [dim]{found.phase}[/]"
    answer(run.console, found.to_dict(), output, lambda: run.console.print(told))


@app.command()
def archive(
    context: typer.Context,
    definition: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    output: Output = Format.TABLE,
) -> None:
    """End a version for good: it can no longer be booked, and its file may be deleted."""
    from lablet_client.cli.failures import WrongUsage

    if "@" not in definition:
        raise WrongUsage(f"which version of {definition}? Write it as {definition}@1.0.0")
    run = session(context)
    found = run.run(lambda client: client.definitions.archive(definition))
    told = f"{found.id} is [dim]{found.phase}[/]"
    answer(run.console, found.to_dict(), output, lambda: run.console.print(told))


def name_of(file: Path) -> str:
    """`OSPF basics.yaml` → `ospf-basics`."""
    words = "".join(char if char.isalnum() else "-" for char in file.stem.lower()).split("-")
    return "-".join(word for word in words if word)[:63]


def _overrides(file: Path) -> dict[str, Any]:
    from lablet_client.cli.documents import read_documents
    from lablet_client.cli.failures import WrongUsage

    documents = read_documents(file)
    if len(documents) != 1:
        raise WrongUsage(f"{file} must hold one YAML document")
    spec = documents[0].get("spec", documents[0])
    return dict(spec)
