"""Before the APIs of the simulated machines: a proxy for each pair of a caller and a machine.

The cloud tells one address of a machine, and whoever owns its pool calls that. So something listens on the machine's own
address, at the port that the cloud tells, asks the kernel which process calls (as `peers` does), and hands the connection
to that caller's own proxy. Names in certificates would hold as without it: the address is the machine's. Consoles of labs
are reached directly.
"""

import asyncio
import errno
from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from lablet_common.testing.proxy import FaultyProxy
from lablet_local.chaos.peers import Pids, process_at
from lablet_local.cloud.addresses import CONTROLLER_PORT, addresses, loopback
from lablet_local.ports import PortBlock, PortsBusy

_MACHINES = 32
"""So many have addresses at a time at most: those of terminated ones are given out again."""


class MachinesFront:
    """The proxies between `callers` (processes) and the machines of the mesh whose ports are `block`. A context around the
    mesh; without callers nothing listens. Raises `PortsBusy`."""

    def __init__(self, block: PortBlock, callers: Sequence[str]) -> None:
        self._port = block.machines_front
        self._hosts = tuple(islice(addresses(loopback(block.machine_net)), _MACHINES)) if callers else ()
        self._proxies = {
            (caller, host): FaultyProxy(f"{host}:{CONTROLLER_PORT}") for caller in callers for host in self._hosts
        }
        self._others = {host: FaultyProxy(f"{host}:{CONTROLLER_PORT}") for host in self._hosts}
        """For whoever is not one of the callers, or could not be told: all passes."""
        self._server: asyncio.Server | None = None
        self.pids: Pids = dict
        """Until it is set no caller is known."""

    @property
    def port(self) -> int | None:
        """At which machines are to be called, on their own addresses; None: at their own."""
        return self._port if self._hosts else None

    async def __aenter__(self) -> Self:
        if self._hosts:
            try:
                self._server = await asyncio.start_server(self._serve, self._hosts, self._port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                raise PortsBusy(f"port {self._port} of {self._hosts[0]} and its like is taken") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for proxy in (*self._proxies.values(), *self._others.values()):
                await proxy.end()

    def __iter__(self) -> Iterator[FaultyProxy]:
        return iter(self._proxies.values())

    def between(self, callers: Sequence[str], host: str | None = None) -> tuple[FaultyProxy, ...]:
        """To the machine at `host`, or to every machine there may be."""
        return tuple(
            proxy for (caller, machine), proxy in self._proxies.items() if caller in callers and host in (None, machine)
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here, there = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        caller = process_at(here, there, self.pids())
        machine = here[0]
        proxy = self._others[machine] if caller is None else self._proxies.get((caller, machine), self._others[machine])
        await proxy.serve(reader, writer)
