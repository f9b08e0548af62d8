"""`lablet pool …`: new machines for a whole pool, a few at a time."""

from typing import TYPE_CHECKING, Annotated

import typer

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
    )


@app.command(name="cancel-replace")
def cancel_replace(context: typer.Context, name: Name) -> None:
    """Ask no further worker; those whose turn has come get their new machines."""
    run = session(context)
    _tell(run, run.run(lambda client: client.pools.cancel_replace(name)))


def _tell(run: Session, pool: "WorkerPool") -> None:
    rollout = pool.status.rollout
    if rollout is None:
        run.console.print(f"{pool.id}: no machine is being replaced", markup=False)
    elif rollout.finished_at is not None:
        run.console.print(f"{pool.id}: no machine is left to replace", markup=False)
    else:
        waiting = len(rollout.waiting)
        noun = "worker waits" if waiting == 1 else "workers wait"
        told = f"{pool.id}: {waiting} {noun} for their turn, {rollout.max_unavailable} at a time"
        run.console.print(told, markup=False)
