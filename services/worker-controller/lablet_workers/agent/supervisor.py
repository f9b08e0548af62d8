"""The process beside each lab: runs its nodes, and ends them all when it is told to, or when the permission runs out.

It lives on when the agent is started anew, and keeps the mesh's deadline without it: should the agent be gone, hang, or be
cut off, the lab is over before the mesh may start it elsewhere. When the supervisor itself dies, the kernel ends the nodes
(see `child`). At the end nothing of the lab is left: whatever its processes started is this process's descendant, and is
killed until none is there.

    python -m lablet_workers.agent.supervisor LAB_FOLDER PERMISSION_FILE
"""

import asyncio
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from lablet_workers.agent import child, procfs
from lablet_workers.agent.node import Node
from lablet_workers.agent.permission import read_permission
from lablet_workers.agent.plan import LabFolder, LabPlan, LabRecord, read_plan, write_json, write_record

_LOOK_SECONDS = 0.2
"""Between looks at the permission."""
_MARGIN_SECONDS = 1.0
"""So long before the permission's end the last process is killed."""
_RECORD_SECONDS = 0.1
"""Between two records of output's growth; changes of state are recorded at once."""

LEASE_OVER = "PermissionOver"
STOPPED = "Stopped"


class Supervisor:
    """One lab."""

    def __init__(self, folder: LabFolder, permission: Path) -> None:
        self._folder = folder
        self._permission = permission
        self._plan: LabPlan = read_plan(folder)
        self._record = LabRecord(self._plan.id, self._plan.title)
        self._nodes = {
            plan.name: Node(self._plan, plan, folder, self._changed, self._write) for plan in self._plan.nodes
        }
        self._record.nodes = [node.record for node in self._nodes.values()]
        self._stop = asyncio.Event()
        self._reason = ""
        self._dirty = asyncio.Event()

    async def run(self) -> None:
        """Until the lab is over and nothing of it is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop, STOPPED)
        self._write()
        running = [asyncio.create_task(node.run(self._nodes)) for node in self._nodes.values()]
        watches = (self._watch_permission(), self._keep_record(), self._reap(), _watch_nodes(running))
        helpers = [asyncio.create_task(work) for work in watches]
        stopping = asyncio.create_task(self._stop.wait())
        complete = asyncio.create_task(self._complete())
        try:
            await asyncio.wait({stopping, complete, *helpers}, return_when=asyncio.FIRST_COMPLETED)
            for helper in helpers:
                if helper.done() and helper.exception() is not None:
                    self._ask_to_stop(f"the supervisor failed: {helper.exception()!r}")
            await asyncio.gather(*(node.stop() for node in self._nodes.values()))
            await asyncio.wait(running)
        finally:
            self._end_everything()
            for task in (*helpers, stopping, complete):
                task.cancel()
        completed = not self._stop.is_set()
        self._record.phase = "completed" if completed else "stopped"
        self._record.reason = "Completed" if completed else self._reason
        self._record.exit_code = self._exit_code() if completed else None
        self._write()

    def _ask_to_stop(self, reason: str) -> None:
        if not self._stop.is_set():
            self._reason = reason
            self._stop.set()

    def _changed(self) -> None:
        self._dirty.set()

    async def _complete(self) -> None:
        """Returns when a lab that ends with its processes has come to its end; never for another."""
        if not self._plan.until_completed:
            await asyncio.Event().wait()
        finite = [node for node in self._nodes.values() if node.plan.ends]
        while not all(node.over for node in finite):
            waiting = [asyncio.ensure_future(node.news()) for node in finite if not node.over]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()

    def _exit_code(self) -> int:
        codes = [node.record.exit_code for node in self._nodes.values() if node.plan.ends]
        return next((code for code in codes if code), 0)

    async def _watch_permission(self) -> None:
        """Early enough for everything to have ended in time."""
        early = self._plan.grace_seconds + _MARGIN_SECONDS
        while True:
            permission = read_permission(self._permission)
            if permission is None or permission.left <= early:
                self._ask_to_stop(LEASE_OVER)
                return
            await asyncio.sleep(min(_LOOK_SECONDS, permission.left - early))

    async def _keep_record(self) -> None:
        last: list[tuple[str, int | None, str]] = []
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            now = [(node.record.phase, node.record.exit_code, node.record.message) for node in self._nodes.values()]
            if now == last:
                await asyncio.sleep(_RECORD_SECONDS)
            last = now
            if not self._stop.is_set():
                self._record.phase = "running" if self._is_up() else "starting"
            self._write()

    def _is_up(self) -> bool:
        return all(node.healthy or node.over for node in self._nodes.values())

    async def _reap(self) -> None:
        """Takes the exit codes of orphans that became this process's children."""
        while True:
            await asyncio.sleep(1.0)
            for pid in procfs.children(os.getpid()):
                if not child.is_awaited(pid) and procfs.start_time(pid) is None:
                    self._wait_for(pid)

    @staticmethod
    def _wait_for(pid: int) -> None:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return  # whoever started it has taken it

    def _end_everything(self) -> None:
        """Kills what is left until nothing is; what forks while it is killed is met in the next round."""
        me = os.getpid()
        while left := [pid for pid in procfs.descendants(me) if procfs.start_time(pid) is not None]:
            procfs.kill(left)
            for pid in left:
                self._wait_for(pid)
            time.sleep(0.002)

    def _write(self) -> None:
        write_record(self._folder, self._record)


async def _watch_nodes(running: list["asyncio.Task[None]"]) -> None:
    """Raises what a node's own run was broken off by: it would be waited for, and not be started again, for ever."""
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    for node in done:
        node.result()
    await asyncio.Event().wait()


def main() -> None:
    """One lab, until its end. Ends at once when another supervisor has it."""
    folder, permission = LabFolder(Path(sys.argv[1])), Path(sys.argv[2])
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another supervisor has this lab")
    child.adopt_orphans()
    write_json(folder.supervisor, {"pid": os.getpid(), "started": procfs.start_time(os.getpid())})
    asyncio.run(Supervisor(folder, permission).run())


if __name__ == "__main__":
    main()
