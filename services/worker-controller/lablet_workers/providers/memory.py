"""A cloud in memory, for tests: machines whose states the test moves, and errors on demand."""

from collections.abc import Mapping
from dataclasses import replace

from lablet_workers.providers.port import (
    LaunchOrder,
    MachineInfo,
    MachineState,
    NotFound,
    ProviderError,
    ProviderUnavailable,
)


class MemoryProvider:
    """A `Provider`. With `instant` (the default) a launched or started machine runs at once and a stopped one has
    stopped; else the test calls `become`."""

    def __init__(self, *, instant: bool = True) -> None:
        self.machines: dict[str, MachineInfo] = {}
        self.instant = instant
        self.launches: list[LaunchOrder] = []
        """Orders that made a machine."""
        self.power_ons: list[str] = []
        self.launch_refused: ProviderError | None = None
        """Raised by every launch while it is set."""
        self.launch_answer_lost = False
        """Launches make their machine and do not answer."""
        self.find_nothing = False
        """`find` lags behind and sees no machine yet."""
        self._tokens: dict[str, str] = {}
        self._errors: list[ProviderError] = []

    def fail_next(self, *errors: ProviderError) -> None:
        """The next calls raise these."""
        self._errors += errors

    def forget_tokens(self) -> None:
        """As a provider does after a while: a launch with an old token makes a new machine."""
        self._tokens = {f"forgotten-{token}": machine for token, machine in self._tokens.items()}

    def become(self, machine_id: str, state: MachineState, reason: str = "") -> None:
        self.machines[machine_id] = replace(self.machines[machine_id], state=state, reason=reason)

    def _enter(self) -> None:
        if self._errors:
            raise self._errors.pop(0)

    permanent = False

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        self._enter()
        if self.launch_refused is not None:
            raise self.launch_refused
        known = self._tokens.get(order.client_token)
        if known is None:
            known = self._tokens[order.client_token] = f"m-{len(self._tokens) + 1}"
            self.launches.append(order)
            self.power_ons.append(order.name)
            self.machines[known] = MachineInfo(
                known,
                order.name,
                MachineState.RUNNING if self.instant else MachineState.PENDING,
                url=f"memory://{known}",
                host=f"{order.name}.test",
                tags=dict(order.tags or {}),
            )
        if self.launch_answer_lost:
            raise ProviderUnavailable("no answer")
        return self.machines[known]

    async def describe(self, machine_id: str) -> MachineInfo:
        self._enter()
        try:
            return self.machines[machine_id]
        except KeyError:
            raise NotFound(f"no machine {machine_id}") from None

    async def find(self, tags: Mapping[str, str]) -> list[MachineInfo]:
        self._enter()
        if self.find_nothing:
            return []
        return [
            machine
            for machine in self.machines.values()
            if machine.state is not MachineState.TERMINATED
            and all((machine.tags or {}).get(k) == v for k, v in tags.items())
        ]

    async def start(self, machine_id: str) -> MachineInfo:
        machine = await self.describe(machine_id)
        if machine.state is MachineState.STOPPED:
            self.power_ons.append(machine.name)
            self.become(machine_id, MachineState.RUNNING if self.instant else MachineState.PENDING)
        return self.machines[machine_id]

    async def stop(self, machine_id: str) -> MachineInfo:
        await self.describe(machine_id)
        self.become(machine_id, MachineState.STOPPED if self.instant else MachineState.STOPPING)
        return self.machines[machine_id]

    async def terminate(self, machine_id: str) -> None:
        self._enter()
        if machine_id in self.machines:
            self.become(machine_id, MachineState.TERMINATED if self.instant else MachineState.TERMINATING)

    async def close(self) -> None:
        return None
