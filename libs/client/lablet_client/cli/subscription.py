"""`lablet subscription …`: events sent to an address of yours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, answer, pairs, table_of, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.subscription import Subscription, SubscriptionSecret

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME")]
SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", help="Write the signing secret there instead of showing it.")
]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    sink: Annotated[str, typer.Argument(metavar="URL", help="http or https.")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help='Only types that begin so: "io.lablet.reservation.".')
    ] = None,
    subjects: Annotated[
        list[str] | None, typer.Option("--subject", help='Only subjects that begin so: "reservation/".')
    ] = None,
    label: Annotated[str, typer.Option("--label", "-l", help="Only resources with these labels (a selector).")] = "",
    binary: Annotated[bool, typer.Option("--binary", help="Attributes as headers, the data as the body.")] = False,
    secret_file: SecretFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Send events to an address, from now on."""
    from lablet_client.cli.secret_file import opened

    run = session(context)

    async def work(client: "Client") -> "SubscriptionSecret":
        return await client.subscriptions.create(
            name,
            sink,
            types=types or (),
            subjects=subjects or (),
            label_selector=label,
            mode="binary" if binary else "structured",
        )

    with opened(secret_file) as write:
        made = run.run(work)
        write(made.secret)
    _tell_secret(run, made, secret_file, output, f"{name} sends to {sink}")


@app.command(name="list")
def list_subscriptions(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List them."""
    run = session(context)

    async def work(client: "Client") -> "tuple[list[Subscription], Any]":
        return [found async for found in client.subscriptions.list()], (await client.lab_time()).now

    found, now = run.run(work)
    documents = [subscription.to_dict() for subscription in found]
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, documents, output)
    elif not documents:
        run.console.print("no subscriptions: `lablet subscription create NAME URL` makes one")
    else:
        run.show(table_of("subscription", documents, now, wide=output is Format.WIDE))


@app.command()
def get(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Show one: what it hears, how sending goes, the last error."""
    run = session(context)
    found = run.run(lambda client: client.subscriptions.get(name))
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, found.to_dict(), output)
        return
    spec, status = found.spec, found.status
    error = status.last_error
    told = error and f"{error.message} ({error.subject}, try {error.attempts}, {error.at:%Y-%m-%d %H:%M:%S} UTC)"
    run.console.print(
        pairs(
            [
                ("name", found.id),
                ("sink", spec.sink),
                ("state", f"{status.phase}: {status.message or status.reason}" if status.reason else status.phase),
                ("types", ", ".join(spec.types)),
                ("subjects", ", ".join(spec.subjects)),
                ("labels", spec.label_selector),
                ("mode", spec.mode),
                ("delivered", str(status.delivered)),
                ("dead letters", str(status.dead_lettered) if status.dead_lettered else ""),
                ("last error", told),
            ]
        )
    )


@app.command()
def delete(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """End it; what has not been sent is not sent any more."""
    run = session(context)
    run.run(lambda client: client.subscriptions.delete(name))
    answer(run.console, {"deleted": [name]}, output, lambda: run.console.print(f"{name} is deleted", markup=False))


@app.command()
def redeliver(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Send its dead letters once more."""
    run = session(context)
    count = run.run(lambda client: client.subscriptions.redeliver(name))
    words = (
        f"{count} dead letter{'' if count == 1 else 's'} of {name} will be sent again" if count else "no dead letters"
    )
    answer(run.console, {"redelivered": count}, output, lambda: run.console.print(words, markup=False))


@app.command()
def pause(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Send nothing for a while; what happens meanwhile is sent afterwards."""
    _change(session(context), name, output, paused=True)


@app.command()
def resume(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Go on, also after the sink's 410 had paused it."""
    _change(session(context), name, output, paused=False)


@app.command(name="rotate-secret")
def rotate_secret(
    context: typer.Context, name: Name, secret_file: SecretFile = None, output: Output = Format.TABLE
) -> None:
    """Make a new signing secret; for a day the old one signs too."""
    from lablet_client.cli.secret_file import opened

    run = session(context)
    with opened(secret_file) as write:
        made = run.run(lambda client: client.subscriptions.rotate_secret(name))
        write(made.secret)
    _tell_secret(run, made, secret_file, output)


def _change(run: Session, name: str, output: Format, *, paused: bool) -> None:
    from lablet_common.resources.subscription import SubscriptionChange

    changed = run.run(lambda client: client.subscriptions.change(name, SubscriptionChange(paused=paused)))
    told = f"{name} is {changed.phase}"
    answer(run.console, changed.to_dict(), output, lambda: run.console.print(told, markup=False))


def _tell_secret(run: Session, made: "SubscriptionSecret", path: Path | None, output: Format, first: str = "") -> None:
    """The secret stands in the answer only where no file was named for it."""

    def say() -> None:
        told = f"the secret, shown this once: {made.secret}" if path is None else f"the secret is in {path}"
        run.console.print(f"{first}\n{told}" if first else told, markup=False)

    shown = {"subscription": made.subscription.to_dict()} | ({"secret": made.secret} if path is None else {})
    answer(run.console, shown, output, say)
