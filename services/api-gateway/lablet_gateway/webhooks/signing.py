"""Signatures by the Standard Webhooks convention, so that a sink can check them with a library that it has.

Source: standardwebhooks.com, specification 1.0: HMAC-SHA256 over `<id>.<timestamp>.<body>`, written `v1,<base64>`; several
signatures, one for each valid secret, stand side by side during a rotation.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
_SECRET_BYTES = 32
_SHORTEST = 24


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret. Raises `ValueError`, which does not repeat it, for one that is not of the convention."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the secret is not {PREFIX} and base64") from error
    if len(key) < _SHORTEST:
        raise ValueError(f"the secret has {len(key)} bytes; a signing secret has at least {_SHORTEST}")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()


def headers(message_id: str, timestamp: int, body: bytes, valid: Sequence[str]) -> dict[str, str]:
    """The convention's three headers; without a secret, no signature. `timestamp` is in seconds of real time."""
    told = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if valid:
        told["webhook-signature"] = " ".join(signature(secret, message_id, timestamp, body) for secret in valid)
    return told
