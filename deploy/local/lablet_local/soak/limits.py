"""How much each series may grow from the end of the warm-up to the end of the run, and why that much.

Every series that is looked at falls under one limit: what nobody has thought of is a finding, not a gap.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

MIB = 1024.0 * 1024.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be added to a series, the largest of three: a number, a part of its median, so much for each deed."""

    series: str
    """Pattern of names, such as `fds/*`."""
    words: str
    """What it is, for a person."""
    unit: str = ""
    floor: float = 0.0
    percent: float = 0.0
    deed: float = 0.0
    """For each deed of the load in the judged part."""
    because: str = ""
    """Why it may grow with the deeds, or is only looked at."""
    judged: bool = True
    counted: bool = False
    """It counts what should not happen: every rise of it is added up, from the run's first moment to its last and however
    short that was. A slope does not see a single step."""

    def allowed(self, median: float, deeds: float) -> float:
        return max(self.floor, abs(median) * self.percent / 100, deeds * self.deed)


def _shown(series: str, words: str, because: str, unit: str = "") -> Limit:
    return Limit(series, words, unit, because=because, judged=False)


_HARNESS = "it is the run's own: it remembers everything that it asked"
_HISTORY = "history is kept: an entry for each reservation and each instance"
_TREE = "rclone keeps its tree of files in memory, some 4 kB for each object, and the archive grows"
_ENTRIES = 2.0 * 4 * 1024.0
_MACHINES = "simulated workers come and go with the load"

LIMITS: tuple[Limit, ...] = (
    _shown("*/soak", "the load itself", _HARNESS),
    _shown("*/machines", "the simulated workers' processes", _MACHINES),
    _shown("load/*", "what was asked", "it counts"),
    _shown("cpu_seconds/*", "processor time", "it counts"),
    _shown(
        "pss_bytes/*", "memory with a share of what is shared", "it follows what others of the machine share", "bytes"
    ),
    _shown("loop_lag_seconds/*", "how late event loops are", "it follows the machine's other work", "seconds"),
    _shown("etcd_revision/*", "revisions of etcd", "it counts"),
    _shown("stream_last/*", "messages published", "it counts"),
    _shown("*/cloud", "the simulated cloud", "its machines' logs are the witness, and are kept whole"),
    Limit("rss_bytes/s3", "resident memory of the object store", "bytes", floor=8 * MIB, deed=_ENTRIES, because=_TREE),
    Limit("uss_bytes/s3", "memory of the object store alone", "bytes", floor=8 * MIB, deed=_ENTRIES, because=_TREE),
    Limit("rss_bytes/*", "resident memory of a process", "bytes", floor=8 * MIB, percent=5),
    Limit("uss_bytes/*", "memory of a process alone", "bytes", floor=8 * MIB, percent=5),
    Limit("fds/*", "open files of a process", floor=3),
    Limit("threads/*", "threads of a process", floor=2),
    Limit("tasks/*", "tasks of an event loop", floor=5, percent=1),
    Limit("metrics/*", "series of metrics", floor=20, percent=3),
    Limit("restarts/*", "processes that died", counted=True),
    Limit("reconcile_failures/*", "failed reconcile steps", floor=5, deed=0.001, counted=True),
    Limit("events_dead_lettered/*", "messages given up on", counted=True),
    Limit("bus_rebuilds/*", "pulls built anew", floor=2, counted=True),
    Limit("nats_connections/*", "connections to NATS", floor=1),
    Limit("nats_subscriptions/*", "subscriptions at NATS", floor=10, percent=5),
    Limit("nats_slow_consumers/*", "connections that NATS cut", counted=True),
    Limit("nats_streams/*", "streams"),
    Limit("nats_consumers/*", "consumers of streams", floor=3),
    Limit("stream_messages/*", "messages kept by a stream", floor=50, percent=10),
    Limit("stream_bytes/*", "bytes kept by a stream", "bytes", floor=0.2 * MIB, percent=10),
    Limit("etcd_db_bytes/*", "etcd's file", "bytes", floor=1 * MIB, percent=10),
    Limit("etcd_in_use_bytes/*", "etcd's file, in use", "bytes", floor=1 * MIB, percent=10),
    Limit("etcd_watchers/*", "watches of etcd", floor=3),
    Limit("etcd_leases/*", "leases of etcd", floor=1),
    Limit("etcd_live_keys/*", "keys of etcd", floor=50, percent=10),
    Limit("etcd_keys/*", "keys of a kind", floor=20, percent=10),
    Limit("objects/archive", "objects of the archive", deed=2.0, because=_HISTORY),
    Limit("objects/*", "other objects in S3", floor=30, percent=10),
    Limit("files/s3", "files of S3", deed=2.0, because=_HISTORY),
    Limit("disk_bytes/s3", "S3 on disk", "bytes", deed=16 * 1024.0, because=_HISTORY + ", a disk block each at least"),
    Limit("disk_bytes/etcd", "etcd on disk", "bytes", floor=5 * 64 * MIB, because="it keeps up to five logs of 64 MiB"),
    Limit("disk_bytes/nats", "NATS on disk", "bytes", floor=16 * MIB, percent=10),
    Limit(
        "disk_bytes/logs",
        "logs",
        "bytes",
        deed=20 * 1024.0,
        because="each is cut at 8 MiB, and two older parts are kept",
    ),
    Limit("disk_bytes/*", "other files on disk", "bytes", floor=1 * MIB),
    Limit("files/*", "files on disk", floor=30),
)


def limit_of(name: str, limits: tuple[Limit, ...] = LIMITS) -> Limit | None:
    """The first that fits."""
    return next((one for one in limits if fnmatchcase(name, one.series)), None)
