"""`lablet pool …`: new machines for a whole pool, a few at a time."""

from typing import TYPE_CHECKING, Annotated

import typer

from lablet_client.cli.output import Format, Output, answer
from lablet_client.cli.session import Session, session
from lablet_client.cli.worker import minutes_of

if TYPE_CHECKING:
    from lablet_common.resources.worker import WorkerPool

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="POOL")]


@app.command()
def replace(
    context: typer.Context,
    name: Name,
    max_unavailable: Annotated[
        int, typer.Option("--max-unavailable", min=1, help="Workers that may be out of service at the same time.")
    ] = 1,
    deadline: Annotated[
        str | None, typer.Option(help='Labs still running so long after their worker\'s turn are ended: "90m".')
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="For those whose labs run there.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Give every worker of a pool a new machine."""
    run = session(context)
    minutes = minutes_of("--deadline", deadline)
    _tell(
        run,
        run.run(
            lambda client: client.pools.replace(
                name, max_unavailable=max_unavailable, deadline_minutes=minutes, message=message
            )
        ),
        output,
    )


@app.command(name="cancel-replace")
def cancel_replace(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Ask no further worker; those whose turn has come get their new machines."""
    run = session(context)
    _tell(run, run.run(lambda client: client.pools.cancel_replace(name)), output)


def _tell(run: Session, pool: "WorkerPool", output: Format) -> None:
    rollout = pool.status.rollout
    if rollout is None:
        told = f"{pool.id}: no machine is being replaced"
    elif rollout.finished_at is not None:
        told = f"{pool.id}: no machine is left to replace"
    else:
        waiting = len(rollout.waiting)
        noun = "worker waits" if waiting == 1 else "workers wait"
        told = f"{pool.id}: {waiting} {noun} for their turn, {rollout.max_unavailable} at a time"
    answer(run.console, pool.to_dict(), output, lambda: run.console.print(told, markup=False))
