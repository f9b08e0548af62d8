"""Who may log in: users, their passwords, and the bearer tokens of their sessions.

Tokens look like the real ones (three base64url parts, HS256) and are valid exactly as long as this process keeps them:
until logout, a change of the password, or their age. Passwords are kept as salted hashes, no more than that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .clock import Clock
from .errors import ApiError, denied, invalid, missing
from .model import new_id

Json = dict[str, Any]


@dataclass(slots=True)
class Account:
    """One user."""

    username: str
    salt: bytes
    digest: bytes
    created: datetime
    modified: datetime
    admin: bool = False
    id: str = field(default_factory=new_id)
    details: Json = field(default_factory=dict)
    """fullname, description, email, groups, associations, resource_pool, opt_in, tour_version, pubkey."""

    @property
    def pool(self) -> str | None:
        value: str | None = self.details.get("resource_pool")
        return value

    def as_json(self, labs: list[str]) -> Json:
        known = self.details
        return {
            "id": self.id,
            "username": self.username,
            "fullname": known.get("fullname", ""),
            "description": known.get("description", ""),
            "email": known.get("email", ""),
            "admin": self.admin,
            "groups": known.get("groups", []),
            "associations": known.get("associations", []),
            "resource_pool": self.pool,
            "opt_in": known.get("opt_in"),
            "tour_version": known.get("tour_version", ""),
            "created": self.created.isoformat(),
            "modified": self.modified.isoformat(),
            "directory_dn": "",
            "labs": labs,
            "pubkey_info": "",
        }


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.sha256(salt + password.encode()).digest()


def _part(value: Json | bytes) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Accounts:
    """Users and sessions. `lifetime` is a token's age limit in lab seconds."""

    def __init__(self, clock: Clock, username: str, password: str, lifetime: float = 86_400) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._secret = secrets.token_bytes(32)
        self._users: dict[str, Account] = {}
        self._sessions: dict[str, tuple[str, float]] = {}
        self.create({"username": username, "password": password, "admin": True})

    def all(self) -> list[Account]:
        return list(self._users.values())

    def by_id(self, key: str) -> Account:
        """Raises 404."""
        if key not in self._users:
            raise missing("User", key)
        return self._users[key]

    def by_name(self, username: str) -> Account:
        """Raises 404."""
        for account in self._users.values():
            if account.username == username:
                return account
        raise missing("User", username)

    def name_of(self, key: str) -> str:
        account = self._users.get(key)
        return account.username if account else ""

    def create(self, wanted: Json) -> Account:
        """Adds a user; 400 when the name is taken or the password empty."""
        if any(account.username == wanted["username"] for account in self._users.values()):
            raise invalid(f"User already exists: {wanted['username']}.")
        now = self._clock.wall()
        account = Account(wanted["username"], b"", b"", now, now, bool(wanted.get("admin", False)))
        self._set_password(account, wanted["password"])
        account.details = {k: v for k, v in wanted.items() if k not in ("username", "password", "admin")}
        self._users[account.id] = account
        return account

    def change(self, account: Account, wanted: Json, by: Account) -> Account:
        """Changes a user. An own password needs the old one (403 when wrong); rights need an administrator."""
        if by is not account and not by.admin:
            raise denied()
        if not by.admin and ({"admin", "resource_pool", "groups", "associations", "username"} & wanted.keys()):
            raise denied("Only administrators may change this.")
        if "password" in wanted:
            old = wanted["password"].get("old_password", "")
            if by is account and not self._matches(account, old):
                raise denied("Old password does not match.")
            self._set_password(account, wanted["password"]["new_password"])
            self.end_sessions(account)
        if wanted.get("admin") is False and account.admin and sum(each.admin for each in self._users.values()) == 1:
            raise invalid("The last administrator cannot lose the right.")
        account.admin = wanted.get("admin", account.admin)
        name = wanted.get("username", account.username)
        if any(each.username == name for each in self._users.values() if each is not account):
            raise invalid(f"User already exists: {name}.")
        account.username = name
        account.details |= {k: v for k, v in wanted.items() if k not in ("username", "password", "admin")}
        account.modified = self._clock.wall()
        return account

    def delete(self, account: Account, by: Account) -> None:
        """Removes a user and its sessions; nobody can remove itself."""
        if account is by:
            raise invalid("You cannot delete your own account.")
        self.end_sessions(account)
        del self._users[account.id]

    def login(self, username: str, password: str) -> tuple[Account, str]:
        """The user and a fresh token. Raises 403."""
        for account in self._users.values():
            if account.username == username and self._matches(account, password):
                return account, self._issue(account)
        raise denied("Authentication failed!")

    def whose(self, authorization: str | None) -> Account:
        """The user of an `Authorization` header. Raises 401 for no, an unknown, an ended or an expired session."""
        scheme, _, token = (authorization or "").partition(" ")
        session = self._sessions.get(token) if scheme.lower() == "bearer" else None
        if session is None:
            raise ApiError(
                401, "No authorization token provided." if not token else "The authorization token is invalid."
            )
        if self._clock.now() >= session[1]:
            del self._sessions[token]
            raise ApiError(401, "The authorization token has expired.")
        return self._users[session[0]]

    def logout(self, authorization: str) -> None:
        """Ends the session of this header."""
        self._sessions.pop(authorization.partition(" ")[2], None)

    def end_sessions(self, account: Account) -> None:
        """Ends every session of this user."""
        self._sessions = {token: at for token, at in self._sessions.items() if at[0] != account.id}

    def _matches(self, account: Account, password: str) -> bool:
        return hmac.compare_digest(_hash(password, account.salt), account.digest)

    def _set_password(self, account: Account, password: str) -> None:
        if not password:
            raise invalid("The password must not be empty.")
        account.salt = secrets.token_bytes(16)
        account.digest = _hash(password, account.salt)

    def _issue(self, account: Account) -> str:
        issued = int(self._clock.wall().timestamp())
        claims = {"sub": account.id, "iat": issued, "exp": issued + int(self._lifetime), "jti": secrets.token_hex(8)}
        head = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
        token = f"{head}.{_part(hmac.digest(self._secret, head.encode(), 'sha256'))}"
        self._sessions[token] = (account.id, self._clock.now() + self._lifetime)
        return token
