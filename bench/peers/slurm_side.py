"""Slurm: `scontrol create reservation` at a slurmctld and a munged of its own, in a folder that goes with it.

One scontrol reads all commands of a run, so no process is started for a reservation. The nodes are CLOUD nodes that are
off: they can be reserved and none has to run. Slurm answers first and writes its state file after some time; a run ends
when the last reservation stands in that file (`durable_seconds`; it is written, Slurm promises no more). No configuration
of Slurm makes the answer wait for the disk.

Two modes: the caller names the node, or Slurm chooses one (`NodeCnt=1`).
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lablet_common.testing.etcd import free_ports
from peers.workload import Ask, Workload

PROGRAMS = ("slurmctld", "scontrol", "munged", "mungekey")
MOST = 9_999
"""Reservations that a slurmctld takes."""
WAIT_SECONDS = 30.0
CHUNK = 20
"""Commands between two looks at the clock."""
_TICK = os.sysconf("SC_CLK_TCK")
_CONFIG = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmctldDebug=error
ReturnToService=2
SelectType=select/linear
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=INFINITE
NodeName=n[0000-{last:04d}] NodeAddr=127.0.0.1 CPUs=16 RealMemory=65536 State=CLOUD
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found is not None
    return found


class Controller:
    """A running slurmctld."""

    def __init__(self, folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        self._folder = folder
        self._processes = processes
        self._environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "TZ": "UTC"}

    def run(self, commands: Iterable[str]) -> str:
        """What scontrol says to the commands."""
        done = subprocess.run(
            [program("scontrol")],
            input="\n".join(commands).encode(),
            env=self._environment,
            capture_output=True,
            timeout=600,
            check=False,
        )
        return (done.stdout + done.stderr).decode()

    def create(self, commands: list[str]) -> tuple[int, str]:
        """How many reservations were made, and the last line that says otherwise."""
        said = self.run(commands).splitlines()
        errors = [line for line in said if line.startswith("Error")]
        return sum("Reservation created" in line for line in said), errors[-1] if errors else ""

    def await_answer(self) -> None:
        until(lambda: "is UP" in self.run(["ping"]), f"slurmctld does not answer: see {self._folder}")

    def await_saved(self, name: str) -> None:
        """Until the state file holds the reservation."""
        state = self._folder / "state" / "resv_state"
        until(lambda: state.exists() and name.encode() in state.read_bytes(), f"{name} does not come into {state}")

    def cpu_seconds(self) -> float:
        """Of slurmctld and munged."""
        total = 0
        for process in self._processes:
            stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += int(stat[11]) + int(stat[12])
        return total / _TICK


def until(met: Any, otherwise: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not met():
        if time.monotonic() > end:
            raise SystemExit(otherwise)
        time.sleep(0.02)


@contextmanager
def controller(hosts: int) -> Iterator[Controller]:
    """slurmctld and munged with so many nodes; both end with the block."""
    with ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="lablet-slurm-")))
        folder.chmod(0o755)  # munged wants its folders closed to other writers, and its socket reachable
        (folder / "state").mkdir()
        name = os.uname().nodename.partition(".")[0]
        user = Path("/proc/self").owner()
        config = _CONFIG.format(host=name, port=free_ports(1)[0], user=user, folder=folder, last=hosts - 1)
        (folder / "slurm.conf").write_text(config, encoding="utf-8")
        subprocess.run([program("mungekey"), "--create", f"--keyfile={folder}/munge.key"], check=True)
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={folder}/munge.{suffix}" for option, suffix in files.items()]
        processes: list[subprocess.Popen[bytes]] = []
        leaving.callback(_end, processes)
        with (folder / "out").open("wb") as out:
            processes.append(subprocess.Popen([program("munged"), "--foreground", *munge], stdout=out, stderr=out))
            until((folder / "munge.sock").exists, "munged does not start")
            slurm = [program("slurmctld"), "-D", "-c", "-f", str(folder / "slurm.conf")]
            environment = {**os.environ, "TZ": "UTC"}
            processes.append(subprocess.Popen(slurm, stdout=out, stderr=out, env=environment))
        made = Controller(folder, processes)
        made.await_answer()
        yield made


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.terminate()
        process.wait(timeout=WAIT_SECONDS)


def command(ask: Ask, *, named: bool) -> str:
    where = f"Nodes=n{ask.host:04d}" if named else "NodeCnt=1 PartitionName=all"
    return f"create reservation ReservationName={ask.name} StartTime={ask.start}:00 EndTime={ask.end}:00 Users=root {where}"


def measure(work: Workload, *, named: bool) -> dict[str, Any]:
    """The workload in one mode. Raises `SystemExit` when what stands before is not taken."""
    with controller(work.hosts) as slurm:
        if work.before:
            made, said = slurm.create([command(ask, named=True) for ask in work.before])
            if made < len(work.before):
                raise SystemExit(f"Slurm took {made} of {len(work.before)} reservations: {said}")
            slurm.await_saved(work.before[-1].name)
        done = refused = 0
        last = ""
        used, began = slurm.cpu_seconds(), time.perf_counter()
        for first in range(0, len(work.asked), CHUNK):
            chunk = work.asked[first : first + CHUNK]
            made, _ = slurm.create([command(ask, named=named) for ask in chunk])
            done, refused, last = done + made, refused + len(chunk) - made, chunk[-1].name
            if time.perf_counter() - began > work.budget:
                break
        seconds = time.perf_counter() - began
        used = slurm.cpu_seconds() - used
        slurm.await_saved(last)
        saved = time.perf_counter() - began
    figures = {"done": done, "seconds": seconds, "refused": refused, "cpu_seconds": used}
    return {**figures, "durable_seconds": saved}
