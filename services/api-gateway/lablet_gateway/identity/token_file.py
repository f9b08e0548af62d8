"""Bearer tokens from a file that holds only their hashes: `[{name, role, tenant, sha256}]`.

The file is read again when it changes, so that tokens can be rotated without a restart; a file that cannot be read or
understood leaves the last good state in force and is logged. Every entry is compared in constant time, and all of them
for every token, so that time tells nothing.
"""

import hashlib
import hmac
import logging
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from lablet_common.resources.model import Model, Name
from lablet_gateway.identity import Principal, Role

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""Real seconds between two looks at the file's state."""


class TokenEntry(Model):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    role: Role
    tenant: Name = "default"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the token, hexadecimal."""


_ENTRIES = TypeAdapter(list[TokenEntry])


class TokenFile:
    """The verifier over one file; None: there are no tokens, everybody is refused."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries: list[tuple[bytes, Principal]] = []
        self._state: tuple[int, int, int] | None = None
        self._looked = float("-inf")

    async def verify(self, token: str) -> Principal | None:
        self._refresh()
        digest = hashlib.sha256(token.encode()).digest()
        found: Principal | None = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def _refresh(self) -> None:
        if self._path is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if state == self._state:
                return
            entries = _ENTRIES.validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            _log.warning("the token file cannot be read", extra={"path": str(self._path), "cause": str(error)})
            return
        self._state = state
        self._entries = [
            (bytes.fromhex(entry.sha256), Principal(entry.name, entry.role, entry.tenant)) for entry in entries
        ]
        _log.info("tokens read", extra={"path": str(self._path), "tokens": len(entries)})
