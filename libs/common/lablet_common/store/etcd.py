"""The asyncio client of etcd: its gRPC API as the `Store` port. Works with etcd 3.4, 3.5 and 3.6.

The parts: `channels` (connections), `calls` (which endpoint is asked, and what is never sent twice), `errors` (what a failure
means), `wire` (values and messages), `watch` (a stream that survives its connection). Here they become the port.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc.aio

from lablet_common.store import errors
from lablet_common.store.api import (
    Compacted,
    Compare,
    Get,
    InvalidRequest,
    KeyValue,
    LeaseLost,
    Operation,
    Page,
    StoreError,
    StoreStatus,
    TxnResult,
    WatchBatch,
)
from lablet_common.store.calls import Calls
from lablet_common.store.channels import Endpoint, tls
from lablet_common.store.journal import Journal
from lablet_common.store.limits import check_key, check_put, check_range, check_transaction
from lablet_common.store.proto import etcd_pb2 as pb
from lablet_common.store.watch import Watch
from lablet_common.store.wire import Names
from lablet_common.telemetry.metrics import STORE_CONFLICTS

_SILENCE_SECONDS = 10.0
_LOOK_BACK_SECONDS = 0.5


class EtcdStore:
    """A `Store` on a real etcd.

    `endpoints` are `host:port`, or URLs; `https` asks for TLS. Keys are put below `prefix`. `timeout` in seconds bounds each
    call; a write without an answer in that time is `OutcomeUnknown`. With `ca_cert` (PEM; else the system's authorities)
    the server is checked, with `cert` and `key` the client shows a certificate; `server_name` is expected in the server's
    certificate instead of the address; `commit_log` is a file that gets a line for each confirmed write (see `journal`).
    Make it inside of the running event loop. Raises `InvalidRequest` without endpoints or with half of a login, `OSError`
    for unreadable files.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str = "/lablet",
        timeout: float = 10.0,
        username: str | None = None,
        password: str | None = None,
        ca_cert: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        *,
        server_name: str | None = None,
        commit_log: Path | None = None,
        watch_silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        if not endpoints:
            raise InvalidRequest("no etcd endpoint given: set ETCD_HOST and ETCD_PORT, or ETCD_ENDPOINTS")
        if bool(username) is not (password is not None):
            raise InvalidRequest("a login to etcd takes both: ETCD_USERNAME and ETCD_PASSWORD")
        secure = any(path is not None for path in (ca_cert, cert, key)) or any(
            e.startswith("https:") for e in endpoints
        )
        credentials = tls(ca_cert, cert, key) if secure else None
        login = (username, password) if username and password is not None else None
        members = [Endpoint(e.split("://", 1)[-1].rstrip("/"), credentials, server_name) for e in endpoints]
        self._names = Names(prefix)
        self._calls = Calls(members, timeout, login)
        self._silence = watch_silence_seconds
        self._journal = Journal(commit_log) if commit_log is not None else None

    # -- reads -----------------------------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        check_key(key)
        request = pb.RangeRequest(key=self._names.key(key), revision=revision, serializable=serializable)
        answer = await self._read(request)
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
        check_range(prefix, limit=limit, start_after=start_after, order_by_create=order_by_create)
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
        answer = await self._read(request)
        items = self._names.key_values(answer.kvs)
        return Page(items, revision or answer.header.revision, answer.more, answer.count)

    async def _read(self, request: pb.RangeRequest) -> Any:
        try:
            return await self._calls.unary("Range", request, repeatable=True, leader=not request.serializable)
        except InvalidRequest as error:
            raise await self._compacted(error, request.revision, request.revision + 1) from error

    # -- writes ----------------------------------------------------------------------------------------------------

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        check_put(key, value)
        answer = await self._calls.unary("Put", pb.PutRequest(key=self._names.key(key), value=value, lease=lease))
        if self._journal is not None:
            self._journal.note(answer.header.revision)
        return int(answer.header.revision)

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        check_key(key)
        first, end = self._names.below(key) if prefix else (self._names.key(key), b"")
        answer = await self._calls.unary("DeleteRange", pb.DeleteRangeRequest(key=first, range_end=end))
        if self._journal is not None and answer.deleted:
            self._journal.note(answer.header.revision)
        return int(answer.deleted)

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        check_transaction(compares, success, failure)
        answer = await self._calls.unary("Txn", self._names.transaction(compares, success, failure))
        if not answer.succeeded:
            STORE_CONFLICTS.inc()
        elif self._journal is not None and any(not isinstance(one, Get) for one in success):
            self._journal.note(answer.header.revision, compares)
        reads = tuple(
            self._names.key_values(response.response_range.kvs)
            for response in answer.responses
            if response.HasField("response_range")
        )
        return TxnResult(answer.succeeded, answer.header.revision, reads)

    # -- watches and leases ----------------------------------------------------------------------------------------

    def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchBatch]]:
        check_key(prefix)
        return self._watch(prefix, start_revision, previous)

    def _watch(self, prefix: str, start_revision: int, previous: bool = False) -> Watch:
        return Watch(
            self._calls,
            self._names,
            prefix,
            start_revision=start_revision,
            previous=previous,
            silence_seconds=self._silence,
        )

    async def lease_grant(self, ttl_seconds: float) -> int:
        if ttl_seconds <= 0:
            raise InvalidRequest(f"a lease of {ttl_seconds} s")
        # a grant whose answer is lost leaves a lease that nothing hangs on and that runs out by itself
        request = pb.LeaseGrantRequest(TTL=math.ceil(ttl_seconds))
        answer = await self._calls.unary("LeaseGrant", request, repeatable=True)
        return int(answer.ID)

    async def lease_keep_alive(self, lease: int) -> float:
        """Renewing twice does no harm, so a dead endpoint costs no lease."""
        request = pb.LeaseKeepAliveRequest(ID=lease)
        answer = await self._calls.unary("LeaseKeepAlive", request, repeatable=True)
        if answer.TTL <= 0:
            raise LeaseLost(f"lease {lease:x} is gone")
        return float(answer.TTL)

    async def lease_revoke(self, lease: int) -> None:
        try:
            await self._calls.unary("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), repeatable=True)
        except LeaseLost:
            return  # gone already, which is all that was wanted

    # -- the rest --------------------------------------------------------------------------------------------------

    async def compact(self, revision: int) -> None:
        try:
            await self._calls.unary("Compact", pb.CompactionRequest(revision=revision), repeatable=True)
        except InvalidRequest as error:
            raise await self._compacted(error, revision, revision) from error

    async def status(self) -> StoreStatus:
        answer = await self._calls.unary("Status", pb.StatusRequest(), repeatable=True, leader=False)
        return StoreStatus(answer.version, answer.header.revision, answer.dbSize, leader=answer.leader != 0)

    async def close(self) -> None:
        """Ends the connections; calls and watches that are under way raise `StoreUnavailable`."""
        await self._calls.close()
        if self._journal is not None:
            self._journal.close()

    async def _compacted(self, error: InvalidRequest, revision: int, at_least: int) -> StoreError:
        """`Compacted` with the oldest revision left, which only a watch is told; any other error as it is."""
        cause = error.__cause__
        if not (isinstance(cause, grpc.aio.AioRpcError) and errors.compacted(cause)):
            return error
        try:
            async with asyncio.timeout(_LOOK_BACK_SECONDS), self._watch("/", max(revision, 1)) as batches:
                async for _ in batches:
                    break
        except Compacted as known:
            return known
        except (StoreError, TimeoutError):
            return Compacted(at_least)
        return Compacted(at_least)
