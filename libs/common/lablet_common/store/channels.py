"""One connection to each member of the cluster, and what travels on it: etcd's methods by name.

A connection is known to stand before anything is sent on it, so that a dead member costs a refused connection and no
timeout, and so that a write which failed to connect is known not to have left.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc.aio import Metadata

from lablet_common.store.proto import etcd_pb2 as pb

_OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),  # etcd closes connections that ping more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # despite its name: how long one attempt to connect may take
    ("grpc.use_local_subchannel_pool", 1),  # a store's connections are its own
    ("grpc.enable_http_proxy", 0),
)

_UNARY: dict[str, tuple[str, Any, Any]] = {
    "Range": ("KV", pb.RangeRequest, pb.RangeResponse),
    "Put": ("KV", pb.PutRequest, pb.PutResponse),
    "DeleteRange": ("KV", pb.DeleteRangeRequest, pb.DeleteRangeResponse),
    "Txn": ("KV", pb.TxnRequest, pb.TxnResponse),
    "Compact": ("KV", pb.CompactionRequest, pb.CompactionResponse),
    "LeaseGrant": ("Lease", pb.LeaseGrantRequest, pb.LeaseGrantResponse),
    # a stream to etcd; with one question on it, its answer and its end, it is a call like the others
    "LeaseKeepAlive": ("Lease", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse),
    "LeaseRevoke": ("Lease", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse),
    "Status": ("Maintenance", pb.StatusRequest, pb.StatusResponse),
    "Authenticate": ("Auth", pb.AuthenticateRequest, pb.AuthenticateResponse),
}
_STREAMS: dict[str, tuple[str, Any, Any]] = {
    "Watch": ("Watch", pb.WatchRequest, pb.WatchResponse),
}


class Stream(Protocol):
    """Both directions of one call."""

    async def write(self, message: Any) -> None: ...

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`."""
        ...

    def cancel(self) -> bool: ...


class Endpoint:
    """One member of the cluster."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None, server_name: str | None) -> None:
        options = [*_OPTIONS]
        if server_name is not None:
            options.append(("grpc.ssl_target_name_override", server_name))
        self.address = address
        self.doubt = (
            ""
            if credentials is None
            else " (or one side does not accept the other's TLS certificate: ETCD_CA_CERT, ETCD_CERT_CERT and ETCD_CERT_KEY)"
        )
        """What else may be wrong when there is no connection: gRPC does not tell in every case."""
        self._channel = (
            grpc.aio.secure_channel(address, credentials, options=options)
            if credentials is not None
            else grpc.aio.insecure_channel(address, options=options)
        )
        self.unary: dict[str, Any] = {
            method: self._channel.unary_unary(
                f"/etcdserverpb.{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for method, (service, request, response) in _UNARY.items()
        }
        self._streams: dict[str, Any] = {
            method: self._channel.stream_stream(
                f"/etcdserverpb.{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for method, (service, request, response) in _STREAMS.items()
        }

    async def connected(self, within: float) -> bool:
        """Whether the connection stands; waits for an attempt that is under way, at most `within` seconds."""
        state = self._channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(within):
                while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except (TimeoutError, grpc.aio.UsageError):  # the latter: closed meanwhile
            return False
        return state is grpc.ChannelConnectivity.READY

    def open(self, method: str, metadata: Metadata) -> Stream:
        stream: Stream = self._streams[method](metadata=metadata)
        return stream

    async def close(self) -> None:
        await self._channel.close(None)


def tls(ca_cert: Path | None, cert: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """Credentials from PEM files; without `ca_cert` the system's authorities are trusted. Raises `OSError`."""
    return grpc.ssl_channel_credentials(
        root_certificates=ca_cert.read_bytes() if ca_cert else None,
        private_key=key.read_bytes() if key else None,
        certificate_chain=cert.read_bytes() if cert else None,
    )
