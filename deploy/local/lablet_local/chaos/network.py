"""A proxy between each replica of a service and each server that it talks to, so that a connection can be cut, starved or
slowed: of one replica alone, or of all that its service has."""

from collections.abc import Iterator, Sequence
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
    """The proxies of a mesh whose ports are `block` and whose services run as the processes `replicas`. Use it as a context
    around the mesh."""

    def __init__(self, block: PortBlock, count: int = 1, replicas: Sequence[str] = ()) -> None:
        members = Members(block, count)
        targets = {
            "etcd": members.etcd_endpoints,
            "nats": tuple(url.removeprefix("nats://") for url in members.nats_urls),
            "s3": (f"127.0.0.1:{block.s3}",),
        }
        self._proxies = {
            (replica, server): tuple(map(FaultyProxy, targets[server]))
            for replica in replicas
            for server in SERVERS
            if server != "s3" or service_of(replica) not in _WITHOUT_S3
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
        """The proxies of `service→server`, or of `replica→server` alone: one for each member."""
        caller, _, server = pair.partition("→")
        return tuple(
            proxy
            for (replica, name), proxies in self._proxies.items()
            if name == server and caller in (replica, service_of(replica))
            for proxy in proxies
        )

    @property
    def environments(self) -> dict[str, dict[str, str]]:
        """Replica → the settings that lead it through its proxies."""
        found: dict[str, dict[str, str]] = {}
        for (replica, server), proxies in self._proxies.items():
            name, scheme = {
                "etcd": ("ETCD_ENDPOINTS", ""),
                "nats": ("NATS_URL", "nats://"),
                "s3": ("ARTIFACT_STORAGE_ENDPOINT", "http://"),
            }[server]
            found.setdefault(replica, {})[name] = ",".join(f"{scheme}{proxy.endpoint}" for proxy in proxies)
        return found

    def heal(self) -> None:
        """Lets everything through again; connections that were starved are broken, so that nobody waits for lost bytes."""
        for proxy in self._all():
            if proxy.swallow_answers or proxy.swallow_requests:
                proxy.break_off()
            proxy.refuse = proxy.swallow_answers = proxy.swallow_requests = False
            proxy.delay_seconds = 0.0


def service_of(replica: str) -> str:
    """`scheduler` for `scheduler-1`."""
    return replica.rpartition("-")[0]
