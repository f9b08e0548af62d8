"""Health checks of a lab's nodes: a TCP connection, an HTTP answer, or a command's exit code. Each within its time."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

from lablet_workers.agent import child
from lablet_workers.agent.plan import Check

_HOST = "127.0.0.1"
_GOOD = range(200, 400)

Run = Callable[[tuple[str, ...]], "subprocess.Popen[bytes]"]
"""Starts a command as the node is started."""


async def fault_of(check: Check, run: Run) -> str | None:
    """None when the node is healthy, else what was wrong."""
    try:
        async with asyncio.timeout(check.timeout):
            match check.kind:
                case "tcp":
                    return await _tcp(check.port)
                case "http":
                    return await _http(check.port, check.path)
                case _:
                    return await _command(check.command, run)
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, subprocess.SubprocessError) as error:  # it answers what is no line, or cannot be asked
        return str(error)


async def _tcp(port: int) -> str | None:
    _, writer = await asyncio.open_connection(_HOST, port)
    writer.close()
    return None


async def _http(port: int, path: str) -> str | None:
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nUser-Agent: lablet-agent\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode("ascii"))
        line = (await reader.readline()).decode("latin-1").split()
    finally:
        writer.close()
    if len(line) < 2 or not line[1].isdigit():
        return "its answer is not HTTP"
    return None if int(line[1]) in _GOOD else f"it answers {line[1]}"


async def _command(command: tuple[str, ...], run: Run) -> str | None:
    process = run(command)
    try:
        await child.until_ended(process)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started: a check is made for weeks
        code = child.exit_code(process)
    return None if code == 0 else f"the check ended with {code}"
