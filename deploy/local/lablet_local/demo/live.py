"""The morning as it happens: the lab clock, reservations by phase, a bar for each worker, the latest moves.

On a terminal a view that is drawn anew a few times a second, elsewhere plain lines. It only reads what the recorder has.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lablet_local.demo.record import Commit
from lablet_local.demo.run import Stage
from lablet_local.demo.scenario import OPENING

_TIMES_A_SECOND = 4
_LATEST = 9
_BAR_MINUTES = 4
"""Lab minutes of one character of a worker's bar."""
_BAR_WIDTH = 46
_COLOURS = {
    "Scheduled": "cyan",
    "Active": "green",
    "Completed": "bright_black",
    "Waitlisted": "yellow",
    "Rejected": "red",
    "Cancelled": "magenta",
    "Expired": "bright_black",
    "Failed": "bold red",
    "Running": "green",
    "Ready": "green",
    "Offline": "bright_black",
}
_POWER = {
    "Offline": ("·", "bright_black"),
    "Ready": ("█", "green"),
    "Draining": ("▓", "yellow"),
    "Failed": ("x", "red"),
}
_ON_THE_WAY = ("▒", "yellow")


class LiveView:
    """What is shown of a stage. `note` adds a line of the story."""

    def __init__(self, console: Console, stage: Stage) -> None:
        self._console = console
        self._stage = stage
        self._latest: deque[Text] = deque(maxlen=_LATEST)
        self._phases: dict[str, str] = {}
        self._bars: dict[str, list[tuple[str, str]]] = {}
        self._events = 0
        self._live: Live | None = None
        stage.recorder.listen(self._see)

    def note(self, text: str) -> None:
        line = Text.assemble((self._now(), "bold"), "  ", (text, "bold white"))
        self._latest.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Draws until the block is left."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._draw(), console=self._console, auto_refresh=False, transient=True) as self._live:
            drawing = asyncio.create_task(self._redraw(self._live))
            try:
                yield
            finally:
                drawing.cancel()
                await asyncio.wait({drawing})
                self._live = None

    async def _redraw(self, live: Live) -> None:
        while True:
            self._extend_bars()
            live.update(self._draw(), refresh=True)
            await asyncio.sleep(1 / _TIMES_A_SECOND)

    def _see(self, commit: Commit) -> None:
        if not isinstance(commit.value, dict) or "status" not in commit.value:
            return
        self._events += 1
        phase = str(commit.value["status"].get("phase", ""))
        before, self._phases[commit.key] = self._phases.get(commit.key), phase
        if phase == before:
            return
        kind = commit.key.split("/")[1]
        if kind == "reservations":
            name = (commit.value["metadata"].get("labels") or {}).get("title", commit.key)
        elif kind == "workers" and before is not None:
            name = str(commit.value["metadata"]["id"])
        else:
            return
        line = Text.assemble((self._now(), "bold"), "  ", f"{name} ", (phase, _COLOURS.get(phase, "white")))
        reason = commit.value["status"].get("reason")
        if reason:
            line.append(f"  {reason}", "bright_black")
        self._latest.append(line)

    def _now(self) -> str:
        return f"{self._stage.clock.now():%H:%M}"

    def _workers(self) -> dict[str, str]:
        found = self._stage.recorder.of("/workers/")
        return {str(one["metadata"]["id"]): str(one["status"]["phase"]) for one in found}

    def _extend_bars(self) -> None:
        passed = int((self._stage.clock.now() - OPENING) / timedelta(minutes=_BAR_MINUTES)) + 1
        for worker, phase in self._workers().items():
            bar = self._bars.setdefault(worker, [])
            while len(bar) < min(passed, _BAR_WIDTH):
                bar.append(_POWER.get(phase, _ON_THE_WAY))

    def _draw(self) -> RenderableType:
        left, right = self._reservations(), self._fleet()
        side = Table.grid(expand=True, padding=(0, 2))
        side.add_column(ratio=2)
        side.add_column(ratio=5)
        side.add_row(left, right)
        latest = Group(*(self._latest or [Text("…")]))
        clock = Text.assemble(
            (f" {self._stage.clock.now():%A %H:%M} ", "bold"), f"lab time × {self._stage.clock.speed:g}"
        )
        return Panel(
            Group(side, Text(), latest),
            title=clock,
            subtitle=f"{self._events} commits",
            border_style="blue",
            padding=(1, 2),
        )

    def _reservations(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for prefix, word in (("/reservations/", "reservations"), ("/instances/", "labs")):
            table.add_row(Text(word, "bold"), "")
            counts = Counter(str(one["status"]["phase"]) for one in self._stage.recorder.of(prefix))
            for phase, count in counts.items():
                table.add_row(Text(phase, _COLOURS.get(phase, "white")), Text(str(count), justify="right"))
        waiting = sum(key.startswith("/inbox/scheduler/") for key in self._stage.recorder.present)
        table.add_row(Text("undecided", "bold yellow" if waiting else "bright_black"), str(waiting))
        return table

    def _fleet(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        running: Counter[str] = Counter()
        for one in self._stage.recorder.of("/instances/"):
            if one["status"]["phase"] == "Running":
                running[str(one["spec"]["worker"])] += 1
        for worker, phase in self._workers().items():
            bar = Text()
            for sign, colour in self._bars.get(worker, []):
                bar.append(sign, colour)
            bar.pad_right(_BAR_WIDTH - len(bar))
            labs = f"{running[worker]} labs" if running[worker] else ""
            table.add_row(Text(worker, "bold"), bar, Text(phase, _COLOURS.get(phase, "yellow")), labs)
        return table
