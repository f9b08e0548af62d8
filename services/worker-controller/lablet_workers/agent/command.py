"""The command `lablet agent`. It joins the `lablet` command through the entry point group `lablet.commands`.

Everything heavy is imported inside, so that `lablet --help` stays quick.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lablet_workers.agent.agent import AgentOptions
    from lablet_workers.agent.driver import Account

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def agent(
    join: Annotated[str, typer.Option("--join", metavar="URL", help="The gateway of the mesh to join.")],
    token_file: Annotated[Path, typer.Option("--token-file", metavar="FILE", help="Holds this worker's token.")],
    pool: Annotated[str, typer.Option("--pool", "-p", help="The pool to join; its template's provider is agent.")],
    name: Annotated[
        str | None, typer.Option(help="The worker's name, which the token must be for [default: the host's]")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address at which labs' ports answer [default: the host's name]")
    ] = None,
    nats: Annotated[
        str | None, typer.Option(envvar="NATS_URL", help="[default: port 4222 of the gateway's host]")
    ] = None,
    nats_ca: Annotated[
        Path | None, typer.Option("--nats-ca", envvar="NATS_CA_CERT", help="Certificate of the authority for NATS.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="[default: /var/lib/lablet-agent, or ~/.local/share/lablet-agent]"),
    ] = None,
    user: Annotated[
        str, typer.Option(help="Where the agent is root: whom labs run as. It should own nothing else.")
    ] = "nobody",
    ports: Annotated[str, typer.Option(metavar="FIRST-LAST", help="Ports that labs may be given.")] = "20000-29999",
    cpu: Annotated[float | None, typer.Option(min=0.1, help="Cores offered [default: all]")] = None,
    memory: Annotated[float | None, typer.Option(min=0.1, help="GiB offered [default: 90 % of it]")] = None,
    storage: Annotated[float | None, typer.Option(min=0.01, help="GiB offered [default: 90 % of what is free]")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value, repeatable.")] = None,
) -> None:
    """Make this host a worker: join a pool and run approved labs of processes."""
    import asyncio

    from lablet_common.bus.connection import BusRefused
    from lablet_common.settings import TelemetrySettings
    from lablet_common.telemetry.logs import configure_logging
    from lablet_workers.agent.agent import Agent
    from lablet_workers.agent.joining import JoinRefused

    try:
        options = _options(join, token_file, pool, name, host, nats, nats_ca, state, user, ports, labels)
        options = _sized(options, cpu, memory, storage)
        configure_logging(TelemetrySettings(), "agent", options.name)

        async def live() -> None:
            await Agent(options).run()

        asyncio.run(live())
    except (JoinRefused, BusRefused) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    sys.stdout.flush()


def _options(
    join: str,
    token_file: Path,
    pool: str,
    name: str | None,
    host: str | None,
    nats: str | None,
    nats_ca: Path | None,
    state: Path | None,
    user: str,
    ports: str,
    labels: list[str] | None,
) -> "AgentOptions":
    import os
    import re
    import socket
    from urllib.parse import urlsplit

    from pydantic import SecretStr, ValidationError

    from lablet_common.resources.model import NAME_PATTERN
    from lablet_common.resources.worker import PortRange
    from lablet_common.settings import NatsSettings
    from lablet_workers.agent.agent import AgentOptions
    from lablet_workers.agent.joining import read_token

    gateway = urlsplit(join)
    if gateway.scheme not in ("http", "https") or not gateway.hostname:
        raise typer.BadParameter(f"{join!r} is no address: write it as https://lablet.example", param_hint="--join")
    chosen = name or re.sub(r"[^a-z0-9-]", "-", socket.gethostname().partition(".")[0].lower()).strip("-")
    if not re.fullmatch(NAME_PATTERN, chosen):
        raise typer.BadParameter(f"{chosen!r}: a to z, 0 to 9 and -, at most 63", param_hint="--name")
    first, dash, last = ports.partition("-")
    try:
        span = PortRange(start=int(first), end=int(last if dash else first))
    except (ValueError, ValidationError) as error:
        raise typer.BadParameter(f"{ports!r} is no range such as 20000-29999", param_hint="--ports") from error
    pairs = [label.partition("=") for label in labels or ()]
    if any(not key or not equals for key, equals, _ in pairs):
        raise typer.BadParameter("write labels as key=value", param_hint="--label")
    token = read_token(token_file)
    try:
        connection = NatsSettings(
            url=nats or f"nats://{gateway.hostname}:4222",
            user=f"agent-{chosen}",
            password=SecretStr(token),
            ca_cert=nats_ca,
        )
    except ValidationError as error:
        raise typer.BadParameter("; ".join(one["msg"] for one in error.errors()), param_hint="--nats-ca") from error
    root = os.geteuid() == 0
    default = Path("/var/lib/lablet-agent") if root else Path.home() / ".local" / "share" / "lablet-agent"
    return AgentOptions(
        join=join.rstrip("/"),
        token=token,
        pool=pool,
        name=chosen,
        host=host or socket.gethostname(),
        nats=connection,
        state=(state or default).expanduser().resolve(),
        ports=span,
        account=_account(user) if root else None,
        labels={key: value for key, _, value in pairs},
    )


def _account(user: str) -> "Account":
    import pwd

    from lablet_workers.agent.driver import Account

    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise typer.BadParameter(f"this host has no user {user}: make one for labs", param_hint="--user") from None
    if found.pw_uid == 0:
        raise typer.BadParameter("labs never run as root", param_hint="--user")
    return Account(found.pw_uid, found.pw_gid)


def _sized(options: "AgentOptions", cpu: float | None, memory: float | None, storage: float | None) -> "AgentOptions":
    from dataclasses import replace

    from lablet_common.resources.worker import Capacity
    from lablet_workers.agent.capacity import measured

    if cpu is None and memory is None and storage is None:
        return options
    options.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = measured(options.state)
    return replace(
        options,
        capacity=Capacity(
            cpu_cores=cpu or found.cpu_cores,
            memory_gb=memory or found.memory_gb,
            storage_gb=storage or found.storage_gb,
        ),
    )
