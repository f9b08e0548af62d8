"""A proxy between each service and each server that it talks to, so that a connection can be cut, starved or slowed."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lablet_common.resources.kinds import Service
from lablet_common.testing.proxy import FaultyProxy
from lablet_local.chaos.schedule import SERVERS
from lablet_local.ports import PortBlock

_WITHOUT_S3 = frozenset({Service.SCHEDULER})


class Network:
    """The proxies of a mesh whose ports are `block`. Use it as a context around the mesh."""

    def __init__(self, block: PortBlock) -> None:
        targets = {"etcd": block.etcd, "nats": block.nats, "s3": block.s3}
        self._proxies = {
            (service, server): FaultyProxy(f"127.0.0.1:{targets[server]}")
            for service in Service
            for server in SERVERS
            if server != "s3" or service not in _WITHOUT_S3
        }
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for proxy in self._proxies.values():
            await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def between(self, pair: str) -> FaultyProxy:
        """The proxy of `service→server`."""
        service, _, server = pair.partition("→")
        return self._proxies[Service(service), server]

    @property
    def environments(self) -> Mapping[str, Mapping[str, str]]:
        """Service → the settings that lead it through its proxies."""
        found: dict[str, dict[str, str]] = {service: {} for service in Service}
        for (service, server), proxy in self._proxies.items():
            name, value = {
                "etcd": ("ETCD_ENDPOINTS", proxy.endpoint),
                "nats": ("NATS_URL", f"nats://{proxy.endpoint}"),
                "s3": ("ARTIFACT_STORAGE_ENDPOINT", f"http://{proxy.endpoint}"),
            }[server]
            found[service][name] = value
        return found

    def heal(self) -> None:
        """Lets everything through again; connections that were starved are broken, so that nobody waits for lost bytes."""
        for proxy in self._proxies.values():
            if proxy.swallow_answers or proxy.swallow_requests:
                proxy.break_off()
            proxy.refuse = proxy.swallow_answers = proxy.swallow_requests = False
            proxy.delay_seconds = 0.0
