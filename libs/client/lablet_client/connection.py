"""Where the system is and who we are: arguments, environment, or the file that `lablet up` writes.

The first that says something wins: what the caller gives, then `LABLET_URL` with `LABLET_TOKEN` or `LABLET_TOKEN_FILE`,
then the connection file. A token from the connection file is used for that file's own address only, so that it is
never sent to another host.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lablet_client.errors import NotConfigured

_HOPS = 4
"""Pointers to pointers that are followed."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An address, a token, and what else the connection file tells (never printed)."""

    url: str
    token: str | None = field(default=None, repr=False)
    origin: str = "arguments"
    """Where it was found, in words."""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def pointer_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The connection file of the mesh that was started last."""
    if environ.get("LABLET_CONNECTION"):
        return Path(environ["LABLET_CONNECTION"])
    return Path(environ.get("HOME") or Path.home()) / ".config" / "lablet" / "connection.json"


def find_connection(
    url: str | None = None,
    token: str | None = None,
    *,
    role: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Connection:
    """The connection to use; `role` takes the token of that role from the connection file, whatever the environment says.
    Raises `NotConfigured` with what to do about it."""
    token = token or (_environment_token(environ) if role is None else None)
    if url is not None:
        return Connection(_checked(url, "the address given"), token or _token_of_file(url, role, environ))
    if environ.get("LABLET_URL"):
        address = _checked(environ["LABLET_URL"], "LABLET_URL")
        return Connection(address, token or _token_of_file(address, role, environ), "LABLET_URL")
    path = pointer_path(environ)
    content = _read(path)
    if content is None:
        raise NotConfigured(
            f"no mesh is known here: there is no {path} and LABLET_URL is not set.\n"
            "Start one with `lablet up`, or set LABLET_URL and LABLET_TOKEN_FILE."
        )
    address = _checked(str(content.get("url") or ""), str(path))
    if role is not None:
        token = _token_of_role(content, role, path)
    return Connection(address, token or content.get("token"), str(path), content)


def _token_of_role(content: Mapping[str, Any], role: str, path: Path) -> str:
    tokens = content.get("tokens")
    if not isinstance(tokens, Mapping) or role not in tokens:
        known = ", ".join(sorted(tokens)) if isinstance(tokens, Mapping) else "none"
        raise NotConfigured(f"{path} holds no token for the role {role!r}; it has: {known}")
    return str(tokens[role])


def _environment_token(environ: Mapping[str, str]) -> str | None:
    if environ.get("LABLET_TOKEN"):
        return environ["LABLET_TOKEN"]
    file = environ.get("LABLET_TOKEN_FILE")
    if not file:
        return None
    try:
        return Path(file).expanduser().read_text().strip()
    except OSError as error:
        raise NotConfigured(f"LABLET_TOKEN_FILE: {error.strerror}: {file}") from error


def _token_of_file(url: str, role: str | None, environ: Mapping[str, str]) -> str | None:
    """The file's token, if the file is that address's. Raises `NotConfigured` for a role that cannot be had so."""
    path = pointer_path(environ)
    content = _read(path)
    if content is None or str(content.get("url", "")).rstrip("/") != url.rstrip("/"):
        if role is not None:
            raise NotConfigured(
                f"the role {role!r} has its token in the connection file, and {path} is not that of {url}"
            )
        return None
    if role is not None:
        return _token_of_role(content, role, path)
    token = content.get("token")
    return str(token) if token else None


def _read(path: Path) -> Mapping[str, Any] | None:
    """The connection file, pointers followed; None where there is none."""
    for _ in range(_HOPS):
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NotConfigured(f"the connection file {path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise NotConfigured(f"the connection file {path} is not a JSON object")
        following = content.get("connection") or content.get("path")
        if content.get("url") or not following:
            return content
        path = Path(following)
    raise NotConfigured(f"the connection file {path} points in a circle")


def _checked(url: str, origin: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise NotConfigured(f"{origin} holds no http:// or https:// address: {url!r}")
    return url.rstrip("/")
