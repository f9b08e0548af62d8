"""`lablet admin export|import`: everything that Lablet holds as JSON lines, straight from etcd and into an empty one.

For operators: no gateway is asked, so that it works while no service runs, which an import needs. The connection is that of
the services (`ETCD_…`), or of the mesh on this machine.
"""

import asyncio
import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lablet_client.cli.admin import etcd_endpoints
from lablet_client.cli.failures import WrongUsage
from lablet_client.cli.session import session
from lablet_client.errors import Unreachable

if TYPE_CHECKING:
    from lablet_common.store.api import Store

T = TypeVar("T")
app = typer.Typer()
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="host:port of etcd (default: as the services)")]


@app.command(name="export")
def export_all(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Must not exist; *.gz is compressed.")],
    endpoint: Endpoint = None,
) -> None:
    """Write all resources and settings into a file, as they stand at one revision. Secrets stay sealed; keep the key file."""
    from lablet_common.transfer import export_lines

    run = session(context)
    if file.exists():
        raise WrongUsage(f"{file} exists already")
    part = file.with_name(f"{file.name}.part")

    async def work(store: "Store") -> int:
        count = 0
        with gzip.open(part, "wb") if file.suffix == ".gz" else part.open("wb") as target:
            async for line in export_lines(store):
                target.write(line + b"\n")
                count += 1
        return count - 1

    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # nobody else reads what is in there
        count = _with_store(etcd_endpoints(run, endpoint), work)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    run.console.print(f"{count} resources and settings in {file}", highlight=False)


@app.command(name="import")
def import_all(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave what is there, and go on.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only look whether the file is sound.")] = False,
    endpoint: Endpoint = None,
) -> None:
    """Write what an export holds into an empty etcd. The services must not run."""
    from lablet_common.transfer import TransferError, import_entries, read_lines

    run = session(context)
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as source:
            entries = read_lines(source)
        if check:
            run.console.print(f"{file} is sound: {len(entries)} resources and settings", highlight=False)
            return

        async def work(store: "Store") -> int:
            return await import_entries(store, entries, skip_existing=skip_existing)

        count = _with_store(etcd_endpoints(run, endpoint), work)
    except TransferError as error:
        for fault in error.faults:
            run.aside.print(f"[red]✗[/] {fault}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    left = f", {len(entries) - count} were there already" if count < len(entries) else ""
    run.console.print(f"{count} resources and settings imported{left}", highlight=False)


def _with_store(endpoints: Any, work: "Callable[[Store], Awaitable[T]]") -> T:
    try:
        from lablet_common.service import open_store
        from lablet_common.settings import EtcdSettings
        from lablet_common.store.api import StoreUnavailable
    except ImportError as error:
        raise WrongUsage("this needs the etcd client: pip install 'lablet-common[service]'") from error

    async def run() -> T:
        store = open_store(EtcdSettings(endpoints=",".join(endpoints)))
        try:
            return await work(store)
        except StoreUnavailable as error:
            raise Unreachable(f"etcd at {', '.join(endpoints)}", str(error)) from error
        finally:
            await store.close()

    return asyncio.run(run())
