"""`lablet admin export|import|backup|restore`: everything that Lablet holds, straight from etcd and into an empty one.

For operators: no gateway is asked, so that it works while no service runs, which an import needs. The connection is that of
the services (`ETCD_…`), or of the mesh on this machine.
"""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lablet_client.cli.admin import etcd_endpoints, mesh_here
from lablet_client.cli.failures import WrongUsage
from lablet_client.cli.output import Format, Output, answer
from lablet_client.cli.session import Session, session
from lablet_client.cli.streams import positions
from lablet_client.errors import Unreachable

if TYPE_CHECKING:
    from lablet_common.objects import ObjectStore
    from lablet_common.settings import StorageSettings
    from lablet_common.store.api import Store

T = TypeVar("T")
app = typer.Typer()
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="host:port of etcd (default: as the services)")]


@app.command(name="export")
def export_all(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Must not exist; *.gz is compressed.")],
    endpoint: Endpoint = None,
    output: Output = Format.TABLE,
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

    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # nobody else reads what is in there
    try:
        count = _told(run, lambda: _with_store(etcd_endpoints(run, endpoint), work))
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    _say(run, output, f"{count} resources and settings in {file}", {"file": str(file), "resources": count})


@app.command(name="import")
def import_all(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave what is there, and go on.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only look whether the file is sound.")] = False,
    endpoint: Endpoint = None,
    output: Output = Format.TABLE,
) -> None:
    """Write what an export holds into an empty etcd. The services must not run."""
    from lablet_common.transfer import import_entries, read_lines

    run = session(context)
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as source:
        entries = _told(run, lambda: read_lines(source))
    if check:
        told = f"{file} is sound: {len(entries)} resources and settings"
        _say(run, output, told, {"file": str(file), "resources": len(entries)})
        return

    async def work(store: "Store") -> int:
        return await import_entries(store, entries, skip_existing=skip_existing)

    count = _told(run, lambda: _with_store(etcd_endpoints(run, endpoint), work))
    left = f", {len(entries) - count} were there already" if count < len(entries) else ""
    counts = {"imported": count, "alreadyThere": len(entries) - count}
    _say(run, output, f"{count} resources and settings imported{left}", counts)


@app.command()
def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(file_okay=False, help="A new or empty folder.")],
    without_streams: Annotated[
        bool, typer.Option("--without-streams", help="Also when NATS does not say how far its streams have come.")
    ] = False,
    endpoint: Endpoint = None,
    output: Output = Format.TABLE,
) -> None:
    """Save what etcd holds at one revision, the list of stored objects and the streams' positions. The objects' content and
    the key file of the secrets are not in it."""
    run = session(context)

    async def work(store: "Store") -> Mapping[str, Any]:
        from lablet_common.backup import write_backup

        async with _objects() as objects:
            return await write_backup(folder, store, objects, None if without_streams else partial(positions, endpoint))

    try:
        summary = _told(run, lambda: _with_store(etcd_endpoints(run, endpoint), work))
    except FileExistsError as error:
        raise WrongUsage(str(error)) from error
    told = f"{summary['resources']} resources and settings of revision {summary['revision']} in {folder}"
    _say(run, output, told, {"folder": str(folder), **{name: summary[name] for name in ("resources", "revision")}})


@app.command()
def restore(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    without_objects: Annotated[
        bool, typer.Option("--without-objects", help="Also when stored objects are missing.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Go on where a restore broke off: leave what is there.")
    ] = False,
    endpoint: Endpoint = None,
    output: Output = Format.TABLE,
) -> None:
    """Bring a backup back into an empty etcd, beside the bucket that it was made with. The services must not run. One that
    broke off is gone on with before any service starts."""
    run = session(context)

    async def work(store: "Store") -> tuple[int, int]:
        from lablet_common.backup import check_objects, read_backup
        from lablet_common.transfer import import_entries

        found = read_backup(folder)
        if not without_objects:
            async with _objects() as objects:
                await check_objects(found, objects)
        return await import_entries(store, found.entries, skip_existing=skip_existing), len(found.entries)

    count, of = _told(run, lambda: _with_store(etcd_endpoints(run, endpoint), work))
    left = f", {of - count} were there already" if count < of else ""
    told = f"{count} resources and settings restored{left}: start the services"
    _say(run, output, told, {"restored": count, "alreadyThere": of - count})


def _say(run: Session, output: Format, told: str, value: Mapping[str, Any]) -> None:
    answer(run.console, value, output, lambda: run.console.print(told, markup=False, highlight=False))


@asynccontextmanager
async def _objects() -> "AsyncIterator[ObjectStore]":
    from lablet_common.objects import ObjectStoreError, S3ObjectStore

    settings = _storage()
    store = S3ObjectStore(settings)
    try:
        yield store
    except ObjectStoreError as error:
        raise Unreachable(settings.url, str(error), "ARTIFACT_STORAGE_ENDPOINT") from error
    finally:
        await store.close()


def _storage() -> "StorageSettings":
    """As the environment says; where it says nothing, that of the mesh on this machine."""
    from pydantic import SecretStr

    from lablet_common.settings import StorageSettings

    here = mesh_here()
    if any(name.startswith("ARTIFACT_STORAGE_") for name in os.environ) or here is None or "s3" not in here[1]:
        return StorageSettings()
    folder, addresses = here
    keys = (SecretStr((folder / "secrets" / name).read_text().strip()) for name in ("s3.access-key", "s3.secret-key"))
    access_key, secret_key = keys
    return StorageSettings(endpoint=addresses["s3"], access_key=access_key, secret_key=secret_key)


def _told(run: Session, work: Callable[[], T]) -> T:
    """What the work comes to; its faults are told line by line, and end the command with 1."""
    from lablet_common.transfer import TransferError

    try:
        return work()
    except TransferError as error:
        for fault in error.faults:
            run.aside.print(f"✗ {fault}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _with_store(endpoints: Any, work: "Callable[[Store], Awaitable[T]]") -> T:
    try:
        from lablet_common.service import open_store
        from lablet_common.settings import EtcdSettings
        from lablet_common.store.api import Compacted, StoreError, StoreUnavailable
        from lablet_common.transfer import TransferError
    except ImportError as error:
        raise WrongUsage("this needs the etcd client: pip install 'lablet-common[service]'") from error

    async def run() -> T:
        store = open_store(EtcdSettings(endpoints=",".join(endpoints)))
        try:
            return await work(store)
        except StoreUnavailable as error:
            raise Unreachable(f"etcd at {', '.join(endpoints)}", str(error), "ETCD_ENDPOINTS") from error
        except Compacted as error:
            raise TransferError([f"etcd was compacted meanwhile ({error}): begin anew"]) from error
        except StoreError as error:  # somebody writes meanwhile; a right is missing; a value is none of ours
            raise TransferError([str(error)]) from error
        finally:
            await store.close()

    return asyncio.run(run())
