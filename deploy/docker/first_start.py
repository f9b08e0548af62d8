"""The first start in containers: makes every secret once, and hands each part only what it needs.

The key ring lies in a volume of its own (`<root>/ring`) that nothing but this program mounts. From it, each part gets
copies in `<root>/<part>`, a volume of its own too, readable by the one user that all parts run as. Run again, it makes
nothing anew and brings the copies up to date; a secret is rotated by deleting it from the ring and starting again.
Folders for data are given to that user. Nothing is printed but names.

    python first_start.py --root /keys --data /data --owner 10001 --url http://api-gateway:8000 --outside http://127.0.0.1:8000
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lablet_common.bus.permissions import NatsUser, external_user, render_config, service_user
from lablet_common.resources.kinds import Service
from lablet_local.connection import write_connection
from lablet_local.folder import DataFolder, write_private
from lablet_local.keyring import KeyRing
from lablet_local.messaging import OBSERVER, OUTSIDE, observer_permissions

NATS_PORT, NATS_MONITOR_PORT = 4222, 8222
NATS_CLUSTER_PORT = 6222
NATS_SERVERS = ("nats", "nats-2", "nats-3")
NATS_STORE = Path("/data/nats")
"""Where the NATS container mounts its data."""


def nats_config(keys: KeyRing) -> str:
    """One user per service with its own subjects, as in the local mesh; reachable by the other containers."""

    def password(user: str) -> str:
        return keys.nats_password(user).read_text(encoding="utf-8").strip()

    users = [service_user(service, password(service)) for service in Service]
    users.append(external_user(OUTSIDE, "default", password(OUTSIDE)))
    users.append(NatsUser(OBSERVER, password(OBSERVER), observer_permissions()))
    return render_config(
        users,
        port=NATS_PORT,
        monitor_port=NATS_MONITOR_PORT,
        store_dir=NATS_STORE,
        host="0.0.0.0",  # noqa: S104
    )


def nats_ha_config(keys: KeyRing) -> str:
    """The same for each of three servers that keep everything together (deploy/ha); NATS_SERVER_NAME tells them apart."""
    password = keys.read("nats-routes.password")
    routes = [f"nats://routes:{password}@{name}:{NATS_CLUSTER_PORT}" for name in NATS_SERVERS]
    cluster = (
        f'cluster {{\n  name: "lablet"\n  listen: "0.0.0.0:{NATS_CLUSTER_PORT}"\n'
        f'  authorization {{user: "routes", password: {json.dumps(password)}}}\n  routes: {json.dumps(routes)}\n}}\n'
    )
    return nats_config(keys).replace('server_name: "lablet"', "server_name: $NATS_SERVER_NAME") + cluster


def shares(ring: DataFolder, url: str, outside: str) -> Mapping[str, Mapping[str, str]]:
    """Part → file name → content. Makes in the ring what is missing."""
    keys = KeyRing(ring)
    tokens = keys.api_tokens()
    write_connection(ring, url, tokens)
    connection = json.loads(ring.connection.read_text(encoding="utf-8")) | {"data": ""}
    nats = {service: {"nats.password": keys.nats_password(service).read_text(encoding="utf-8")} for service in Service}
    s3 = {
        "s3.access-key": keys.s3_access_key.read_text(encoding="utf-8"),
        "s3.secret-key": keys.s3_secret_key.read_text(encoding="utf-8"),
    }
    cloud = {
        "cloud.token": keys.cloud_token.read_text(encoding="utf-8"),
        "cml.password": keys.cml_password.read_text(encoding="utf-8"),
    }
    licence = keys.cml_licence_token.read_text(encoding="utf-8")
    hashes = keys.write_token_hashes(tokens).read_text(encoding="utf-8")
    return {
        "nats": {"nats.conf": nats_config(keys), "nats-ha.conf": nats_ha_config(keys)},
        "s3": s3,
        "cloud": cloud,
        "grafana": {"grafana.password": keys.path("grafana.password").read_text(encoding="utf-8")},
        Service.GATEWAY: nats[Service.GATEWAY]
        | s3
        | {"api-tokens.json": hashes, "webhooks.keys": keys.webhooks.read_text(encoding="utf-8")},
        Service.SCHEDULER: nats[Service.SCHEDULER],
        Service.WORKERS: nats[Service.WORKERS]
        | s3
        | cloud
        | {"cml.licence-token": licence, "at-rest.keys": keys.at_rest.read_text(encoding="utf-8")},
        Service.ARTIFACTS: nats[Service.ARTIFACTS] | s3,
        "cli": {
            "connection.json": json.dumps(connection, indent=1) + "\n",
            "outside.json": json.dumps(connection | {"url": outside}, indent=1) + "\n",
        },
    }


def hand_out(root: Path, parts: Mapping[str, Mapping[str, str]], owner: int | None) -> None:
    """Writes every part's files (mode 0600) and takes away what a part should no longer have."""
    for part, files in parts.items():
        folder = root / part
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for stale in (path for path in folder.iterdir() if path.name not in files):
            stale.unlink()
        for name, content in files.items():
            write_private(folder / name, content)
        if owner is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner, owner)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="where the volumes of the secrets are mounted")
    parser.add_argument("--data", type=Path, help="where the volumes of the data are mounted: given to the owner")
    parser.add_argument("--owner", type=int, help="user and group that the parts run as")
    parser.add_argument("--url", required=True, help="the gateway as other containers reach it")
    parser.add_argument("--outside", required=True, help="the gateway as this machine reaches it")
    options = parser.parse_args(arguments)
    ring = DataFolder(options.root / "ring")
    for folder in (ring.root, ring.secrets):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    parts = shares(ring, options.url, options.outside)
    hand_out(options.root, parts, options.owner)
    if options.data is not None and options.owner is not None:
        for folder in sorted(path for path in options.data.iterdir() if path.is_dir()):
            os.chown(folder, options.owner, options.owner)
            folder.chmod(0o700)
    print(f"secrets are in place for: {', '.join(sorted(parts))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
