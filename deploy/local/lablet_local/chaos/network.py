"""A proxy between each replica of a service, or each agent, and each server that it talks to, and one before each replica of
the gateway for all clients, so that a connection can be cut, starved or slowed: of one replica alone, or of all that its
service has."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lablet_common.resources.kinds import Service
from lablet_common.testing.proxy import FaultyProxy
from lablet_local.chaos.front import MachinesFront
from lablet_local.chaos.links import GATEWAY, NATS
from lablet_local.chaos.peers import PeerNetwork
from lablet_local.chaos.schedule import A_MACHINE, AGENTS, CLIENTS, CLOUD, DOORS, MACHINES, SERVERS
from lablet_local.members import Members
from lablet_local.ports import PortBlock

_WITHOUT_S3 = frozenset({Service.SCHEDULER})
_SETTINGS = {
    "etcd": ("ETCD_ENDPOINTS", ""),
    NATS: ("NATS_URL", "nats://"),
    "s3": ("ARTIFACT_STORAGE_ENDPOINT", "http://"),
    CLOUD: ("CLOUD_URL", "http://"),
}
_OPTIONS = {NATS: ("--nats", "nats://"), GATEWAY: ("--join", "http://")}
"""What replicas and agents are told: a name, and what stands before each address."""


class Network:
    """The proxies of a mesh whose ports are `block`, whose services run as the processes `replicas` and whose agents as
    `agents`. Use it as a context around the mesh. Raises `PortsBusy`."""

    def __init__(
        self, block: PortBlock, count: int = 1, replicas: Sequence[str] = (), agents: Sequence[str] = ()
    ) -> None:
        members = Members(block, count)
        targets = {
            "etcd": members.etcd_endpoints,
            NATS: tuple(url.removeprefix("nats://") for url in members.nats_urls),
            "s3": (f"127.0.0.1:{block.s3}",),
            CLOUD: (f"127.0.0.1:{block.cloud}",),
            GATEWAY: (f"127.0.0.1:{block.gateway()}",),
        }
        doors = {
            name: block.gateway(int(name.rpartition("-")[2]))
            for name in replicas
            if service_of(name) == Service.GATEWAY
        }
        targets |= {name: (f"127.0.0.1:{port}",) for name, port in doors.items()}
        self._gateways = tuple(doors)
        self._agents = tuple(agents)
        self._controllers = [replica for replica in replicas if service_of(replica) == Service.WORKERS]
        pairs = [
            *((replica, server) for replica in replicas for server in SERVERS if _reaches(replica, server)),
            *((replica, CLOUD) for replica in self._controllers),
            *((agent, server) for agent in agents for server in (NATS, GATEWAY)),
            *((CLIENTS, gateway) for gateway in doors),
        ]
        self._proxies = {pair: tuple(map(FaultyProxy, targets[pair[1]])) for pair in pairs}
        self.machines = MachinesFront(block, self._controllers)
        """Between the worker-controller and the simulated workers."""
        self.peers = PeerNetwork(members)
        """Between members."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self.machines)
            await opened.enter_async_context(self.peers)
            for proxy in self._all():
                await opened.enter_async_context(proxy)
            self._stack = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _all(self) -> Iterator[FaultyProxy]:
        return (proxy for proxies in self._proxies.values() for proxy in proxies)

    def between(self, pair: str, host: str | None = None) -> tuple[FaultyProxy, ...]:
        """The proxies of `service→server`, or of `replica→server` alone: one for each member, or for each machine there may
        be; of `…→a machine` that of the machine at `host`."""
        caller, _, server = pair.partition("→")
        if server in (MACHINES, A_MACHINE):
            return self.machines.between([one for one in self._controllers if caller in (one, service_of(one))], host)
        return tuple(
            proxy
            for (replica, name), proxies in self._proxies.items()
            if name == server and caller in (replica, service_of(replica))
            for proxy in proxies
        )

    @property
    def environments(self) -> dict[str, dict[str, str]]:
        """Replica → the settings that lead it through its proxies."""
        return {caller: told for caller, told in self._told(_SETTINGS).items() if caller not in self._agents}

    @property
    def agent_options(self) -> dict[str, dict[str, str]]:
        """Agent → the options that lead it through its proxies."""
        return {caller: told for caller, told in self._told(_OPTIONS).items() if caller in self._agents}

    @property
    def doors(self) -> list[str]:
        """Where clients find each replica of the gateway."""
        return [f"http://{proxy.endpoint}" for name in self._gateways for proxy in self.between(f"{CLIENTS}→{name}")]

    def _told(self, names: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for (caller, server), proxies in self._proxies.items():
            if server in names:
                name, scheme = names[server]
                found.setdefault(caller, {})[name] = ",".join(f"{scheme}{proxy.endpoint}" for proxy in proxies)
        return found

    def unused(self) -> list[str]:
        """Links of the mesh through whose proxies nobody has ever come: to break them was to break nothing."""
        ways = {
            CLOUD: self.between(f"{Service.WORKERS}→{CLOUD}"),
            MACHINES: self.between(f"{Service.WORKERS}→{MACHINES}"),
            AGENTS: tuple(proxy for agent in self._agents for proxy in self.between(f"{agent}→{NATS}")),
            **{f"{DOORS} of {name}": self.between(f"{CLIENTS}→{name}") for name in self._gateways},
        }
        return [link for link, proxies in ways.items() if proxies and not any(proxy.accepted for proxy in proxies)]

    def heal(self) -> None:
        """Lets everything through again; connections that were starved are broken, so that nobody waits for lost bytes."""
        for proxy in (*self._all(), *self.machines):
            if proxy.swallow_answers or proxy.swallow_requests:
                proxy.break_off()
            proxy.refuse = proxy.swallow_answers = proxy.swallow_requests = False
            proxy.delay_seconds = 0.0


def service_of(replica: str) -> str:
    """`scheduler` for `scheduler-1`."""
    return replica.rpartition("-")[0]


def _reaches(replica: str, server: str) -> bool:
    return server != "s3" or service_of(replica) not in _WITHOUT_S3
