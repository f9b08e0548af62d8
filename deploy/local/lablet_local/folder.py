"""The data folder: everything that a mesh keeps, and the lock that says whether one runs on it.

The lock is the kernel's (`flock`), so it cannot be left behind. `mesh.json` is what `lablet status` reads; it is only
true while the lock is held.
"""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class AlreadyRunning(Exception):
    """A mesh runs on this folder."""

    def __init__(self, folder: "DataFolder", pid: int | None) -> None:
        self.pid = pid
        state = folder.read_state()
        self.url = str(state.get("url", ""))
        super().__init__(f"a mesh is running on {folder.root} already (pid {pid}{', ' + self.url if self.url else ''})")


def default_data_folder() -> Path:
    """`$LABLET_HOME`, else `~/.local/share/lablet`."""
    named = os.environ.get("LABLET_HOME")
    return Path(named) if named else Path.home() / ".local" / "share" / "lablet"


@dataclass(frozen=True, slots=True)
class DataFolder:
    root: Path

    def create(self) -> None:
        """Makes the folder and its rooms, readable by the owner only."""
        for room in (self.root, self.secrets, self.logs, self.etcd, self.nats, self.s3, self.cloud):
            room.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def s3(self) -> Path:
        return self.root / "s3"

    @property
    def cloud(self) -> Path:
        return self.root / "cloud"

    @property
    def connection(self) -> Path:
        return self.root / "connection.json"

    @property
    def state(self) -> Path:
        return self.root / "mesh.json"

    @property
    def choices(self) -> Path:
        """What the last start chose and the next one takes up again: port base and speed."""
        return self.root / "choices.json"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def read_state(self) -> Json:
        return read_json(self.state)

    def lock(self) -> "Lock":
        """Takes the folder for this process. Raises `AlreadyRunning`."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.root / "mesh.lock", os.O_RDWR | os.O_CREAT, 0o600)
        for left in (2, 1, 0):  # somebody who only asks for the holder has the lock for an instant
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if left:
                    time.sleep(0.02)
                    continue
                holder = os.pread(descriptor, 32, 0).decode().strip()
                os.close(descriptor)
                raise AlreadyRunning(self, int(holder) if holder.isdigit() else None) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return Lock(descriptor)

    def holder(self) -> int | None:
        """The pid of the mesh that runs on this folder; None when none does."""
        if not (self.root / "mesh.lock").exists():
            return None
        try:
            self.lock().release()
        except AlreadyRunning as running:
            return running.pid
        return None


class Lock:
    """The folder is ours until `release`, or until this process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


def read_json(path: Path) -> Json:
    """A JSON object from a file; empty when the file is missing or torn."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def write_private(path: Path, text: str) -> None:
    """Replaces a file as a whole, mode 0600 from the first byte on."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
