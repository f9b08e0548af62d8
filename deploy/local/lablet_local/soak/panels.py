"""Which series of a record are drawn together. Pure."""

from collections.abc import Mapping, Sequence

from lablet_local.soak.chart import Panel
from lablet_local.soak.limits import MIB
from lablet_local.soak.record import Recorded
from lablet_local.soak.trend import Point
from lablet_local.soak.verdict import points_of

SERVICES = ("api-gateway-1", "scheduler-1", "worker-controller-1", "artifact-service-1")
_SERVERS = ("etcd", "nats", "s3", "cloud")
_SHORT = {
    "api-gateway-1": "gateway",
    "scheduler-1": "scheduler",
    "worker-controller-1": "workers",
    "artifact-service-1": "artifacts",
}
_KINDS = ("requests", "reservations", "instances", "artifacts", "references", "series", "definitions")
_RATE_SAMPLES = 8
"""Over which processor time and deeds a minute are taken."""


def panels(recorded: Recorded) -> list[Panel]:
    """As they stand in the report and in the figure."""

    def of(measure: str, whose: Mapping[str, str] | Sequence[str], unit: float = 1.0) -> dict[str, list[Point]]:
        names = whose if isinstance(whose, Mapping) else {one: one for one in whose}
        drawn = {label: points_of(recorded, f"{measure}/{name}") for name, label in names.items()}
        return {
            label: [(at, value / unit) for at, value in points]
            for label, points in drawn.items()
            if any(value for _, value in points)
        }

    everyone = {**_SHORT, **{name: name for name in _SERVERS}}
    return [
        Panel("Memory of services", "MiB resident", of("rss_bytes", _SHORT, MIB)),
        Panel("Memory of servers", "MiB resident", of("rss_bytes", _SERVERS, MIB)),
        Panel("Open files", "descriptors", of("fds", everyone)),
        Panel("Tasks of event loops", "", of("tasks", _SHORT)),
        Panel("Consumers and subscriptions of NATS", "", {
            **of("nats_consumers", {"all": "consumers"}), **of("nats_subscriptions", {"all": "subscr."}),
        }),
        Panel("Streams", "MiB", of("stream_bytes", {"EVENTS": "EVENTS", "INTENTS_SCHEDULER": "INTENTS"}, MIB)),
        Panel("etcd's file", "MiB", {
            **of("etcd_db_bytes", {"all": "size"}, MIB), **of("etcd_in_use_bytes", {"all": "in use"}, MIB),
        }),
        Panel("Keys of etcd", "", of("etcd_keys", _KINDS)),
        Panel("Files on disk", "MiB", of("disk_bytes", ("etcd", "nats", "s3", "logs"), MIB)),
        Panel("Objects in S3", "", of("objects", _whose(recorded, "objects"))),
        Panel("Processor", "of one core", {
            "services": _rate(recorded, [f"cpu_seconds/{name}" for name in SERVICES]),
            "servers": _rate(recorded, [f"cpu_seconds/{name}" for name in _SERVERS]),
            "load": _rate(recorded, ["cpu_seconds/soak"]),
        }),
        Panel("Load", "a minute", {
            "deeds": _rate(recorded, ["load/deeds"], 60.0), "accepted": _rate(recorded, ["load/accepted"], 60.0),
        }),
    ]  # fmt: skip


def _whose(recorded: Recorded, measure: str) -> list[str]:
    names = {name.partition("/") for sample in recorded.samples for name in sample.values}
    return sorted(whose for what, _, whose in names if what == measure)


def _rate(recorded: Recorded, names: Sequence[str], seconds: float = 1.0) -> list[Point]:
    """How fast the sum of what only counts goes up, over a few samples each."""
    lines = [points_of(recorded, name) for name in names]
    total = [(points[0][0], sum(value for _, value in points)) for points in zip(*lines, strict=True)]
    return [
        (late, max(after - before, 0.0) / (late - early) * seconds)
        for (early, before), (late, after) in zip(total, total[_RATE_SAMPLES:], strict=False)
        if late > early
    ]
