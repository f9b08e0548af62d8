"""The port to what runs labs on an agent's host, and its first adapter: processes under a supervisor each.

Labs are found again after a restart of the agent: everything that matters lies in the lab's folder, and a supervisor that
lives is known by its pid and start time. A driver for containers would be another adapter of the same port.

Every call is idempotent. Nothing here asks whether a lab may run: the permission does (see `permission`).
"""

import asyncio
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lablet_common.process_lab import HealthCheck, ProcessNode, SeatLab, Until
from lablet_workers.agent import procfs
from lablet_workers.agent.child import LAB_VARIABLE
from lablet_workers.agent.output import Piece, read_output
from lablet_workers.agent.plan import (
    Check,
    LabFolder,
    LabPlan,
    LabRecord,
    Limits,
    NodePlan,
    NodeRecord,
    read_plan,
    read_record,
    write_plan,
    write_record,
)

log = logging.getLogger("lablet.agent")

_END_SECONDS = 10.0
"""After the grace: until a supervisor that was told to stop is killed."""
_LOOK_SECONDS = 0.02


class NoSuchLab(Exception):
    """There is no such lab on this host."""


class StillRunning(Exception):
    """It has to be stopped before it can be removed."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that labs run as."""

    user: int
    group: int


class LabDriver(Protocol):
    """Runs the labs of one host."""

    def labs(self) -> Mapping[str, str]:
        """Title → id of every lab that was imported and not removed."""
        ...

    async def import_lab(self, title: str, lab: SeatLab) -> str:
        """The lab's id; one with that title that is there already is taken, or, if its manifest is another one, replaced.
        Raises `StillRunning`."""
        ...

    async def start(self, lab: str) -> None:
        """A lab that runs, or has come to its own end, is left as it is. Raises `NoSuchLab`."""
        ...

    def record(self, lab: str) -> LabRecord:
        """What is known of it now. Raises `NoSuchLab`."""
        ...

    def ends(self, lab: str) -> bool:
        """It is to end by itself. Raises `NoSuchLab`."""
        ...

    def manifest(self, lab: str) -> str:
        """The seat's lab as it was imported. Raises `NoSuchLab`."""
        ...

    def output(self, lab: str, node: str, position: int, limit: int) -> Piece:
        """Raises `NoSuchLab` for a lab or node that is not there."""
        ...

    async def stop(self, lab: str) -> None:
        """Returns when nothing of it runs. Raises `NoSuchLab`."""
        ...

    async def remove(self, lab: str) -> None:
        """One that is gone is no error. Raises `StillRunning`."""
        ...

    async def stop_everything(self) -> None:
        """Also what only the kernel still knows of."""
        ...


class ProcessDriver:
    """Labs below `root`; `permission` is the file that their supervisors obey."""

    def __init__(
        self, root: Path, permission: Path, account: Account | None = None, *, grace_seconds: float = 2.0
    ) -> None:
        self._root = root
        self._permission = permission
        self._account = account
        self._grace = grace_seconds
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._incomplete: set[str] = set()
        root.mkdir(mode=0o711, parents=True, exist_ok=True)

    def labs(self) -> Mapping[str, str]:
        found, incomplete = {}, set()
        for entry in sorted(self._root.iterdir()):
            try:
                found[read_plan(LabFolder(entry)).title] = entry.name
            except (OSError, ValueError, TypeError, KeyError) as error:
                incomplete.add(entry.name)
                if entry.name not in self._incomplete:  # the labs are looked at many times a second
                    log.warning("a lab's folder is incomplete", extra={"lab": entry.name, "cause": str(error)})
        self._incomplete = incomplete
        return found

    def folder(self, lab: str) -> LabFolder:
        """Raises `NoSuchLab`; also for what is no plain name."""
        folder = LabFolder(self._root / lab)
        if not lab or lab != Path(lab).name or lab.startswith(".") or not folder.plan.is_file():
            raise NoSuchLab(f"there is no lab {lab} on this host")
        return folder

    async def import_lab(self, title: str, lab: SeatLab) -> str:
        name = title  # titles are instances' ids: unique, and found again after a crash between the two
        folder = LabFolder(self._root / name)
        if name != Path(name).name or name.startswith(".") or not name:
            raise NoSuchLab(f"{title!r} cannot be the name of a lab")
        if folder.plan.is_file():
            if _is_of(folder, lab):
                return name
            if self.record(name).runs:
                raise StillRunning(f"lab {name} runs with another manifest: stop it first")
            await self.remove(name)  # an earlier session's, whose seat has other ports now
        plan = plan_of(name, title, lab, self._account, self._grace)
        await asyncio.to_thread(self._make_folder, folder, plan, lab)
        return name

    def _make_folder(self, folder: LabFolder, plan: LabPlan, lab: SeatLab) -> None:
        for path in (folder.root, folder.root / "work", folder.root / "output"):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
        for node in plan.nodes:
            work = folder.work(node.name)
            work.mkdir(mode=0o700, exist_ok=True)
            if self._account is not None and os.geteuid() == 0:
                os.chown(work, self._account.user, self._account.group)
        folder.manifest.write_bytes(lab.to_json())
        write_plan(folder, plan)  # last: without it the lab is not there

    async def start(self, lab: str) -> None:
        folder = self.folder(lab)
        known = read_record(folder)
        if self._supervisor_of(folder) is not None or (known is not None and known.phase == "completed"):
            return
        folder.state.unlink(missing_ok=True)
        with folder.log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - this program's own part, and it does not wait
                [sys.executable, "-m", "lablet_workers.agent.supervisor", str(folder.root), str(self._permission)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "PYTHONSAFEPATH": "1", LAB_VARIABLE: lab},
                start_new_session=True,
            )
        self._started[lab] = process
        while not (folder.state.exists() or process.poll() is not None):  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(_LOOK_SECONDS)

    def record(self, lab: str) -> LabRecord:
        folder = self.folder(lab)
        plan = read_plan(folder)
        # the order matters: a record that is read after its supervisor has gone is its last one
        lives = self._supervisor_of(folder) is not None
        found = read_record(folder)
        if found is None:
            return LabRecord(lab, plan.title, phase="new", nodes=_fresh(plan))
        found.nodes = found.nodes or _fresh(plan)
        if not found.over and not lives:
            found.phase, found.reason = "stopped", "SupervisorLost"
            for node in found.nodes:
                node.pid = None
                node.phase = node.phase if node.phase in ("EXITED", "SKIPPED") else "STOPPED"
        return found

    def ends(self, lab: str) -> bool:
        return read_plan(self.folder(lab)).until_completed

    def manifest(self, lab: str) -> str:
        return self.folder(lab).manifest.read_text(encoding="utf-8")

    def output(self, lab: str, node: str, position: int, limit: int) -> Piece:
        folder = self.folder(lab)
        known = {one.name: one for one in self.record(lab).nodes}
        if node not in known:
            raise NoSuchLab(f"lab {lab} has no node {node}; there are {', '.join(known)}")
        told = known[node]
        return read_output(folder.output(node), told.dropped, told.written, position, limit)

    async def stop(self, lab: str) -> None:
        folder = self.folder(lab)
        pid = self._supervisor_of(folder)
        if pid is not None:
            await self._end_supervisor(folder, pid)
        await self._sweep(lab)
        known = read_record(folder)
        if known is not None and not known.over:
            write_record(folder, self.record(lab))

    async def _end_supervisor(self, folder: LabFolder, pid: int) -> None:
        """In order, which takes its grace; then by force: the kernel ends its nodes with it."""
        os.kill(pid, signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + self._grace + _END_SECONDS
        while self._supervisor_of(folder) == pid:
            if asyncio.get_running_loop().time() >= deadline:
                log.error("a lab's supervisor did not end and is killed", extra={"lab": folder.root.name})
                procfs.kill([pid, *procfs.descendants(pid)])
                deadline = math.inf
            await asyncio.sleep(_LOOK_SECONDS)

    async def _sweep(self, lab: str) -> None:
        """What outlived a supervisor that was killed: found by the mark in its environment. One that the kernel holds back
        is waited for, with a turn for everybody else: heartbeats must not."""
        left = procfs.marked(LAB_VARIABLE, lab)
        if left:
            log.warning("processes outlived their lab and are killed", extra={"lab": lab, "pids": left})
        while left:
            procfs.kill(left)
            await asyncio.sleep(_LOOK_SECONDS)
            left = procfs.marked(LAB_VARIABLE, lab)

    async def remove(self, lab: str) -> None:
        try:
            folder = self.folder(lab)
        except NoSuchLab:
            return
        if self._supervisor_of(folder) is not None:
            raise StillRunning(f"lab {lab} runs: stop it first")
        await self._sweep(lab)  # whose supervisor was killed is not stopped by anybody before
        folder.plan.unlink()  # first: from here on the lab is not there
        await asyncio.to_thread(shutil.rmtree, folder.root, ignore_errors=False)

    async def stop_everything(self) -> None:
        names = [entry.name for entry in self._root.iterdir() if (entry / "plan.json").is_file()]
        await asyncio.gather(*(self.stop(name) for name in names))

    def _supervisor_of(self, folder: LabFolder) -> int | None:
        """The pid of the supervisor that lives, also one of an earlier run of this agent."""
        started = self._started.get(folder.root.name)
        if started is not None and started.poll() is not None:
            del self._started[folder.root.name]
        try:
            found = json.loads(folder.supervisor.read_text(encoding="utf-8"))
            if procfs.is_alive(int(found["pid"]), int(found["started"])):
                return int(found["pid"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            pass  # one that was started just now has not said so yet; an unreadable one is of before a loss of power
        fresh = self._started.get(folder.root.name)
        return fresh.pid if fresh is not None else None


def _is_of(folder: LabFolder, lab: SeatLab) -> bool:
    try:
        return SeatLab.model_validate_json(folder.manifest.read_bytes()) == lab
    except (OSError, ValueError):  # a loss of power may have left it empty
        return False


def _fresh(plan: LabPlan) -> list[NodeRecord]:
    return [NodeRecord(node.name) for node in plan.nodes]


def plan_of(name: str, title: str, seat: SeatLab, account: Account | None, grace: float) -> LabPlan:
    """The seat's lab as its supervisor runs it."""
    return LabPlan(
        id=name,
        title=title,
        until_completed=seat.lab.until is Until.COMPLETED,
        nodes=tuple(_node_plan(seat, node) for node in seat.lab.nodes),
        user=account.user if account is not None else None,
        group=account.group if account is not None else None,
        grace_seconds=grace,
    )


def _node_plan(seat: SeatLab, node: ProcessNode) -> NodePlan:
    wants = node.resources
    limits = Limits(
        memory=wants.memory,
        file_size=wants.disk,
        files=wants.files,
        processes=wants.processes,
        cpu_seconds=math.ceil(wants.cpu_time) if wants.cpu_time is not None else None,
        wall_seconds=wants.time,
    )
    return NodePlan(
        name=node.name,
        argv=node.argv,
        env=seat.environment(node),
        limits=limits,
        check=_check_plan(node.health, seat.ports) if node.health is not None else None,
        restart=str(node.restart.policy),
        restarts=node.restart.max,
        backoff=node.restart.backoff,
        after=tuple((one.node, str(one.condition)) for one in node.depends_on),
    )


def _check_plan(check: HealthCheck, ports: Mapping[str, int]) -> Check:
    kind = "tcp" if check.tcp is not None else "http" if check.http is not None else "command"
    return Check(
        kind=kind,
        port=ports[check.port] if check.port is not None else 0,
        path=check.http.path if check.http is not None else "/",
        command=check.command or (),
        interval=check.interval,
        timeout=check.timeout,
        retries=check.retries,
        start_period=check.start_period,
    )
