"""The asyncio client of etcd: its gRPC API as the `Store` port.

One channel per endpoint; calls go to the one that answered last and move on at once when it does not. A write is never
sent twice by the client: where it may have arrived, the caller gets `OutcomeUnknown` and must read before it decides. A
watch is one stream of its own (see `watch.py`). Works with etcd 3.4, 3.5 and 3.6.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from lablet_common.store import wire
from lablet_common.store.api import (
    Compacted,
    Compare,
    InvalidRequest,
    KeyValue,
    LeaseLost,
    Operation,
    OutcomeUnknown,
    Page,
    StoreError,
    StoreStatus,
    StoreUnavailable,
    TxnResult,
    WatchBatch,
)
from lablet_common.store.proto import etcd_pb2 as pb
from lablet_common.store.watch import open_watch

log = logging.getLogger("lablet.store")

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_NOT_SENT = ("failed to connect", "connection refused", "no leader", "name resolution", "dns resolution")
_METHODS: dict[str, tuple[str, Any, Any]] = {
    "Range": ("KV", pb.RangeRequest, pb.RangeResponse),
    "Put": ("KV", pb.PutRequest, pb.PutResponse),
    "DeleteRange": ("KV", pb.DeleteRangeRequest, pb.DeleteRangeResponse),
    "Txn": ("KV", pb.TxnRequest, pb.TxnResponse),
    "Compact": ("KV", pb.CompactionRequest, pb.CompactionResponse),
    "LeaseGrant": ("Lease", pb.LeaseGrantRequest, pb.LeaseGrantResponse),
    "LeaseRevoke": ("Lease", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse),
    "Status": ("Maintenance", pb.StatusRequest, pb.StatusResponse),
    "Authenticate": ("Auth", pb.AuthenticateRequest, pb.AuthenticateResponse),
}


class Endpoint:
    """One member of the cluster: its channel and the calls on it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None, name: str | None) -> None:
        self.address = address
        options = [*_OPTIONS, *([("grpc.ssl_target_name_override", name)] if name else [])]
        self.channel = (
            grpc.aio.secure_channel(address, credentials, options=options)
            if credentials is not None
            else grpc.aio.insecure_channel(address, options=options)
        )
        self.calls: dict[str, Any] = {
            method: self.channel.unary_unary(
                f"/etcdserverpb.{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for method, (service, request, response) in _METHODS.items()
        }
        self.watch: Any = self.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        self.keep_alive: Any = self.channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )


class EtcdStore:
    """A `Store` on a real etcd. `endpoints` are `host:port`; keys are put below `prefix`; `timeout` in seconds per call.
    With `ca_cert` (and `cert` with `key`) it speaks TLS. Make it inside of the running event loop."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        prefix: str = "/lablet",
        timeout: float = 10.0,
        username: str | None = None,
        password: str | None = None,
        ca_cert: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        server_name: str | None = None,
    ) -> None:
        if not endpoints:
            raise InvalidRequest("no etcd endpoint given: set ETCD_HOST and ETCD_PORT, or ETCD_ENDPOINTS")
        credentials = None
        if ca_cert is not None or cert is not None:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=ca_cert.read_bytes() if ca_cert else None,
                private_key=key.read_bytes() if key else None,
                certificate_chain=cert.read_bytes() if cert else None,
            )
        self._names = wire.Names(prefix)
        self._timeout = timeout
        self._login = (username, password) if username is not None and password is not None else None
        self._token: str | None = None
        self._endpoints = [
            Endpoint(address.removeprefix("http://").removeprefix("https://"), credentials, server_name)
            for address in endpoints
        ]
        self._current = 0

    # -- reads -----------------------------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        request = pb.RangeRequest(key=self._names.key(key), revision=revision, serializable=serializable)
        answer = await self.call("Range", request)
        return self._names.key_value(answer.kvs[0]) if answer.kvs else None

    async def range(
        self,
        prefix: str,
        *,
        limit: int = 0,
        start_after: str = "",
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        order_by_create: bool = False,
    ) -> Page:
        first, end = self._names.below(prefix)
        request = pb.RangeRequest(
            key=self._names.key(start_after) + b"\0" if start_after else first,
            range_end=end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            serializable=serializable,
        )
        if order_by_create:
            request.sort_order = pb.RangeRequest.ASCEND
            request.sort_target = pb.RangeRequest.CREATE
        answer = await self.call("Range", request)
        items = tuple(self._names.key_value(kv) for kv in answer.kvs)
        return Page(items, revision or answer.header.revision, answer.more, answer.count)

    # -- writes ----------------------------------------------------------------------------------------------------

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        request = pb.PutRequest(key=self._names.key(key), value=value, lease=lease)
        return int((await self.call("Put", request, write=True)).header.revision)

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        first, end = self._names.below(key) if prefix else (self._names.key(key), b"")
        answer = await self.call("DeleteRange", pb.DeleteRangeRequest(key=first, range_end=end), write=True)
        return int(answer.deleted)

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        request = pb.TxnRequest(
            compare=[self._names.compare(c) for c in compares],
            success=[self._names.operation(op) for op in success],
            failure=[self._names.operation(op) for op in failure],
        )
        answer = await self.call("Txn", request, write=True)
        reads = tuple(
            tuple(self._names.key_value(kv) for kv in response.response_range.kvs)
            for response in answer.responses
            if response.WhichOneof("response") == "response_range"
        )
        return TxnResult(answer.succeeded, answer.header.revision, reads)

    # -- watches and leases ----------------------------------------------------------------------------------------

    def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchBatch]]:
        return open_watch(self, self._names, prefix, start_revision, previous)

    async def lease_grant(self, ttl_seconds: float) -> int:
        request = pb.LeaseGrantRequest(TTL=max(1, round(ttl_seconds)))
        return int((await self.call("LeaseGrant", request, write=True)).ID)

    async def lease_keep_alive(self, lease: int) -> float:
        """A renewal may be sent twice without harm, so that a dead endpoint costs no lease."""
        for _ in range(len(self._endpoints)):
            endpoint = self._endpoints[self._current]
            stream = endpoint.keep_alive(timeout=self._timeout, metadata=await self.metadata())
            try:
                await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
                answer = await stream.read()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self._token = None
                    continue
                if _may_pass(error) and self.turn(endpoint):
                    continue
                raise _translate(error, "LeaseKeepAlive", write=False) from error
            finally:
                stream.cancel()
            if answer is EOF or answer.TTL <= 0:
                raise LeaseLost(f"lease {lease} is gone")
            return float(answer.TTL)
        raise StoreUnavailable("no etcd endpoint renewed the lease")

    async def lease_revoke(self, lease: int) -> None:
        try:
            await self.call("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), write=True)
        except LeaseLost:
            return

    # -- the rest --------------------------------------------------------------------------------------------------

    async def compact(self, revision: int) -> None:
        await self.call("Compact", pb.CompactionRequest(revision=revision), write=True)

    async def status(self) -> StoreStatus:
        answer = await self.call("Status", pb.StatusRequest())
        return StoreStatus(answer.version, answer.header.revision, answer.dbSize, leader=answer.leader != 0)

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.channel.close(None)

    # -- calling ---------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> Endpoint:
        """The one that calls go to now."""
        return self._endpoints[self._current]

    def turn(self, away_from: Endpoint) -> bool:
        """Moves on to the next endpoint, unless somebody has done so; False when there is no other."""
        if len(self._endpoints) == 1:
            return False
        if self.endpoint is away_from:
            self._current = (self._current + 1) % len(self._endpoints)
            log.info("another etcd endpoint is used", extra={"endpoint": self.endpoint.address})
        return True

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """The authentication token, fetched once and again after it was refused."""
        if self._login is None:
            return ()
        if self._token is None:
            name, password = self._login
            answer = await self.call("Authenticate", pb.AuthenticateRequest(name=name, password=password))
            self._token = answer.token
        return (("token", self._token or ""),)

    def forget_token(self) -> None:
        self._token = None

    async def call(self, method: str, request: Any, *, write: bool = False) -> Any:
        """One call, on the first endpoint that answers. Raises the port's errors."""
        renewed = False
        tried = 0
        while True:
            endpoint = self.endpoint
            metadata = () if method == "Authenticate" else await self.metadata()
            try:
                return await endpoint.calls[method](request, timeout=self._timeout, metadata=metadata or None)
            except grpc.aio.AioRpcError as error:
                if _token_refused(error) and self._login is not None and not renewed and method != "Authenticate":
                    renewed, self._token = True, None
                    continue
                tried += 1
                again = _may_pass(error) and (not write or _was_not_sent(error))
                if again and tried < len(self._endpoints) and self.turn(endpoint):
                    continue
                if _may_pass(error):
                    self.turn(endpoint)
                raise _translate(error, method, write=write) from error


def _may_pass(error: grpc.aio.AioRpcError) -> bool:
    """Another endpoint, or the same one later, may answer."""
    return error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    )


def _was_not_sent(error: grpc.aio.AioRpcError) -> bool:
    details = (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE and any(words in details for words in _NOT_SENT)


def _token_refused(error: grpc.aio.AioRpcError) -> bool:
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or "invalid auth token" in details


def _translate(error: grpc.aio.AioRpcError, method: str, *, write: bool) -> StoreError:
    """etcd's answer as the port's error."""
    code, details = error.code(), error.details() or ""
    if "compacted" in details:
        return Compacted(0)
    if "lease not found" in details or (method == "LeaseRevoke" and code is grpc.StatusCode.NOT_FOUND):
        return LeaseLost(f"etcd: {details}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "space" in details:
        return StoreError(f"etcd refuses writes: {details}; see `lablet admin etcd alarms`")
    if code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ):
        return InvalidRequest(f"etcd refuses {method}: {details}")
    if write and not _was_not_sent(error):
        return OutcomeUnknown(f"etcd gave no answer to {method} ({code.name.lower()}): it may have happened")
    return StoreUnavailable(f"etcd does not answer ({code.name.lower()}: {details})")
