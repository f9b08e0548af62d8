"""One look at everything that could grow: processes, event loops, NATS, etcd, the object store, files.

A value's name is `<measure>/<whose>`, such as `uss_bytes/scheduler-1` or `etcd_keys/reservations`.
"""

import asyncio
import base64
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx

from lablet_common.resources.kinds import Service
from lablet_local.mesh import LocalMesh
from lablet_local.soak.processes import children, look, weigh

Values = dict[str, float]
_ETCD = {
    "etcd_mvcc_db_total_size_in_bytes": "etcd_db_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes": "etcd_in_use_bytes",
    "etcd_debugging_mvcc_keys_total": "etcd_live_keys",
    "etcd_debugging_mvcc_watcher_total": "etcd_watchers",
    "etcd_debugging_mvcc_current_revision": "etcd_revision",
}
_PREFIX = b"/lablet/"


class Sampler:
    """Looks at one mesh from outside."""

    def __init__(self, mesh: LocalMesh) -> None:
        self._mesh = mesh
        # a connection for each look: a kept one may be closed by the other end in the very moment of the next
        self._http = httpx.AsyncClient(timeout=10, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    async def close(self) -> None:
        await self._http.aclose()

    async def sample(self) -> Values:
        """Everything now. Raises `httpx.HTTPError` where something does not answer."""
        parts = await asyncio.gather(
            asyncio.to_thread(self._processes),
            self._loops(),
            self._nats(),
            self._etcd(),
            asyncio.to_thread(self._files),
        )
        return {name: value for part in parts for name, value in part.items()}

    def _processes(self) -> Values:
        pids = {state.process.name: state.pid for state in self._mesh.processes if state.pid is not None}
        found = {f"{what}/{name}": value for name, pid in pids.items() for what, value in look(pid).items()}
        found |= {f"{what}/soak": value for what, value in look(os.getpid()).items()}
        machines = children(pids["cloud"]) if "cloud" in pids else []
        found["processes/machines"] = float(len(machines))
        for pid in machines:
            for what, value in look(pid).items():
                if what != "cpu_seconds":  # they come and go
                    found[f"{what}/machines"] = found.get(f"{what}/machines", 0.0) + value
        found["restarts/all"] = float(sum(state.restarts for state in self._mesh.processes))
        return found

    async def _loops(self) -> Values:
        """What the services say of themselves."""
        found: Values = {}
        for name in [
            one.process.name for one in self._mesh.processes if one.process.name.rpartition("-")[0] in set(Service)
        ]:
            text = (await self._http.get(f"{self._mesh.health_url(name)}/metrics")).raise_for_status().text
            found[f"metrics/{name}"] = float(sum(not line.startswith("#") for line in text.splitlines()))
            told = dict(series(text))
            found[f"tasks/{name}"] = told["lablet_tasks"]
            found[f"loop_lag_seconds/{name}"] = told["lablet_event_loop_lag_seconds"]
            for metric in (
                "lablet_reconcile_failures_total",
                "lablet_events_dead_lettered_total",
                "lablet_bus_rebuilds_total",
            ):
                counted = sum(value for key, value in told.items() if key.partition("{")[0] == metric)
                found[f"{metric.removeprefix('lablet_').removesuffix('_total')}/{name}"] = counted
        return found

    async def _nats(self) -> Values:
        monitor = f"http://127.0.0.1:{self._mesh.ports.nats_monitor}"
        varz = (await self._http.get(f"{monitor}/varz")).raise_for_status().json()
        jsz = (await self._http.get(f"{monitor}/jsz?streams=true&consumers=true")).raise_for_status().json()
        found = {
            f"nats_{what}/all": float(varz.get(what, 0)) for what in ("connections", "subscriptions", "slow_consumers")
        }
        streams: list[dict[str, Any]] = [
            stream for account in jsz.get("account_details") or () for stream in account.get("stream_detail") or ()
        ]
        found["nats_streams/all"] = float(len(streams))
        found["nats_consumers/all"] = float(sum(int(one["state"].get("consumer_count", 0)) for one in streams))
        for one in streams:
            found[f"stream_messages/{one['name']}"] = float(one["state"].get("messages", 0))
            found[f"stream_bytes/{one['name']}"] = float(one["state"].get("bytes", 0))
            found[f"stream_last/{one['name']}"] = float(one["state"].get("last_seq", 0))
        return found

    async def _etcd(self) -> Values:
        base = f"http://{self._mesh.etcd_endpoint}"
        text = (await self._http.get(f"{base}/metrics")).raise_for_status().text
        found = {f"{_ETCD[name]}/all": value for name, value in series(text) if name in _ETCD}
        body = {"key": _b64(_PREFIX), "range_end": _b64(_PREFIX[:-1] + b"0"), "keys_only": True}
        answer = (await self._http.post(f"{base}/v3/kv/range", json=body)).raise_for_status().json()
        kinds = Counter(_kind(base64.b64decode(one["key"])) for one in answer.get("kvs") or ())
        found |= {f"etcd_keys/{kind}": float(count) for kind, count in kinds.items()}
        leases = (await self._http.post(f"{base}/v3/lease/leases", json={})).raise_for_status().json()
        return found | {"etcd_leases/all": float(len(leases.get("leases") or ()))}

    def _files(self) -> Values:
        folder, found = self._mesh.folder, {}
        rooms = {
            "logs": folder.logs, "etcd": folder.etcd, "nats": folder.nats, "s3": folder.s3 / "objects",
            "s3-cache": folder.s3 / "cache", "cloud": folder.cloud,
        }  # fmt: skip
        for name, room in rooms.items():
            found[f"files/{name}"], found[f"disk_bytes/{name}"] = map(float, weigh(room))
        buckets = folder.s3 / "objects"
        for room in sorted(one for bucket in buckets.iterdir() for one in bucket.iterdir() if one.is_dir()):
            found[f"objects/{room.name}"] = float(weigh(room)[0])
        return found


def series(text: str) -> Iterator[tuple[str, float]]:
    """Series with its labels, and value, from Prometheus' text format."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            yield name, float(value)


def _kind(key: bytes) -> str:
    return key.removeprefix(_PREFIX).split(b"/", 1)[0].decode()


def _b64(key: bytes) -> str:
    return base64.b64encode(key).decode()
