"""A proxy between each service and each server that it talks to, so that a connection can be cut, starved or slowed."""

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lablet_common.resources.kinds import Service
from lablet_common.testing.proxy import FaultyProxy
from lablet_local.chaos.peers import PeerNetwork
from lablet_local.chaos.schedule import SERVERS
from lablet_local.members import Members
from lablet_local.ports import PortBlock

_WITHOUT_S3 = frozenset({Service.SCHEDULER})


class Network:
    """The proxies of a mesh whose ports are `block`. Use it as a context around the mesh."""

    def __init__(self, block: PortBlock, count: int = 1) -> None:
        members = Members(block, count)
        targets = {
            "etcd": members.etcd_endpoints,
            "nats": tuple(url.removeprefix("nats://") for url in members.nats_urls),
            "s3": (f"127.0.0.1:{block.s3}",),
        }
        self._proxies = {
            (service, server): tuple(map(FaultyProxy, targets[server]))
            for service in Service
            for server in SERVERS
            if server != "s3" or service not in _WITHOUT_S3
        }
        self.peers = PeerNetwork(members)
        """Between members."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.peers)
        for proxy in self._all():
            await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _all(self) -> Iterator[FaultyProxy]:
        return (proxy for proxies in self._proxies.values() for proxy in proxies)

    def between(self, pair: str) -> tuple[FaultyProxy, ...]:
        """The proxies of `service→server`: one for each member."""
        service, _, server = pair.partition("→")
        return self._proxies[Service(service), server]

    @property
    def environments(self) -> Mapping[str, Mapping[str, str]]:
        """Service → the settings that lead it through its proxies."""
        found: dict[str, dict[str, str]] = {service: {} for service in Service}
        for (service, server), proxies in self._proxies.items():
            name, scheme = {
                "etcd": ("ETCD_ENDPOINTS", ""),
                "nats": ("NATS_URL", "nats://"),
                "s3": ("ARTIFACT_STORAGE_ENDPOINT", "http://"),
            }[server]
            found[service][name] = ",".join(f"{scheme}{proxy.endpoint}" for proxy in proxies)
        return found

    def heal(self) -> None:
        """Lets everything through again; connections that were starved are broken, so that nobody waits for lost bytes."""
        for proxy in self._all():
            if proxy.swallow_answers or proxy.swallow_requests:
                proxy.break_off()
            proxy.refuse = proxy.swallow_answers = proxy.swallow_requests = False
            proxy.delay_seconds = 0.0
