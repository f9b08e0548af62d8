"""Starts a program that dies with its parent, so that no process is left behind when the mesh itself is killed.

The kernel is asked (`PR_SET_PDEATHSIG`) to send a signal when the thread that forked this process ends; the wish
survives `exec`. It is done here, in a few lines run by a bare interpreter between fork and exec, rather than in a
`preexec_fn`, which is not safe beside threads and gRPC. Costs about 20 ms per process. Linux only; what the started
program itself starts must make the same wish.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def bound_to_parent(command: list[str], death_signal: int = signal.SIGKILL) -> list[str]:
    """The command line that runs `command` so that it gets `death_signal` when the calling thread ends."""
    here = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", here, str(int(death_signal)), str(os.getpid()), *command]


def _main() -> None:
    death_signal, parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        sys.exit(f"cannot bind to the parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):  # it ended before the wish was made
        sys.exit("the parent has ended already")
    try:
        os.execvp(command[0], command)  # noqa: S606 - that is its whole purpose; the caller chose the command
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    _main()
