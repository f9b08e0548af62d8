"""`lablet up` and `lablet down`: the mesh in the foreground or detached, and its end.

In the foreground the first Ctrl-C or SIGTERM ends the mesh in order; a second one ends this process at once, and the
kernel ends the rest. Detached, a copy of this program runs the mesh and tells through a pipe when it is ready.
"""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lablet_local.binaries import BinaryMissing
from lablet_local.folder import AlreadyRunning, DataFolder
from lablet_local.logfiles import open_log, tail
from lablet_local.members import OtherShape
from lablet_local.mesh import LocalMesh, TemplatesMissing
from lablet_local.pace import TooFast
from lablet_local.ports import PortsBusy
from lablet_local.services import UnknownService
from lablet_local.supervisor import NotReady

_READY_FD = "LABLET_READY_FD"
_DOWN_SECONDS = 40.0
DONE, REFUSED, USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class UpOptions:
    data: Path
    speed: float | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    port_base: int | None = None
    scenario: Path | None = None
    agents: int = 0
    ha: bool = False

    def arguments(self) -> list[str]:
        """The same as a command line."""
        given = ["up", "--data", str(self.data)]
        given += ["--speed", f"{self.speed:g}"] if self.speed is not None else []
        given += ["--port-base", str(self.port_base)] if self.port_base is not None else []
        given += ["--agents", str(self.agents)] if self.agents else []
        given += ["--ha"] if self.ha else []
        given += ["--scenario", str(self.scenario)] if self.scenario is not None else []
        return given + [part for name, count in self.replicas.items() for part in ("--replicas", f"{name}={count}")]


def say(line: str) -> None:
    """One line for the person (standard output may have been closed meanwhile)."""
    with suppress(BrokenPipeError):
        print(line, flush=True)


def complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_foreground(options: UpOptions) -> int:
    """Runs the mesh until it is asked to end. Returns the exit code."""
    try:
        return asyncio.run(_live(options))
    except AlreadyRunning as running:
        complain(f"{running}; stop it with `lablet down`, look at it with `lablet status`, or choose another --data")
        return REFUSED
    except PortsBusy as busy:
        complain(f"{busy}; choose another --port-base, or leave it away to have a free one found")
        return REFUSED
    except (OtherShape, TooFast, UnknownService) as error:
        complain(str(error))
        return USAGE
    except (BinaryMissing, NotReady, TemplatesMissing) as error:
        complain(f"{error}\n`lablet doctor` checks each part and says what to do")
        return REFUSED


async def _live(options: UpOptions) -> int:
    stop = asyncio.Event()
    mesh = LocalMesh(
        options.data,
        speed=options.speed,
        replicas=options.replicas,
        port_base=options.port_base,
        scenario=options.scenario,
        agents=options.agents,
        ha=options.ha,
        announce=say,
        pointer=True,
        spans=True,
    )

    def ask() -> None:
        if stop.is_set():
            os._exit(130)  # asked twice: the kernel ends the children with us
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ask)
    starting = asyncio.create_task(mesh.start(), name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        say("stopping before it was ready …")
        starting.cancel()
        await asyncio.wait({starting})
        return REFUSED
    await starting
    show_mesh(mesh.folder.read_state())
    say(f"ready in {mesh.seconds_to_ready:.1f} s; data in {mesh.folder.root}")
    if not _tell_ready():
        say("Ctrl-C stops it")
    await stopping
    say("stopping …")
    await mesh.stop()
    say("stopped; nothing is left running")
    return DONE


def _tell_ready() -> bool:
    descriptor = os.environ.pop(_READY_FD, None)
    if descriptor is None:
        return False
    with os.fdopen(int(descriptor), "w") as pipe:
        pipe.write("ready")
    return True


def run_detached(options: UpOptions) -> int:
    """Starts the mesh in a process of its own and returns once it is ready. Returns the exit code."""
    folder = DataFolder(options.data.expanduser().resolve())
    if (pid := folder.holder()) is not None:
        say(str(AlreadyRunning(folder, pid)))
        return DONE
    folder.create()
    path = folder.log("mesh")
    reading, writing = os.pipe()
    log = open_log(path)
    mark = os.lseek(log, 0, os.SEEK_END)
    child = subprocess.Popen(  # noqa: S603 - this program itself
        [sys.executable, "-m", "lablet_local", *options.arguments()],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[writing],
        start_new_session=True,
        env={**os.environ, _READY_FD: str(writing), "PYTHONUNBUFFERED": "1"},
    )
    os.close(writing)
    os.close(log)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    if told != "ready":
        code = child.wait()
        with path.open("rb") as file:
            file.seek(mark)
            complain(file.read().decode("utf-8", "replace").strip() or tail(path))
        return code or REFUSED
    state = folder.read_state()
    show_mesh(state)
    say(f"ready in {state['secondsToReady']:.1f} s, detached (pid {child.pid}); `lablet down` stops it")
    return DONE


def run_down(data: Path) -> int:
    """Ends the mesh of a data folder in order and waits for it. Returns the exit code."""
    folder = DataFolder(data.expanduser().resolve())
    pid = folder.holder()
    if pid is None:
        say(f"no mesh is running on {folder.root}")
        return DONE
    began = time.monotonic()
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        say("it has just ended")
        return DONE
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], _DOWN_SECONDS)
        if not ended:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            complain(f"the mesh (pid {pid}) did not end within {_DOWN_SECONDS:g} s and was killed")
            return REFUSED
    finally:
        os.close(process)
    say(f"stopped in {time.monotonic() - began:.1f} s")
    return DONE


def show_mesh(state: Mapping[str, Any]) -> None:
    """The addresses as a small table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("process", "address", "pid"):
        table.add_column(column, justify="right" if column == "pid" else "left", no_wrap=True)
    for process in state["processes"]:
        table.add_row(process["name"], process["address"], str(process["pid"] or "-"))
    with suppress(BrokenPipeError):
        Console().print(table)
        speed = f", lab time ×{state['speed']:g}" if state["speed"] != 1 else ""
        print(f"console {state['url']}/ · API {state['url']}/api/docs{speed}", flush=True)
