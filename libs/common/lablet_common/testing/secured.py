"""Servers as a private installation has them, for tests: etcd with users and with certificates on both sides, NATS with users
and TLS, and what a service's environment says of them.

    with secured_servers(tmp_path, [service_user(Service.SCHEDULER, "s")]) as servers:
        environment = servers.environment("scheduler")

Passwords stand in files, as installations have them. Calls block (etcd's users take about a second).
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lablet_common.bus.permissions import NatsUser, ServerTls
from lablet_common.testing.authority import Authority
from lablet_common.testing.etcd import EtcdServer, EtcdTls, find_etcd
from lablet_common.testing.nats import NatsServer, find_nats_server

ETCD_USER, ETCD_PASSWORD = "lablet", "etcd-password-of-lablet"
_ROOT_PASSWORD = "etcd-password-of-root"  # noqa: S105 - of a server that ends with its test


def can_be_secured() -> bool:
    """Whether this machine has the programs."""
    etcd = find_etcd()
    return etcd is not None and etcd.etcdctl is not None and find_nats_server() is not None


@dataclass(frozen=True, slots=True)
class SecuredServers:
    """Both run."""

    folder: Path
    authority: Authority
    """Whose certificates they show; etcd wants one of its clients too."""
    etcd: EtcdServer
    nats: NatsServer
    client: tuple[Path, Path]
    """A client's certificate and key, for etcd."""
    passwords: dict[str, str]
    """Of NATS's users."""

    def environment(self, nats_user: str) -> dict[str, str]:
        """How a service reaches both, passwords as files."""
        cert, key = self.client
        return {
            "ETCD_ENDPOINTS": self.etcd.endpoint,
            "ETCD_USERNAME": ETCD_USER,
            "ETCD_PASSWORD_FILE": self._file("etcd.password", ETCD_PASSWORD),
            "ETCD_CA_CERT": str(self.authority.cert),
            "ETCD_CERT_CERT": str(cert),
            "ETCD_CERT_KEY": str(key),
            "NATS_URL": self.nats.url,
            "NATS_USER": nats_user,
            "NATS_PASSWORD_FILE": self._file(f"nats-{nats_user}.password", self.passwords[nats_user]),
            "NATS_CA_CERT": str(self.authority.cert),
        }

    def _file(self, name: str, secret: str) -> str:
        path = self.folder / name
        path.write_text(f"{secret}\n", encoding="utf-8")
        return str(path)


@contextmanager
def secured_servers(folder: Path, users: Sequence[NatsUser]) -> Iterator[SecuredServers]:
    """Started below the folder, with a certificate authority of their own."""
    authority = Authority(folder, "authority")
    cert, key = authority.issue("server")
    client = authority.issue("client")
    with (
        EtcdServer.start(folder / "etcd", tls=EtcdTls(cert, key, client_ca=authority.cert)) as etcd,
        NatsServer.start(folder / "nats", users=users, tls=ServerTls(cert, key)) as nats,
    ):
        _ask_for_logins(etcd, authority, client)
        yield SecuredServers(folder, authority, etcd, nats, client, {user.name: user.password for user in users})


def _ask_for_logins(etcd: EtcdServer, authority: Authority, client: tuple[Path, Path]) -> None:
    """From now on nobody gets in without a user; that of the services may touch their prefix alone."""
    program = etcd.binary.etcdctl
    if program is None:
        raise FileNotFoundError(f"no etcdctl beside {etcd.binary.path}")
    cert, key = client
    for line in (
        f"user add root:{_ROOT_PASSWORD}",
        "user grant-role root root",
        f"user add {ETCD_USER}:{ETCD_PASSWORD}",
        "role add services",
        "role grant-permission services --prefix=true readwrite /lablet/",
        f"user grant-role {ETCD_USER} services",
        "auth enable",
    ):
        command = [str(program), f"--endpoints=https://{etcd.endpoint}", f"--cacert={authority.cert}", f"--cert={cert}"]
        subprocess.run(  # noqa: S603 - no shell, and only what stands here
            [*command, f"--key={key}", *line.split()],
            env=os.environ | {"ETCDCTL_API": "3"},
            capture_output=True,
            timeout=20,
            check=True,
        )
