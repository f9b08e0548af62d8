"""`lablet doctor`: looks at each part of a mesh on this machine and says what to do about each fault.

A finding is `ok`, a `warning` (it works, but know this) or a `fault`; only faults make the exit code 1.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yaml import YAMLError

from lablet_local.binaries import Binary, BinaryMissing, find_etcd, find_nats, find_rclone
from lablet_local.findings import Finding, Verdict
from lablet_local.folder import DataFolder, read_json
from lablet_local.lab_ports import taken_ports
from lablet_local.members import leaders
from lablet_local.mesh import TemplatesMissing, worker_templates
from lablet_local.ports import DEFAULT_BASE, PortBlock, PortsBusy, claim_ports
from lablet_local.probe import new_client
from lablet_local.services import MODULES, replica_counts
from lablet_local.status import look_at
from lablet_local.up import DONE, REFUSED, say

_OLDEST_PYTHON, _UNTRIED_PYTHON = (3, 11), (3, 14)
_SCARCE_BYTES = 1 << 30
_TOO_SCARCE_BYTES = 100 << 20
_FEW_FILES = 1024


def run_doctor(data: Path, *, as_json: bool = False, aws: bool = False) -> int:
    """Prints every finding, about this machine or about the AWS account. Exit code 1 when one of them is a fault."""
    findings = asyncio.run(_of_aws()) if aws else list(examine(DataFolder(data.expanduser().resolve())))
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _show(findings)
    return REFUSED if any(finding.verdict is Verdict.FAULT for finding in findings) else DONE


async def _of_aws() -> list[Finding]:
    from lablet_common.settings import StorageSettings
    from lablet_local.doctor_aws import examine_aws
    from lablet_workers.settings import Ec2Settings

    return [finding async for finding in examine_aws(Ec2Settings(), StorageSettings(), worker_templates())]


def examine(folder: DataFolder) -> Iterator[Finding]:
    """Every part, in the order in which a mesh needs them."""
    yield _python()
    yield _kernel()
    yield _files_limit()
    yield _etcd()
    yield _program("nats-server", find_nats)
    yield _program("rclone", find_rclone)
    yield from _modules()
    yield _templates()
    yield _lab_ports()
    yield _folder(folder)
    yield _disk(folder.root)
    if folder.root.exists():
        yield from _secret_files(folder)
    pid = folder.holder()
    if pid is None:
        yield _ports(folder)
        yield Finding("mesh", Verdict.OK, "not running", "start it with `lablet up`")
    else:
        yield from _running(folder, pid)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        return Finding(
            "python", Verdict.FAULT, f"{version} is too old", "use Python 3.11 or newer: `make PYTHON=python3.12 setup`"
        )
    if sys.version_info >= _UNTRIED_PYTHON:
        remedy = "if something does not work, use 3.11 to 3.13: `make clean && make PYTHON=python3.13 setup`"
        return Finding("python", Verdict.WARNING, f"{version} has not been tried", remedy)
    return Finding("python", Verdict.OK, f"{version} ({sys.executable})")


def _kernel() -> Finding:
    if sys.platform != "linux":
        return Finding(
            "system", Verdict.FAULT, f"{sys.platform} is not Linux", "run the mesh on Linux, or the containers"
        )
    return Finding("system", Verdict.OK, f"Linux {os.uname().release}, {os.cpu_count()} processors")


def _files_limit() -> Finding:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES:
        return Finding(
            "open files", Verdict.FAULT, f"at most {soft} a process", f"raise it: `ulimit -n {_FEW_FILES * 4}`"
        )
    return Finding("open files", Verdict.OK, f"at most {soft} a process")


def _etcd() -> Finding:
    try:
        etcd = find_etcd()
    except BinaryMissing as missing:
        return Finding(
            "etcd", Verdict.FAULT, str(missing), "`apt-get install etcd-server`, or set ETCD_BIN to a sound one"
        )
    found = f"{etcd.version} at {etcd.path}: {etcd.remark}"
    if not etcd.sound:
        remedy = "good for trying out; else `apt-get install etcd-server`, or set ETCD_BIN to 3.4, or 3.5.3 and newer"
        return Finding("etcd", Verdict.WARNING, found, remedy)
    return Finding("etcd", Verdict.OK, found)


def _program(name: str, find: Callable[[], Binary]) -> Finding:
    try:
        binary = find()
    except BinaryMissing as missing:
        return Finding(name, Verdict.FAULT, str(missing), "set up the environment anew: `rm -r .venv && make setup`")
    return Finding(name, Verdict.OK, f"{binary.version} at {binary.path}")


def _modules() -> Iterator[Finding]:
    import importlib.util

    for service, module in MODULES.items():
        if importlib.util.find_spec(f"{module}.__main__") is None:
            yield Finding(
                service, Verdict.FAULT, f"{module} cannot be run", "set up the environment anew: `make setup`"
            )


def _templates() -> Finding:
    try:
        return Finding("worker templates", Verdict.OK, str(worker_templates()))
    except TemplatesMissing as missing:
        return Finding("worker templates", Verdict.FAULT, str(missing), "run from the checkout, or name the file")


def _lab_ports() -> Finding:
    try:
        taken = {name: ports for name, ports in taken_ports(worker_templates()) if ports}
    except TemplatesMissing:
        return Finding("lab ports", Verdict.WARNING, "not known without worker templates", "see that part above")
    except (YAMLError, TypeError, ValueError) as error:
        return Finding("lab ports", Verdict.FAULT, f"the worker templates cannot be read: {error}", "correct the file")
    if taken:
        found = "; ".join(f"template {name}: {', '.join(map(str, ports[:5]))}" for name, ports in taken.items())
        remedy = "a lab that is given one of them does not come up: set another port_range, or end what listens there"
        return Finding("lab ports", Verdict.WARNING, f"in use on every address: {found}", remedy)
    return Finding("lab ports", Verdict.OK, "all free")


def _folder(folder: DataFolder) -> Finding:
    if not folder.root.exists():
        above = next(parent for parent in folder.root.parents if parent.exists())
        if os.access(above, os.W_OK):
            return Finding("data folder", Verdict.OK, f"{folder.root} will be made")
        return Finding(
            "data folder", Verdict.FAULT, f"{above} is not writable", "choose another with --data or LABLET_HOME"
        )
    if not os.access(folder.root, os.W_OK | os.X_OK):
        return Finding(
            "data folder", Verdict.FAULT, f"{folder.root} is not writable", f"`chown {os.getuid()} {folder.root}`"
        )
    if folder.root.stat().st_mode & 0o022:
        return Finding(
            "data folder", Verdict.FAULT, f"others may write into {folder.root}", f"`chmod 700 {folder.root}`"
        )
    return Finding("data folder", Verdict.OK, str(folder.root))


def _disk(root: Path) -> Finding:
    present = root if root.exists() else next(parent for parent in root.parents if parent.exists())
    free = shutil.disk_usage(present).free
    found = f"{free / (1 << 30):.1f} GiB free at {present}"
    if free < _TOO_SCARCE_BYTES:
        return Finding(
            "disk", Verdict.FAULT, found, "make room, or choose another --data: etcd stops when its disk is full"
        )
    if free < _SCARCE_BYTES:
        return Finding("disk", Verdict.WARNING, found, "make room before a long run")
    return Finding("disk", Verdict.OK, found)


def _secret_files(folder: DataFolder) -> Iterator[Finding]:
    files = [*folder.secrets.glob("*"), folder.connection]
    open_ones = [path for path in files if path.exists() and path.stat().st_mode & 0o077]
    for path in open_ones:
        yield Finding("secrets", Verdict.FAULT, f"{path} can be read by others", f"`chmod 600 {path}`")
    if not open_ones and folder.connection.exists():
        yield Finding(
            "secrets", Verdict.OK, f"{sum(path.exists() for path in files)} files, readable by the owner only"
        )
    connection = read_json(folder.connection)
    if folder.connection.exists() and not {"url", "token"} <= set(connection):
        remedy = f"remove it and start again: `rm {folder.connection} && lablet up`"
        yield Finding("connection", Verdict.FAULT, f"{folder.connection} holds no address and token", remedy)


def _ports(folder: DataFolder) -> Finding:
    choices = read_json(folder.choices)
    preferred, members = choices.get("portBase") or DEFAULT_BASE, int(choices.get("members", 1))
    counts = replica_counts({})
    try:
        claim_ports(counts, members=members, base=preferred).release()
    except PortsBusy as busy:
        try:
            claim = claim_ports(counts, members=members, preferred=preferred)
        except PortsBusy as none:
            return Finding("ports", Verdict.FAULT, str(none), "end what listens there")
        claim.release()
        remedy = f"`lablet up` takes {claim.block.base} and up instead"
        return Finding("ports", Verdict.WARNING, str(busy), remedy)
    return Finding("ports", Verdict.OK, f"{preferred} to {preferred + 99} on 127.0.0.1")


def _running(folder: DataFolder, pid: int) -> Iterator[Finding]:
    state = folder.read_state()
    yield Finding("mesh", Verdict.OK, f"running (pid {pid}), {state.get('url')}, lab time ×{state.get('speed'):g}")
    missing = asyncio.run(look_at(state))
    for process in state.get("processes", []):
        yield _process(process, missing.get(process["name"]))
    yield from (_led(what, leader) for what, leader in asyncio.run(_leaders(state)).items())
    yield asyncio.run(_clock(PortBlock(state["portBase"]), float(state["speed"])))


def _process(process: dict[str, Any], missing: str | None) -> Finding:
    name, log = process["name"], process["log"]
    if process["pid"] is None:
        return Finding(name, Verdict.FAULT, f"{process['phase']}: {process['lastEnd']}", f"read {log}")
    if missing is not None:
        return Finding(name, Verdict.FAULT, f"not ready: {missing}", f"see that part above, or read {log}")
    if process["restarts"]:
        found = f"ready, started again {process['restarts']} times (last {process['lastEnd']})"
        return Finding(name, Verdict.WARNING, found, f"read {log}")
    return Finding(name, Verdict.OK, f"ready (pid {process['pid']})")


async def _leaders(state: dict[str, Any]) -> dict[str, str | None]:
    async with new_client() as client:
        return await leaders(state, client)


def _led(what: str, leader: str | None) -> Finding:
    if leader is None:
        return Finding(f"leader of {what}", Verdict.FAULT, "none: two of three are needed", "see the members above")
    return Finding(f"leader of {what}", Verdict.OK, leader)


async def _clock(ports: PortBlock, speed: float) -> Finding:
    from lablet_common.clock import load_clock
    from lablet_common.store import EtcdStore, StoreUnavailable

    store = EtcdStore([f"127.0.0.1:{ports.etcd}"], timeout=3.0)
    try:
        clock = await load_clock(store)
    except StoreUnavailable as error:
        return Finding("clock", Verdict.FAULT, f"etcd does not answer: {error}", "`lablet down`, then `lablet up`")
    finally:
        await store.close()
    now = f"{clock.now():%Y-%m-%d %H:%M} lab time, ×{clock.speed:g}"
    if clock.speed != speed:
        return Finding(
            "clock", Verdict.WARNING, f"{now}, but the cloud runs at ×{speed:g}", "`lablet down`, then `lablet up`"
        )
    return Finding("clock", Verdict.OK, now)


def _show(findings: list[Finding]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    marks = {Verdict.OK: "[green]✓[/]", Verdict.WARNING: "[yellow]![/]", Verdict.FAULT: "[red]✗[/]"}
    for finding in findings:
        console.print(f"{marks[finding.verdict]} [bold]{finding.part}[/]: ", end="")
        console.print(finding.found, markup=False)
        if finding.remedy:
            console.print(f"    → {finding.remedy}", markup=False)
    faults = sum(finding.verdict is Verdict.FAULT for finding in findings)
    say("everything is in order" if not faults else f"{faults} fault{'s' * (faults > 1)} to mend")
