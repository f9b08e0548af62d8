"""`lablet instance …`: what a seat's lab can be asked for inside its slot."""

from typing import TYPE_CHECKING, Annotated

import typer

from lablet_client.cli.output import Format, Output, answer
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_common.resources.instance import Instance

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="INSTANCE")]


@app.command()
def start(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Start a lab again that was stopped inside its slot."""
    run = session(context)
    _tell(run, run.run(lambda client: client.instances.start(name)), output)


@app.command()
def stop(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Stop a lab before its slot ends; what it has made is collected first. It can be started again for a while."""
    run = session(context)
    _tell(run, run.run(lambda client: client.instances.stop(name)), output)


@app.command()
def collect(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Collect a lab's configurations now; it runs on."""
    run = session(context)
    _tell(run, run.run(lambda client: client.instances.collect(name)), output)


@app.command()
def retry(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Try a failed seat once more, inside its slot."""
    run = session(context)
    _tell(run, run.run(lambda client: client.instances.retry(name)), output)


def _tell(run: Session, instance: "Instance", output: Format) -> None:
    from lablet_client.cli.tables import STYLES

    phase, reason = str(instance.phase), instance.status.reason
    if instance.status.restart:
        reason = "starting again"

    def say() -> None:
        run.console.print(f"{instance.id} is [{STYLES.get(phase) or 'default'}]{phase}[/]", end="")
        run.console.print(f" ({reason})" if reason else "", markup=False)

    answer(run.console, instance.to_dict(), output, say)
