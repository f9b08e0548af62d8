"""The way of one process to what it talks to: how long things take on it, what gets lost, and the process's death.

Everything that a process does to the world goes over its line. When it dies, at a call that was chosen beforehand, before
that call has done its work or after, nothing of it reaches the world any more: no clean-up, no last word, as after SIGKILL.
When it is frozen, its calls and its news wait, and it goes on as if no time had passed.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass


class Dead(asyncio.CancelledError):
    """The process has been killed: its tasks end here."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely a call is to suffer; times in real seconds."""

    slow: float = 0.3
    """Share of ways that take up to `latency`; the others take none, and what comes first is the loop's choice."""
    latency: float = 0.01
    late: float = 0.0
    """Share of ways that take up to `late_seconds`."""
    late_seconds: float = 3.0
    refused: float = 0.0
    """Share of calls that do not arrive, and whose caller is told so."""
    answer_lost: float = 0.0
    """Share of calls that are carried out, and whose caller hears nothing."""
    overtaken: float = 0.0
    """Share of writes that are carried out only after their caller has given up."""
    cut: float = 0.0
    """Share of a watch's news after which its connection breaks."""


CALM = Weather()


class Line:
    """`dies_at`: the number of the call at which the process dies; `after_work`: when that call has been carried out."""

    def __init__(self, name: str, rng: random.Random, weather: Weather = CALM) -> None:
        self.name = name
        self.rng = rng
        self.weather = weather
        self.calls = 0
        self.dies_at: int | None = None
        self.dies_after_work = False
        self.on_death: Callable[[], None] = lambda: None
        self._dead = False
        self._frozen = False
        self._thawed = asyncio.Event()

    @property
    def dead(self) -> bool:
        return self._dead

    def kill(self) -> None:
        """From now on nothing of this process reaches the world."""
        if not self._dead:
            self._dead = True
            self.thaw()
            self.on_death()

    def freeze(self) -> None:
        """As SIGSTOP: what is on its way waits."""
        self._frozen = True
        self._thawed.clear()

    def thaw(self) -> None:
        self._frozen = False
        self._thawed.set()

    def chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    async def enter(self) -> None:
        """On the way there. Raises `Dead`."""
        self.alive()
        self.calls += 1
        dies_now = self.calls == self.dies_at
        await self.way()
        if dies_now and not self.dies_after_work:
            self.kill()
        self.alive()

    async def leave(self, entered: int) -> None:
        """On the way back from the call that was the `entered`th. Raises `Dead`."""
        if entered == self.dies_at and self.dies_after_work:
            self.kill()
        self.alive()
        await self.way()
        self.alive()

    async def way(self) -> None:
        """The time that one way takes."""
        weather, draw = self.weather, self.rng.random
        if weather.late > 0 and draw() < weather.late:
            await asyncio.sleep(draw() * weather.late_seconds)
        elif weather.slow > 0 and draw() < weather.slow:
            await asyncio.sleep(draw() * weather.latency)
        if self._frozen:
            await self._thawed.wait()

    def alive(self) -> None:
        if self._dead:
            raise Dead(f"{self.name} is dead")
