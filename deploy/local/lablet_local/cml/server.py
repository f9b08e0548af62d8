"""One simulator as a process: sockets, signals, the ready line, and the end.

uvicorn carries HTTP; its own signal handling, access log and lifespan are off. SIGTERM and SIGINT end the process at
once: running requests are not waited for, as little as a switched-off machine would. With `die_with_parent` the kernel
kills the process when the thread that started it dies.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import App

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where the API listens. `certificate` and `key` (PEM files) make it TLS."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"


def die_with_parent(parent: int) -> None:
    """Asks Linux to SIGKILL this process when its parent ends; exits at once if `parent` is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the parent process is gone")


def listen(place: Place) -> socket.socket:
    """The API's listening socket. Raises `OSError`, naming the address, when it cannot be had."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((place.host, place.port))
        made.listen(512)
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"{place.host}:{place.port}: {error.strerror}") from None
    return made


def run(place: Place, listener: socket.socket, ready: dict[str, object], start: Callable[[], App]) -> None:
    """Serves until SIGTERM or SIGINT. `start()` makes the application on the loop; `ready` is the line printed."""
    import uvicorn

    async def serve() -> None:
        app = start()
        config = uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            ssl_certfile=place.certificate,
            ssl_keyfile=place.key,
        )
        config.load()
        protocol = config.http_protocol_class
        state = uvicorn.server.ServerState()
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        server = await loop.create_server(
            lambda: protocol(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]  # both protocols take these
            sock=listener,
            ssl=config.ssl,
        )
        print(json.dumps(ready), flush=True)
        await ended.wait()
        server.close()
        app.controller.close()

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    try:
        import uvloop

        uvloop.run(serve())
    except ImportError:
        asyncio.run(serve())
