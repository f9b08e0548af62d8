"""Health checks: whatever is asked says something, says it in time, and leaves nothing behind."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lablet_common.testing.etcd import free_ports
from lablet_workers.agent import child
from lablet_workers.agent.child import LAB_VARIABLE
from lablet_workers.agent.health import fault_of
from lablet_workers.agent.plan import Check, Limits
from lablet_workers.agent.procfs import marked


@asynccontextmanager
async def answering(words: bytes) -> AsyncIterator[int]:
    """A port on which that is said."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        writer.close()

    (port,) = free_ports(1)
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield port


def starting(folder: Path) -> Callable[[tuple[str, ...]], "subprocess.Popen[bytes]"]:
    environment = child.clean_environment("checked", folder, {})
    return lambda command: child.spawn(command, env=environment, cwd=folder, limits=Limits())


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 503 Later\r\n\r\n", "503"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 \xb2\xb2\r\n\r\n", ""),
        (b"x" * 200_000, ""),
    ],
)
async def test_whatever_answers_is_healthy_or_a_fault(tmp_path: Path, words: bytes, fault: str | None) -> None:
    async with answering(words) as port:
        found = await fault_of(Check(kind="http", port=port), starting(tmp_path))
    assert found is None if fault is None else found is not None and fault in found


@pytest.mark.parametrize("command", ["sleep 300 & wait", "sleep 300 & exit 0"])
async def test_a_check_leaves_nothing_running(tmp_path: Path, command: str) -> None:
    check = Check(kind="command", command=("/bin/sh", "-c", command), timeout=0.5)
    await fault_of(check, starting(tmp_path))
    async with asyncio.timeout(5):
        while marked(LAB_VARIABLE, "checked"):
            await asyncio.sleep(0.01)


async def test_a_check_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    def refuses(_: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        raise subprocess.SubprocessError("Exception occurred in preexec_fn.")

    assert await fault_of(Check(kind="command", command=("true",)), refuses) == "Exception occurred in preexec_fn."
