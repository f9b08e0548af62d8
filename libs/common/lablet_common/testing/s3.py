"""A real S3 server for tests, and a front before it that answers as sick object stores do.

The server is rclone's, on a free port of 127.0.0.1, ended with the test. The front passes everything on unchanged (the
signature stays valid) but for what a test asks of it: an error answer, silence, a connection that breaks off before or after
the server has done the work.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import aiohttp
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from lablet_common.bus.permissions import ServerTls
from lablet_common.settings import StorageSettings

ACCESS_KEY, SECRET_KEY = "lablet-test-access-key", "lablet-test-secret-key"
_START_SECONDS = 20.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"})


def settings_for(endpoint: str, secret_key: str = SECRET_KEY) -> StorageSettings:
    """How to reach a server that `s3_server` started."""
    return StorageSettings(endpoint=endpoint, access_key=SecretStr(ACCESS_KEY), secret_key=SecretStr(secret_key))


@contextmanager
def s3_server(folder: Path, tls: ServerTls | None = None) -> Iterator[str]:
    """The address of a server that keeps its objects under `folder`; with `tls` it speaks nothing else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rclone = Path(sys.executable).with_name("rclone")
    environment = os.environ | {"RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{SECRET_KEY}"', "RCLONE_CONFIG": os.devnull}
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", str(folder)]
    if tls is not None:
        command += ["--cert", str(tls.cert), "--key", str(tls.key)]
    process = subprocess.Popen(  # noqa: S603 - no shell, and only what stands here
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_answer(f"http://127.0.0.1:{port}/", process)  # one that speaks TLS answers such a request too: 400
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urlopen(url, timeout=1):  # noqa: S310 - an address of this machine
                return
        except HTTPError:
            return
        except (URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("rclone did not start") from None
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Sickness:
    """What happens to a request. `status` with `code`: an error answer; `silent`: seconds before anything is done;
    `drop`: the connection breaks off, `after_work`: once the server has done what was asked."""

    status: int = 0
    code: str = ""
    silent: float = 0.0
    drop: bool = False
    after_work: bool = False


@dataclass
class SickS3:
    """Listens on a free port of 127.0.0.1 while inside `async with`. `sickness` is asked about each request by its method
    and key; None: it is well."""

    target: str
    sickness: Callable[[str, str], Sickness | None] = lambda _method, _key: None
    requests: int = 0
    suffered: int = 0
    """Requests that were not simply passed on."""
    _runner: web.AppRunner | None = None
    _session: aiohttp.ClientSession | None = None
    _port: int = field(default=0)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._session.close()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        ill = self.sickness(request.method, request.path.lstrip("/").partition("/")[2])
        if ill is None:
            return await self._pass_on(request)
        self.suffered += 1
        if ill.silent:
            await asyncio.sleep(ill.silent)
        if ill.after_work:
            await self._pass_on(request)
        if ill.drop and request.transport is not None:
            request.transport.abort()
        if ill.status:
            text = f"<?xml version='1.0'?><Error><Code>{ill.code}</Code><Message>sick</Message></Error>"
            return web.Response(status=ill.status, text=text, content_type="application/xml")
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = URL(f"{self.target}{request.raw_path}", encoded=True)
        data = await request.read()
        async with self._session.request(request.method, url, headers=headers, data=data or None) as answer:
            body = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if request.method == "HEAD" and "Content-Length" in answer.headers:
                kept["Content-Length"] = answer.headers["Content-Length"]
            return web.Response(status=answer.status, headers=kept, body=body)
