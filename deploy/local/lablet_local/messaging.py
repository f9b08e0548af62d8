"""The NATS server's configuration: JetStream, one user per service, all passwords from the key ring."""

import json
from pathlib import Path

from lablet_common.resources.kinds import Service
from lablet_local.folder import DataFolder, write_private
from lablet_local.keyring import KeyRing
from lablet_local.ports import PortBlock


def write_nats_config(folder: DataFolder, ports: PortBlock, keys: KeyRing) -> Path:
    """Writes `nats.conf` (mode 0600: it holds the passwords) and returns its path."""
    users = [{"user": str(s), "password": keys.nats_password(s).read_text().strip()} for s in [*Service, "observer"]]
    text = f"""listen: "127.0.0.1:{ports.nats}"
http: "127.0.0.1:{ports.nats_monitor}"
jetstream {{ store_dir: "{folder.nats}" }}
authorization {{ users: {json.dumps(users)} }}
"""
    path = folder.nats / "nats.conf"
    write_private(path, text)
    return path
