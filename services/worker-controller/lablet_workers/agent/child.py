"""Starting one process of a lab: clean, bounded, unprivileged, and bound to its supervisor.

It gets a session of its own, nothing of the agent's environment and files, limits by setrlimit, where the agent is root
another user, no way to more rights (`PR_SET_NO_NEW_PRIVS`), and a death signal for the end of its supervisor. The order
matters: the death signal is forgotten when the user changes, so it comes last.
"""

import asyncio
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lablet_workers.agent.plan import Limits

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAB_VARIABLE = "LABLET_LAB"
"""In every process of a lab: by it the agent finds what outlived its supervisor."""

_awaited: set[int] = set()

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def adopt_orphans() -> None:
    """From now on whatever a lab's processes leave behind becomes this process's child, and is found at the end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def clean_environment(lab: str, home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """A plain environment and what the lab says."""
    plain = {"PATH": _PATH, "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
    return plain | dict(given) | {LAB_VARIABLE: lab}


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    limits: Limits,
    user: int | None = None,
    group: int | None = None,
    output: int = subprocess.DEVNULL,
) -> "subprocess.Popen[bytes]":
    """Starts it. Call it from a process without other threads. Raises OSError when the program cannot be run."""
    supervisor = os.getpid()
    drops = user is not None and os.geteuid() == 0

    def bind() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _limit(limits, counts_processes=drops)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it ended before the wish was made
            os._exit(SIGKILLED)

    process = subprocess.Popen(  # noqa: S603 - an approved manifest says what is run
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(env),
        cwd=cwd,
        user=user if drops else None,
        group=group if drops else None,
        extra_groups=[] if drops else None,
        umask=0o077,
        start_new_session=True,
        preexec_fn=bind,  # noqa: PLW1509 - a supervisor has one thread
    )
    _awaited.add(process.pid)
    return process


def is_awaited(pid: int) -> bool:
    """Started here, and its exit code not taken yet: nobody else may take it."""
    return pid in _awaited


def exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Of a process that has ended, or is about to."""
    code = process.wait()
    _awaited.discard(process.pid)
    return code


async def until_ended(process: "subprocess.Popen[bytes]") -> None:
    """Returns when it has ended, without taking its exit code: until that is taken, its group keeps its number."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    try:
        loop.add_reader(descriptor, done.set)
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


SIGKILLED = 137


def _limit(limits: Limits, *, counts_processes: bool) -> None:
    wanted = [
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        # counted over all processes of the user: as the agent's own user it would bound the agent
        (resource.RLIMIT_NPROC, limits.processes if counts_processes else None),
        (resource.RLIMIT_CORE, 0),
    ]
    for what, most in wanted:
        if most is None:
            continue
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
