"""The connection file: address and token for the `lablet` command, mode 0600, and the pointer by which it is found.

`<data>/connection.json` holds `{url, token, role, tokens {role: token}, data}`; `~/.config/lablet/connection.json` is a
symbolic link to that of the mesh started last, taken away when it stops.
"""

import json
from contextlib import suppress
from pathlib import Path

from lablet_client.connection import pointer_path
from lablet_local.folder import DataFolder, write_private


def write_connection(folder: DataFolder, url: str, tokens: dict[str, str]) -> Path:
    """Writes the connection file of a mesh."""
    body = {"url": url, "token": tokens["admin"], "role": "admin", "tokens": tokens, "data": str(folder.root)}
    write_private(folder.connection, json.dumps(body, indent=1) + "\n")
    return folder.connection


def point_here(folder: DataFolder) -> None:
    """Makes this mesh the one that the `lablet` command speaks to."""
    pointer = pointer_path()
    pointer.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = pointer.with_name("connection.json.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.connection.resolve())
    fresh.replace(pointer)


def point_away(folder: DataFolder) -> None:
    """Takes the pointer away if it points here."""
    pointer = pointer_path()
    with suppress(OSError):  # no pointer, or not a link: not ours
        if pointer.readlink() == folder.connection.resolve():
            pointer.unlink()
