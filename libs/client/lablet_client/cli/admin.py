"""`lablet admin etcd …`: the state store itself, through etcd3-py's synchronous client (the optional extra `admin`).

A second client beside the services' own, on purpose: it checks the first. Its watch and its asynchronous client are not
used. Where etcd is comes from `ETCD_ENDPOINTS` or `ETCD_HOST` and `ETCD_PORT`, or from the mesh of this machine.
"""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lablet_client.cli.failures import WrongUsage
from lablet_client.cli.output import Format, Output, answer, pairs, plain_table, write_data
from lablet_client.cli.session import Session, session

_NOSPACE = "NOSPACE"
app = typer.Typer(no_args_is_help=True)
etcd = typer.Typer(no_args_is_help=True)
app.add_typer(etcd, name="etcd", help="The state store: health, members, compaction, snapshots.")
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", help="host:port (default: ETCD_ENDPOINTS, ETCD_HOST:ETCD_PORT)")
]


@etcd.command()
def status(context: typer.Context, endpoint: Endpoint = None, output: Output = Format.TABLE) -> None:
    """Show version, leader, size and revision of each endpoint."""
    run = session(context)
    rows: list[dict[str, Any]] = []
    for address in etcd_endpoints(run, endpoint):
        found = _call(address, lambda client: client.status())
        rows.append(
            {
                "endpoint": address,
                "version": str(found.version),
                "leader": _hex(found.leader),
                "isLeader": _hex(found.leader) == _hex(found.header.member_id),
                "bytes": int(found.dbSize or 0),
                "revision": int(found.header.revision or 0),
                "term": int(found.header.raft_term or 0),
            }
        )
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, rows, output)
        return
    table = plain_table("ENDPOINT", "VERSION", "LEADER", "SIZE", "REVISION", "TERM")
    for row in rows:
        leader = "this one" if row["isLeader"] else row["leader"]
        size = f"{int(row['bytes']) / 1e6:.1f} MB"
        table.add_row(row["endpoint"], row["version"], leader, size, str(row["revision"]), str(row["term"]))
    run.show(table)


@etcd.command()
def members(context: typer.Context, endpoint: Endpoint = None, output: Output = Format.TABLE) -> None:
    """List the members of the cluster."""
    run = session(context)
    found = _call(etcd_endpoints(run, endpoint)[0], lambda client: client.member_list())
    rows: list[dict[str, Any]] = [
        {
            "id": _hex(member.ID),
            "name": str(member.name or ""),
            "peers": list(member.peerURLs or ()),
            "clients": list(member.clientURLs or ()),
        }
        for member in found.members
    ]
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, rows, output)
        return
    table = plain_table("ID", "NAME", "PEERS", "CLIENTS")
    for row in rows:
        table.add_row(row["id"], row["name"], ", ".join(row["peers"]), ", ".join(row["clients"]))
    run.show(table)


@etcd.command()
def alarms(context: typer.Context, endpoint: Endpoint = None, output: Output = Format.TABLE) -> None:
    """List alarms that are raised (NOSPACE, CORRUPT); exit code 1 when there is one."""
    run = session(context)
    found = _call(etcd_endpoints(run, endpoint)[0], lambda client: client.alarm(0))
    raised = [{"alarm": _word(one.alarm), "member": _hex(one.memberID)} for one in found.alarms or ()]
    told = "\n".join(f"[red]{one['alarm']}[/] at member {one['member']}" for one in raised) or "no alarms"
    answer(run.console, raised, output, lambda: run.console.print(told))
    if raised:
        raise typer.Exit(1)


@etcd.command()
def disarm(context: typer.Context, endpoint: Endpoint = None, output: Output = Format.TABLE) -> None:
    """Take NOSPACE back once room was made (compact, defragment): etcd accepts writes again. Another alarm stays."""
    run = session(context)
    address = etcd_endpoints(run, endpoint)[0]

    def work(client: Any) -> tuple[list[Mapping[str, str]], list[str]]:
        from etcd3.models import AlarmRequestAlarmAction, etcdserverpbAlarmType

        disarmed: list[Mapping[str, str]] = []
        kept: list[str] = []
        for one in client.alarm(0).alarms or ():
            if _word(one.alarm) == _NOSPACE:
                client.alarm(one.memberID, AlarmRequestAlarmAction.DEACTIVATE, etcdserverpbAlarmType.NOSPACE)
                disarmed.append({"alarm": _NOSPACE, "member": _hex(one.memberID)})
            else:
                kept.append(f"{_word(one.alarm)} at member {_hex(one.memberID)} stays: that member is to be replaced")
        return disarmed, kept

    disarmed, kept = _call(address, work)
    told = (
        "\n".join(f"{one['alarm']} at member {one['member']} is taken back" for one in disarmed)
        or "no alarm taken back"
    )
    answer(run.console, disarmed, output, lambda: run.console.print(told))
    for line in kept:
        run.aside.print(f"[red]✗[/] {line}")
    if kept:
        raise typer.Exit(1)


@etcd.command()
def compact(
    context: typer.Context,
    revision: Annotated[int | None, typer.Argument(min=1, help="Forget everything before it.")] = None,
    endpoint: Endpoint = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Forget old versions. By default all that every bridge has published already."""
    run = session(context)
    address = etcd_endpoints(run, endpoint)[0]
    prefix = os.environ.get("ETCD_PREFIX", "/lablet")
    cursors = _cursors(address, prefix)
    lowest = min(cursors.values(), default=None)
    if revision is None and lowest is None:
        raise WrongUsage("there are no bridge cursors: say which REVISION to compact at")
    target = revision if revision is not None else lowest
    assert target is not None
    if lowest is not None and target > lowest:
        behind = min(cursors, key=lambda name: cursors[name])
        run.aside.print(
            f"[yellow]the bridge of {behind} has published up to {lowest} only: what is compacted beyond is published as "
            "its present state, marked replayed[/]"
        )
        if not yes and not typer.confirm("go on?", err=True):
            raise typer.Exit(1)
    _call(address, lambda client: client.compact(target, physical=False))
    told = f"compacted at revision {target}"
    answer(run.console, {"revision": target}, output, lambda: run.console.print(told))


@etcd.command()
def defragment(context: typer.Context, endpoint: Endpoint = None, output: Output = Format.TABLE) -> None:
    """Give space back to the file system, one member after the other (each stands still meanwhile)."""
    run, rows = session(context), list[Mapping[str, Any]]()
    people = output not in (Format.JSON, Format.YAML)
    for address in etcd_endpoints(run, endpoint):
        before = int(_call(address, lambda client: client.status()).dbSize or 0)
        _call(address, lambda client: client.defragment())
        after = int(_call(address, lambda client: client.status()).dbSize or 0)
        rows.append({"endpoint": address, "bytesBefore": before, "bytesAfter": after})
        if people:
            run.console.print(f"{address}: {before / 1e6:.1f} MB → {after / 1e6:.1f} MB")
    answer(run.console, rows, output, lambda: None)


@etcd.command()
def snapshot(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write it; must not exist.")],
    endpoint: Endpoint = None,
    output: Output = Format.TABLE,
) -> None:
    """Save the whole store into a file (for `etcdutl snapshot restore`)."""
    run = session(context)
    if file.exists():
        raise WrongUsage(f"{file} exists already")
    address = etcd_endpoints(run, endpoint)[0]
    part = file.with_name(f"{file.name}.part")

    def save(client: Any) -> int:
        written = 0
        with part.open("wb") as target, client.snapshot() as stream:
            for piece in stream:
                blob = piece.blob
                written += target.write(blob if isinstance(blob, bytes) else base64.b64decode(blob))
        return written

    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # nobody else reads what is in there
    try:
        size = _call(address, save)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    told = pairs([("snapshot", str(file)), ("bytes", f"{size:,}"), ("etcd", address)])
    written = {"snapshot": str(file), "bytes": size, "endpoint": address}
    answer(run.console, written, output, lambda: run.console.print(told))


def _cursors(address: str, prefix: str) -> Mapping[str, int]:
    """Kind → revision up to which its bridge has published, and will not have to publish again."""
    import json

    found = _call(address, lambda client: client.range(f"{prefix}/bridge/", prefix=True))
    cursors = {}
    for pair in found.kvs or ():
        key, value = _text(pair.key), json.loads(_text(pair.value))
        kind = key.removeprefix(f"{prefix}/bridge/").partition("/")[0]
        cursors[kind] = int(value.get("safe", value["revision"]) if isinstance(value, Mapping) else value)
    return cursors


def _call(address: str, work: Any) -> Any:
    """One call through etcd3-py. Raises `Unreachable`, and `WrongUsage` with the way to install the client."""
    from lablet_client.errors import Refused, Unreachable

    try:
        import etcd3
        import requests
    except ImportError as error:
        raise WrongUsage(
            "`lablet admin etcd` needs the package etcd3-py: pip install 'lablet-client[admin]'"
        ) from error
    host, _, port = address.rpartition(":")
    tls = _tls()
    try:
        # its constructor turns "nobody there" into an AttributeError, so we look ourselves first
        scheme, verify, cert = tls.get("protocol", "http"), tls.get("verify"), tls.get("cert")
        requests.get(f"{scheme}://{address}/version", timeout=_timeout(), verify=verify, cert=cert).raise_for_status()
        client = etcd3.Client(host, int(port), timeout=_timeout(), **tls)
        if os.environ.get("ETCD_USERNAME"):
            client.auth(os.environ["ETCD_USERNAME"], _secret("ETCD_PASSWORD"))
        return work(client)
    except requests.exceptions.RequestException as error:
        raise Unreachable(f"etcd at {address}", _why(error), "ETCD_ENDPOINTS") from error
    except etcd3.errors.Etcd3Exception as error:
        raise Refused(409, {"title": "etcd refused", "detail": f"etcd says: {error}"}) from error


def _why(error: Exception) -> str:
    """What lies at the bottom: `Connection refused`, without the names of the layers above."""
    found = str(error).rpartition(": ")[2] or type(error).__name__
    return re.sub(r"^\[Errno \d+\] |['\")]+$", "", found)


def _tls() -> Mapping[str, Any]:
    """Raises `WrongUsage` for a file that is not there."""
    options: dict[str, Any] = {}
    for name in ("ETCD_CA_CERT", "ETCD_CERT_CERT", "ETCD_CERT_KEY"):
        if os.environ.get(name) and not Path(os.environ[name]).is_file():
            raise WrongUsage(f"{name} names no file: {os.environ[name]}")
    if os.environ.get("ETCD_CA_CERT"):
        options |= {"protocol": "https", "verify": os.environ["ETCD_CA_CERT"]}
    if os.environ.get("ETCD_CERT_CERT"):
        options["cert"] = (os.environ["ETCD_CERT_CERT"], os.environ.get("ETCD_CERT_KEY", ""))
    return options


def _secret(name: str) -> str:
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else os.environ.get(name, "")


def _timeout() -> float:
    text = os.environ.get("ETCD_TIMEOUT") or "10"
    try:
        return float(text)
    except ValueError as error:
        raise WrongUsage(f"ETCD_TIMEOUT is {text!r}, and no number of seconds") from error


def etcd_endpoints(run: Session, given: str | None) -> Sequence[str]:
    """`host:port` of each endpoint."""
    del run
    text = given or os.environ.get("ETCD_ENDPOINTS") or _mesh_endpoint() or ""
    if not text:
        text = f"{os.environ.get('ETCD_HOST', 'localhost')}:{os.environ.get('ETCD_PORT', '2379')}"
    found = []
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        address = part.partition("://")[2] or part
        if not address.rpartition(":")[2].isdigit() or ":" not in address:
            raise WrongUsage(f"{part!r} is no host:port of an etcd endpoint")
        found.append(address)
    return found


def _mesh_endpoint() -> str | None:
    """Every etcd of the mesh on this machine, as its data folder tells."""
    if "ETCD_HOST" in os.environ or "ETCD_PORT" in os.environ:
        return None
    found = mesh_here()
    members = [at for process, at in found[1].items() if process.partition("-")[0] == "etcd"] if found else []
    return ",".join(members) or None


def mesh_here() -> tuple[Path, Mapping[str, str]] | None:
    """Data folder and addresses of the mesh on this machine; None where there is none: the settings' defaults hold then."""
    import json

    from lablet_client.connection import find_connection
    from lablet_client.errors import NotConfigured

    try:
        data = find_connection().extra.get("data")
        if not data:
            return None
        folder = Path(str(data))
        return folder, json.loads((folder / "mesh.json").read_text()).get("addresses", {})
    except (NotConfigured, OSError, ValueError):
        return None


def _hex(value: Any) -> str:
    return f"{int(value or 0):x}"


def _word(value: Any) -> str:
    return str(getattr(value, "name", value))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
