"""`lablet worker …`: take a worker out of service and back, in good order."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.worker import Worker

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="WORKER")]


@app.command()
def drain(
    context: typer.Context,
    name: Name,
    at: Annotated[str | None, typer.Option(help='When to begin (default: now): "tomorrow 18:00", "in 2h".')] = None,
    until: Annotated[str | None, typer.Option(help="When it may be used again.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help='Labs still running so long after that are stopped: "90m".')
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="For those whose labs run on it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also when booked seats find no other place.")] = False,
) -> None:
    """Empty a worker: running labs go on to their end or the deadline, booked seats move away."""
    run = session(context)

    async def work(client: "Client") -> "Worker":
        now = (await client.lab_time()).now
        minutes = round(_span("--deadline", deadline).total_seconds() / 60) if deadline else None
        return await client.workers.drain(
            name,
            at=_time("--at", at, now),
            until=_time("--until", until, now),
            deadline_minutes=minutes,
            message=message,
            force=force,
        )

    _tell(run, run.run(work))


@app.command(name="cancel-drain")
def cancel_drain(context: typer.Context, name: Name) -> None:
    """Take a drain back."""
    run = session(context)
    _tell(run, run.run(lambda client: client.workers.cancel_drain(name)))


@app.command()
def cordon(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Shown to everybody who asks why.")] = "maintenance",
    until: Annotated[str | None, typer.Option(help='Until then: "tomorrow 18:00".')] = None,
) -> None:
    """Place nothing new on a worker; what is there stays."""
    run = session(context)

    async def work(client: "Client") -> "Worker":
        now = (await client.lab_time()).now
        return await client.workers.cordon(name, reason=reason, until=_time("--until", until, now))

    _tell(run, run.run(work))


@app.command()
def uncordon(context: typer.Context, name: Name) -> None:
    """Use a worker again."""
    run = session(context)
    _tell(run, run.run(lambda client: client.workers.uncordon(name)))


@app.command()
def replace(context: typer.Context, name: Name) -> None:
    """Give a worker a new machine."""
    run = session(context)
    _tell(run, run.run(lambda client: client.workers.replace(name)))


def _tell(run: Session, worker: "Worker") -> None:
    from lablet_client.cli.tables import STYLES

    phase, cordon_ = str(worker.phase), worker.spec.unschedulable
    note = f", cordoned: {cordon_.reason}" if cordon_ is not None else ", takes new seats"
    run.console.print(f"{worker.id} is [{STYLES.get(phase) or 'default'}]{phase}[/]", end="")
    run.console.print(note, markup=False)


def _time(option: str, text: str | None, now: Any) -> Any:
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime, parse_time

    try:
        return parse_time(text, now) if text is not None else None
    except WrongTime as error:
        raise WrongUsage(f"{option}: {error}") from error


def _span(option: str, text: str) -> Any:
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import WrongTime, parse_span

    try:
        return parse_span(text)
    except WrongTime as error:
        raise WrongUsage(f"{option}: {error}") from error
