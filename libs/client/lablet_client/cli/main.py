"""The `lablet` command: its parts put together, and how it ends.

What a command needs is imported when it runs, so that `lablet --help` answers at once. The local mesh adds `up`,
`down`, `status` and `doctor` by the entry point group `lablet.commands`; without it a hint stands in their place.
"""

import sys
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lablet_client.cli import (
    admin,
    apply,
    artifact,
    audit,
    booking,
    calendar,
    deadletters,
    definition,
    events,
    instance,
    key,
    look,
    pool,
    quota,
    run,
    saving,
    seats,
    series,
    simulate,
    subscription,
    trace,
    transfer,
    usage,
    worker,
)
from lablet_client.cli.session import Session

_LOCAL = ("up", "down", "status", "doctor", "demo", "token")


class Doors(TyperGroup):
    """Turns what goes wrong on purpose into a message and an exit code, for every command alike."""

    def invoke(self, ctx: Any) -> Any:
        from lablet_client.errors import LabletError

        try:
            return super().invoke(ctx)
        except LabletError as error:
            from lablet_client.cli.failures import exit_code, report

            running = ctx.obj if isinstance(ctx.obj, Session) else Session()
            report(error, running.aside)
            raise typer.Exit(exit_code(error)) from error
        except ValueError as error:
            from lablet_client.cli.failures import exit_code, report, unfit

            if (wrong := unfit(error)) is None:
                raise
            report(wrong, ctx.obj.aside)
            raise typer.Exit(exit_code(wrong)) from error
        except OSError as error:
            if error.filename is None:  # of no file that somebody named: a defect keeps its traceback
                raise
            from lablet_client.cli.failures import USAGE

            typer.echo(f"✗ {error.filename}: {error.strerror}", err=True)
            raise typer.Exit(USAGE) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _LOCAL and self.get_command(ctx, args[0]) is None:
            typer.echo(
                f"`lablet {args[0]}` runs a mesh on this machine and comes with the package lablet-local: "
                "pip install lablet-local",
                err=True,
            )
            raise typer.Exit(2)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Doors,
    name="lablet",
    help="Book, run and look after network labs.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from lablet_common.version import __version__

        typer.echo(f"lablet {__version__}")
        raise typer.Exit


@app.callback()
def connect(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="The gateway (default: LABLET_URL, or the mesh of this machine)")
    ] = None,
    role: Annotated[
        str | None, typer.Option("--as", metavar="ROLE", help="Use this role's token from the connection file")
    ] = None,
    color: Annotated[bool | None, typer.Option("--color/--no-color", help="(default: on a terminal only)")] = None,
    version: Annotated[  # noqa: ARG001 - its callback has answered
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_say_version,
            help="Show the command's version (`version`: the mesh's too)",
        ),
    ] = False,
) -> None:
    given = context.obj if isinstance(context.obj, Session) else Session()
    given.url, given.role, given.color = url or given.url, role or given.role, color
    context.obj = given


for part in (booking, run, look, apply, calendar, simulate, audit, trace, seats, usage):
    app.registered_commands.extend(part.app.registered_commands)
app.add_typer(definition.app, name="definition", help="Publish labs and look at them.")
app.add_typer(series.app, name="series", help="A term of classes: show, change and cancel by date.")
app.add_typer(artifact.app, name="artifact", help="What labs have left behind: list, fetch, delete.")
app.add_typer(worker.app, name="worker", help="Drain, cordon and look after workers.")
pool.app.registered_commands.extend(saving.app.registered_commands)
app.add_typer(pool.app, name="pool", help="Save worker-hours; new machines for a whole pool.")
app.add_typer(instance.app, name="instance", help="Stop, start, collect and retry a seat's lab.")
app.add_typer(quota.app, name="quota", help="How much a tenant and its owners may have open.")
app.add_typer(events.app, name="events", help="Follow, look up and send CloudEvents.")
app.add_typer(key.app, name="key", help="Keys for machines.")
app.add_typer(subscription.app, name="subscription", help="Webhooks: events sent to an address of yours.")
app.add_typer(deadletters.app, name="dlq", help="Messages that nobody could handle.")
admin.app.registered_commands.extend(transfer.app.registered_commands)
app.add_typer(admin.app, name="admin", help="For operators of the parts underneath.")


def _add_extensions() -> None:
    for entry in entry_points(group="lablet.commands"):
        extension = entry.load()
        app.registered_commands.extend(extension.registered_commands)
        app.registered_groups.extend(extension.registered_groups)


_add_extensions()


def main() -> None:
    """The command. Ctrl-C ends it without a traceback (130), a closed pipe silently."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
