"""Secrets at rest: authenticated encryption with a key from a file, and rotation by key id.

What is stored reads `<key id>:<base64 of nonce and ciphertext>`. The key file has one key a line, newest first, each
`<key id>:<base64 of 32 bytes>`; new values are encrypted with the first, old ones stay readable while their key is
listed. The place where the value belongs (`context`) is authenticated too, so that a value copied to another resource
does not open there.
"""

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_KEY_BYTES = 32


class SecretError(Exception):
    """A secret that cannot be opened, or a key file that cannot be used; the message never holds either."""


def new_key_line(key_id: str) -> str:
    """A fresh line for a key file."""
    return f"{key_id}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"


class SecretBox:
    """Encrypts and opens small secrets with the keys of one file."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise SecretError("the key file has no key: write a line `<key id>:<base64 of 32 bytes>`")
        self._keys = keys
        self._newest = next(iter(keys))

    @classmethod
    def from_file(cls, path: Path) -> "SecretBox":
        """Reads a key file. Raises `SecretError` naming the line at fault."""
        keys: dict[str, bytes] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            key_id, _, encoded = line.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise SecretError(f"line {number} of {path} is not `<key id>:<base64>`") from error
            if len(key) != _KEY_BYTES:
                raise SecretError(f"the key on line {number} of {path} has {len(key)} bytes instead of {_KEY_BYTES}")
            if keys.setdefault(key_id, key) != key:
                raise SecretError(f"line {number} of {path} is a second key {key_id!r}: a new key takes a new id")
        return cls(keys)

    def seal(self, secret: str, context: str) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self._keys[self._newest]).encrypt(nonce, secret.encode(), context.encode())
        return f"{self._newest}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, context: str) -> str:
        """The secret. Raises `SecretError` when its key is not listed or the value was changed or moved."""
        key_id, _, encoded = sealed.partition(":")
        key = self._keys.get(key_id)
        if key is None:
            raise SecretError(f"the secret of {context} was encrypted with key {key_id!r}, which the key file lacks")
        try:
            raw = base64.b64decode(encoded)
            return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError) as error:  # the latter: it is not even the form of one
            raise SecretError(f"the secret of {context} was changed or belongs to something else") from error
