"""Secrets of a mesh: made at the first start, kept in files of mode 0600, handed on as paths.

API tokens stand in clear only in the connection file; the gateway gets a list of their hashes.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from lablet_common.secrets import new_key_line
from lablet_local.folder import DataFolder, read_json, write_private

ROLES = ("admin", "operator", "instructor", "learner", "machine")
_HOST = "host"
"""Role of an agent's own token."""
_TOKEN_BYTES = 32


class UnknownRole(ValueError):
    """No role of that name; lists those there are."""


def _rows(path: Path) -> list[dict[str, str]]:
    """The token file's rows; none where there is none yet, or a torn one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _new_token() -> str:
    return f"lablet_{secrets.token_urlsafe(_TOKEN_BYTES)}"


class KeyRing:
    """The secrets of one data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def path(self, name: str, make: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> Path:
        """The file of a secret, made when it is missing."""
        path = self._folder.secrets / name
        if not path.exists():
            write_private(path, f"{make()}\n")
        return path

    def read(self, name: str) -> str:
        return self.path(name).read_text(encoding="utf-8").strip()

    def nats_password(self, user: str) -> Path:
        return self.path(f"nats-{user}.password")

    @property
    def s3_access_key(self) -> Path:
        return self.path("s3.access-key", lambda: f"LABLET{secrets.token_hex(8).upper()}")

    @property
    def s3_secret_key(self) -> Path:
        return self.path("s3.secret-key", lambda: secrets.token_hex(20))

    @property
    def at_rest(self) -> Path:
        """The key file for secrets stored in etcd."""
        return self.path("at-rest.keys", lambda: new_key_line("local-1"))

    @property
    def webhooks(self) -> Path:
        """The key file for the signing secrets of webhook subscriptions."""
        return self.path("webhooks.keys", lambda: new_key_line("local-1"))

    @property
    def cml_password(self) -> Path:
        return self.path("cml.password", lambda: secrets.token_urlsafe(16))

    @property
    def cml_licence_token(self) -> Path:
        """Hexadecimal: CML refuses registration tokens with an underscore."""
        return self.path("cml.licence-token", lambda: secrets.token_hex(24))

    @property
    def cloud_token(self) -> Path:
        return self.path("cloud.token")

    def api_tokens(self) -> dict[str, str]:
        """Role → token, from the connection file; those that are missing are made anew."""
        known = read_json(self._folder.connection).get("tokens")
        stored = known if isinstance(known, dict) else {}
        return {role: str(stored.get(role) or _new_token()) for role in ROLES}

    def rotate(self, role: str) -> dict[str, str]:
        """All tokens, with a new one for the role. Nothing is written. Raises `UnknownRole`."""
        tokens = self.api_tokens()
        if role not in tokens:
            raise UnknownRole(f"there is no role {role!r}; there are {', '.join(ROLES)}")
        return tokens | {role: _new_token()}

    def write_token_hashes(
        self, tokens: dict[str, str], tenant: str = "default", hosts: Mapping[str, str] | None = None
    ) -> Path:
        """The gateway's token file: SHA-256 of each token, with its role and tenant. `hosts`: worker → its agent's
        token; left out: the agents' rows stay as they are."""
        path = self._folder.secrets / "api-tokens.json"
        kept = [] if hosts is not None else [row for row in _rows(path) if row.get("role") == _HOST]
        rows = [
            {
                "name": f"local-{role}",
                "role": role,
                "tenant": tenant,
                "sha256": hashlib.sha256(token.encode()).hexdigest(),
            }
            for role, token in tokens.items()
        ]
        rows += kept
        rows += [
            {"name": name, "role": _HOST, "tenant": tenant, "sha256": hashlib.sha256(token.encode()).hexdigest()}
            for name, token in (hosts or {}).items()
        ]
        write_private(path, json.dumps(rows, indent=1))
        return path
