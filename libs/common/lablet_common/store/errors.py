"""etcd's refusals and the network's failures, as the port's errors.

The one question that matters about a failed write is whether it may have happened. It cannot have when it never left
(no connection), or when etcd turned it away before proposing it (no leader, bad token, too many requests). In every other
case without an answer it may have.
"""

import grpc
import grpc.aio

from lablet_common.store.api import (
    InvalidRequest,
    LeaseLost,
    OutcomeUnknown,
    StoreError,
    StoreUnavailable,
)

COMPACTED = "required revision has been compacted"
_NEVER_LEFT = ("failed to connect", "connection refused", "name resolution", "dns resolution", "domain name")
_NO_LEADER = "etcdserver: no leader"
_LEADER_CHANGED = "etcdserver: leader changed"
_FORGOTTEN = "internal error from core"
_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old", "revision in header is old")
_NO_AUTH = "authentication is not enabled"
_CREDENTIALS = "authentication failed"
_FULL = ("database space exceeded", "too many requests")
_LEASE = "requested lease not found"

_UNANSWERED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


def unanswered(error: grpc.aio.AioRpcError) -> bool:
    """Nobody decided on the request: another endpoint, or the same one later, may."""
    return error.code() in _UNANSWERED


def without_effect(error: grpc.aio.AioRpcError) -> bool:
    """The request was certainly not carried out, and may be sent again whatever it is."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and (no_leader(error) or _says(error, *_NEVER_LEFT))


def unconnected(error: grpc.aio.AioRpcError) -> bool:
    """There is no connection to the member, or it broke: with TLS, certificates may be why."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and not no_leader(error)


def no_leader(error: grpc.aio.AioRpcError) -> bool:
    """The member is up, but cut off or in an election."""
    return _says(error, _NO_LEADER)


def electing(error: grpc.aio.AioRpcError) -> bool:
    """There will be an answer soon: the member has no leader yet, or a new one since it was asked to read. Or it may have
    said so: what a stream is refused with before its first message was written, gRPC may forget (grpc issue 36066)."""
    return _says(error, _NO_LEADER, _LEADER_CHANGED, _FORGOTTEN)


def token_refused(error: grpc.aio.AioRpcError) -> bool:
    """The token is missing, has run out, or is older than the last change of rights."""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or _says(error, *_TOKEN)


def authentication_off(error: grpc.aio.AioRpcError) -> bool:
    """The server wants no login."""
    return _says(error, _NO_AUTH)


def compacted(error: grpc.aio.AioRpcError) -> bool:
    """The wanted revision is forgotten. etcd does not say here which is the oldest one left."""
    return _says(error, COMPACTED)


def translate(error: grpc.aio.AioRpcError, method: str, address: str, *, repeatable: bool) -> StoreError:
    """The port's error. `repeatable`: doing it twice does no harm, so its outcome is not worth a doubt."""
    code, details = error.code(), error.details() or ""
    if unanswered(error):
        said = f"etcd at {address} did not answer {method} ({code.name.lower()}: {details})"
        if repeatable or without_effect(error):
            return StoreUnavailable(said)
        return OutcomeUnknown(f"{said}; it may have happened")
    if _says(error, _LEASE):
        return LeaseLost(f"{method}: the lease has run out or was revoked")
    if _says(error, *_FULL) or code is grpc.StatusCode.DATA_LOSS:
        return StoreUnavailable(f"etcd at {address} takes no {method} now: {details}")
    if _says(error, _CREDENTIALS):
        return InvalidRequest(f"etcd at {address} refuses the user name or the password")
    return InvalidRequest(f"etcd refuses {method}: {details} ({code.name.lower()})")


def _says(error: grpc.aio.AioRpcError, *words: str) -> bool:
    details = (error.details() or "").lower()
    return any(word in details for word in words)
