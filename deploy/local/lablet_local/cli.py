"""The local mesh's commands: `up`, `down`, `status`, `doctor`, `demo`, `local cml`. They join the `lablet` command through
the entry point group `lablet.commands`; `python -m lablet_local` is the same without the client.

Everything heavy is imported inside the commands, so that `lablet --help` stays quick.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Lablet on this machine.")
local = typer.Typer(no_args_is_help=True, help="Parts of the local mesh by themselves.")
app.add_typer(local, name="local")
token = typer.Typer(no_args_is_help=True, help="Tokens of the mesh on this machine.")
app.add_typer(token, name="token")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder for everything kept [default: $LABLET_HOME or ~/.local/share/lablet]"
    ),
]


@app.command()
def up(
    data: Data = None,
    speed: Annotated[
        float | None, typer.Option(help="Lab seconds in one real second [default: as last time, else 1]", min=0.01)
    ] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=N", help="How many of a service, such as scheduler=2; repeatable"),
    ] = None,
    port_base: Annotated[
        int | None,
        typer.Option(metavar="N", help="First of a hundred ports [default: as last time, else a free block]"),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(help="Faults of the simulated cloud (JSON)", exists=True, dir_okay=False)
    ] = None,
    agents: Annotated[
        int, typer.Option(min=0, max=16, metavar="N", help="Agents on this machine, in the pool `agents`")
    ] = 0,
    ha: Annotated[
        bool, typer.Option("--ha", help="Three of etcd and three of NATS, of which any one may be lost")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it is ready; `lablet down` stops it")
    ] = False,
) -> None:
    """Start the whole mesh on this machine: etcd, NATS, S3, a simulated cloud and the four services."""
    from lablet_local.up import UpOptions, run_detached, run_foreground

    options = UpOptions(_folder(data), speed, _replicas(replicas or []), port_base, scenario, agents, ha)
    raise typer.Exit(run_detached(options) if detach else run_foreground(options))


@app.command()
def down(data: Data = None) -> None:
    """Stop the mesh that runs on a data folder."""
    from lablet_local.up import run_down

    raise typer.Exit(run_down(_folder(data)))


@app.command()
def status(
    data: Data = None, output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table"
) -> None:
    """Show the processes of the mesh: pid, uptime, restarts, readiness, addresses."""
    from lablet_local.status import run_status

    raise typer.Exit(run_status(_folder(data), as_json=_wants_json(output)))


@app.command()
def doctor(
    data: Data = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
    aws: Annotated[
        bool,
        typer.Option("--aws", help="Look at the AWS account instead: rights, images, the bucket; nothing is changed"),
    ] = False,
) -> None:
    """Check each part that the mesh needs, and say what to do about each fault."""
    from lablet_local.doctor import run_doctor

    raise typer.Exit(run_doctor(_folder(data), as_json=_wants_json(output), aws=aws))


@app.command()
def demo(
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Where the HTML report goes [default: out/demo-report.html]"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder for the mesh, kept [default: a temporary one]")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Lab seconds in one real second [default: 175]", min=1.0)] = None,
    seed: Annotated[int, typer.Option(help="Of the single bookings")] = 1,
) -> None:
    """Run a believable morning on a mesh of its own, kill the scheduler, and check that nothing was lost."""
    from lablet_local.demo.command import DEFAULT_REPORT, DemoOptions, run_demo
    from lablet_local.demo.run import SPEED

    raise typer.Exit(run_demo(DemoOptions(report or DEFAULT_REPORT, data, speed or SPEED, seed)))


@token.command()
def rotate(
    role: Annotated[str, typer.Argument(help="admin, operator, instructor, learner, machine, or all")],
    data: Data = None,
) -> None:
    """Replace the token of a role; the old one ends within a second."""
    from lablet_local.tokens import run_rotate

    raise typer.Exit(run_rotate(_folder(data), role))


@app.command(hidden=True)
def chaos(
    seed: Annotated[int, typer.Option(help="The first seed", min=1)] = 1,
    seeds: Annotated[int, typer.Option(help="How many, one after another", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Real seconds of faults in each", min=5)] = 30.0,
    ha: Annotated[
        bool, typer.Option("--ha", help="Three of etcd and three of NATS, whose leaders are killed too")
    ] = False,
    agents: Annotated[int, typer.Option(min=0, max=16, help="Hosts that run jobs, killed and paused too")] = 0,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Add a line for each seed; those that stand in it are run again only if inconclusive"
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Where the data of a seed that did not hold stay", file_okay=False)
    ] = None,
) -> None:
    """Run the mesh under load while its parts are killed, paused and cut off, and prove that nothing was lost or doubled.

    Exit status: 0 every check held; 1 one was broken (FAILED);
    2 nothing can be run here; 3 none was broken, but one had nothing to
    compare, so that nothing is proven (INCONCLUSIVE).
    """
    from lablet_local.chaos.command import ChaosOptions, run_chaos

    raise typer.Exit(run_chaos(ChaosOptions(seed, seeds, seconds, ha, agents, keep, record)))


@app.command("chaos-sum", hidden=True)
def chaos_sum(
    records: Annotated[list[Path], typer.Argument(help="Files that `lablet chaos --record` wrote", exists=True)],
) -> None:
    """Sum up recorded fault runs as the table of docs/reliability/fault-runs.md. Exit status: as `lablet chaos`."""
    from lablet_local.chaos.command import run_sum

    raise typer.Exit(run_sum(records))


@app.command(hidden=True)
def soak(
    seconds: Annotated[float | None, typer.Option(help="Real seconds of load", min=30)] = None,
    hours: Annotated[float, typer.Option(help="Real hours of load, where no seconds are given", min=0.01)] = 2.0,
    speed: Annotated[float | None, typer.Option(help="Lab seconds in one real second [default: 150]", min=1.0)] = None,
    rate: Annotated[float | None, typer.Option(help="Deeds of clients a minute [default: 60]", min=1.0)] = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the samples go, as JSON lines")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the HTML report goes")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder for the mesh, kept [default: a temporary one]")
    ] = None,
) -> None:
    """Keep the mesh under a steady load for hours, and judge whether anything of it grows."""
    from lablet_local.soak.command import SoakOptions, run
    from lablet_local.soak.run import RATE, SPEED, Plan

    plan = Plan(seconds or hours * 3600, speed or SPEED, rate or RATE)
    out = Path("out")
    raise typer.Exit(run(SoakOptions(plan, record or out / "soak.jsonl", report or out / "soak-report.html", data)))


@app.command("soak-show", hidden=True)
def soak_show(
    record: Annotated[Path, typer.Argument(help="File that `lablet soak --record` wrote", exists=True, dir_okay=False)],
    report: Annotated[Path, typer.Option(metavar="FILE", help="Where the HTML report goes")] = Path(
        "out/soak-report.html"
    ),
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the curves alone go (SVG); the table is printed")
    ] = None,
) -> None:
    """Judge the record of a soak again, and draw it."""
    from lablet_local.soak.command import show

    raise typer.Exit(show(record, report, figure))


@local.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def cml(context: typer.Context) -> None:
    """Run one CML simulator alone; it prints its address and login (`lablet local cml --help` for its options)."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "lablet_local.cml", *context.args])  # noqa: S606 - our own module


def _folder(data: Path | None) -> Path:
    from lablet_local.folder import default_data_folder

    return data or default_data_folder()


def _wants_json(output: str) -> bool:
    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r} is neither table nor json", param_hint="--output")
    return output == "json"


def _replicas(given: list[str]) -> dict[str, int]:
    from lablet_local.services import UnknownService, replica_counts

    counts: dict[str, int] = {}
    for part in (piece.strip() for text in given for piece in text.split(",")):
        name, separator, number = part.partition("=")
        if not separator or not number.isdigit():
            raise typer.BadParameter(f"{part!r} is not of the form SERVICE=N", param_hint="--replicas")
        counts[name] = int(number)
    try:
        replica_counts(counts)
    except (UnknownService, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--replicas") from error
    return counts
