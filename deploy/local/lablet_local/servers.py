"""The real servers below the services: etcd, NATS with JetStream, S3 by rclone, and the simulated cloud."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from lablet_local.binaries import Binary
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.members import Members, member_name
from lablet_local.ports import PortBlock
from lablet_local.probe import answers, etcd_healthy, http_look, is_ok
from lablet_local.supervisor import Process

BUCKET = "lablet-artifacts"
CLOUD_MAIN = (sys.executable, "-m", "lablet_local.cloud")


@dataclass(frozen=True, slots=True)
class Site:
    """What every process of a mesh is made from."""

    folder: DataFolder
    ports: PortBlock
    keys: KeyRing
    client: httpx.AsyncClient
    members: Members
    """Of etcd and of NATS."""
    etcd_quota: int | None = None
    """Bytes that etcd's file may grow to; None: etcd's own limit (2 GiB)."""
    machines_front: int | None = None
    """Port at which simulated machines' APIs are called, where something stands before them."""


def plain_environment(**more: str) -> dict[str, str]:
    """What a program needs to run, and none of the caller's settings (etcd takes every `ETCD_*` for a flag)."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "GOMAXPROCS")
    return {name: os.environ[name] for name in kept if name in os.environ} | more


def etcd_process(site: Site, binary: Binary, number: int = 1) -> Process:
    """A member. Nothing compacts by itself: that waits for the bridges' cursors."""
    ports, name = site.ports.of_member(number), member_name("etcd", number)
    client, called_at = f"http://127.0.0.1:{ports.etcd}", f"http://{site.members.peer_address('etcd', number)}"
    alone = site.members.count == 1
    cluster = {
        member_name("etcd", one): f"http://{site.members.peer_address('etcd', one)}" for one in site.members.numbers
    }
    options = {
        "name": "lablet" if alone else name,
        "data-dir": str(site.folder.etcd / ("data" if number == 1 else f"data-{number}")),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": f"http://127.0.0.1:{ports.etcd_peer}",
        "initial-advertise-peer-urls": called_at,
        "initial-cluster": f"lablet={called_at}" if alone else ",".join(f"{one}={url}" for one, url in cluster.items()),
        # One member elects itself: no reason to wait a second after a restart. Three must not unseat a leader that is slow.
        "heartbeat-interval": "50" if alone else "100",
        "election-timeout": "500" if alone else "1000",
        # cursors of kinds that rest move on by these notices, and only then may history be forgotten
        "experimental-watch-progress-notify-interval": "5s",
        # so many changes stay in memory, with their values; 100,000 (until 3.6) were half a gigabyte after half an hour
        "snapshot-count": "10000",
        "logger": "zap",
        "log-level": "warn",
    }
    if site.etcd_quota is not None:
        options["quota-backend-bytes"] = str(site.etcd_quota)
    return Process(
        name=name,
        argv=(str(binary.path), *(f"--{name}={value}" for name, value in options.items())),
        env=plain_environment(),
        log=site.folder.log(name),
        ready=http_look(site.client, f"{client}/health", etcd_healthy),
        # The faulty one may lose acknowledged writes when it is killed, so it is only ever asked to end.
        death_signal=signal.SIGKILL if binary.sound else signal.SIGTERM,
    )


def nats_process(site: Site, binary: Binary, config: Path, number: int = 1) -> Process:
    """Ready when JetStream is; one of three, when it has caught up with the others."""
    look = "js-enabled-only" if site.members.count == 1 else "js-server-only"
    url = f"http://127.0.0.1:{site.ports.of_member(number).nats_monitor}/healthz?{look}=true"
    name = member_name("nats", number)
    return Process(
        name=name,
        argv=(str(binary.path), "--config", str(config)),
        env=plain_environment(),
        log=site.folder.log(name),
        ready=http_look(site.client, url, is_ok),
    )


def s3_process(site: Site, binary: Binary) -> Process:
    """rclone takes its key pair from the environment (it knows no file for it), never from the command line."""
    (site.folder.s3 / "objects" / BUCKET).mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{site.ports.s3}"
    access, secret = (
        path.read_text(encoding="utf-8").strip() for path in (site.keys.s3_access_key, site.keys.s3_secret_key)
    )
    options = (
        "--addr",
        address,
        "--config",
        os.devnull,
        "--poll-interval",
        "0",
        "--no-cleanup",
        "--log-level",
        "NOTICE",
    )
    return Process(
        name="s3",
        argv=(str(binary.path), "serve", "s3", *options, str(site.folder.s3 / "objects")),
        env=plain_environment(RCLONE_AUTH_KEY=f'"{access},{secret}"', RCLONE_CACHE_DIR=str(site.folder.s3 / "cache")),
        log=site.folder.log("s3"),
        ready=http_look(site.client, f"http://{address}/", answers),
    )


def cloud_process(site: Site, speed: float, templates: Path, scenario: Path | None = None) -> Process:
    options = {
        "--host": "127.0.0.1",
        "--port": str(site.ports.cloud),
        "--data": str(site.folder.cloud),
        "--net": str(site.ports.machine_net),
        "--speed": f"{speed:g}",
        "--token-file": str(site.keys.cloud_token),
        "--cml-password-file": str(site.keys.cml_password),
        "--templates": str(templates),
    }
    if site.machines_front is not None:
        options["--front"] = str(site.machines_front)
    if scenario is not None:
        options["--scenario"] = str(scenario.resolve())
    return Process(
        name="cloud",
        argv=(*CLOUD_MAIN, *(part for option in options.items() for part in option)),
        env=plain_environment(PYTHONUNBUFFERED="1", PYTHONSAFEPATH="1"),
        log=site.folder.log("cloud"),
        ready=http_look(site.client, f"http://127.0.0.1:{site.ports.cloud}/healthz", is_ok),
    )


def spans_process(site: Site) -> Process:
    """The store of recent spans; nothing waits for it."""
    return Process(
        name="spans",
        argv=(sys.executable, "-m", "lablet_local.spans"),
        env=plain_environment(PYTHONUNBUFFERED="1", PYTHONSAFEPATH="1", SPANS_PORT=str(site.ports.spans)),
        log=site.folder.log("spans"),
        ready=http_look(site.client, f"http://127.0.0.1:{site.ports.spans}/healthz", is_ok),
    )
