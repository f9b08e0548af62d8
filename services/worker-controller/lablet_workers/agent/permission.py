"""The permission to run labs: a file with the moment up to which the mesh has granted it.

The agent writes it after each grant, every lab's supervisor reads it. The moment is by the clock that also runs while the
host sleeps (CLOCK_BOOTTIME), and is worth something within one boot only. No file, or one that cannot be read, means no
permission: whoever is in doubt stops.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from lablet_workers.agent.plan import write_json

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> float:
    """Seconds since boot, sleep counted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class Permission:
    """`until` by `now()`; `epoch` names the session of the agent that it was granted to."""

    epoch: str
    until: float

    @property
    def left(self) -> float:
        """Seconds; below 0 when it has run out."""
        return self.until - now()


def write_permission(path: Path, permission: Permission) -> None:
    write_json(path, {"epoch": permission.epoch, "until": permission.until, "boot": boot_id()})


def read_permission(path: Path) -> Permission | None:
    """None: there is none, or none of this boot."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["boot"] != boot_id():
            return None
        return Permission(str(found["epoch"]), float(found["until"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
