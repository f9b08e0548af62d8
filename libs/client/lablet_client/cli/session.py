"""One run of the command: the connection, the console, and the way from a coroutine to an answer.

Tests give another network or console by the context's object; a person gives `--url`, `--as` and `--no-color`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    import httpx
    from rich.console import Console
    from rich.table import Table

    from lablet_client.client import Client
    from lablet_client.retry import Retry

T = TypeVar("T")


@dataclass
class Session:
    """What all commands share. `http` and `retry` replace the network's for tests."""

    url: str | None = None
    role: str | None = None
    color: bool | None = None
    http: "Callable[[], httpx.AsyncBaseTransport] | None" = None
    retry: "Retry | None" = None
    width: int | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def console(self) -> "Console":
        """Where answers go. Colours on a terminal only; a pipe gets wide, plain lines."""
        return self._console(sys.stdout)

    @cached_property
    def aside(self) -> "Console":
        """Where progress, hints and errors go, so that answers can be piped."""
        return self._console(sys.stderr)

    def _console(self, stream: Any) -> "Console":
        from lablet_client.cli.screen import Screen

        terminal = stream.isatty()
        width = self.width or (None if terminal else 200)
        return Screen(
            file=stream, width=width, no_color=True if self.color is False else None, highlight=False, soft_wrap=False
        )

    def show(self, table: "Table") -> None:
        """A table, as wide as the terminal."""
        from lablet_client.cli.fitting import fitted

        self.console.print(fitted(table, self.console))

    def show_first(self, table: "Table") -> None:
        """Of a table its first row alone, with the columns as wide as all of it needs."""
        from lablet_client.cli.fitting import fitted

        self.console.print(fitted(table, self.console, first_row_only=True))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["Client"]:
        """A client for the length of a command."""
        from lablet_client.client import Client
        from lablet_client.connection import find_connection

        connection = find_connection(self.url, role=self.role)
        async with Client(connection=connection, http=self.http() if self.http else None, retry=self.retry) as client:
            yield client

    def run(self, work: "Callable[[Client], Coroutine[Any, Any, T]]", *, draws: bool = False) -> T:
        """Does the work with a client, and says so when it takes longer than a second; `draws`: it does so itself."""

        async def all_of_it() -> T:
            async with self.connect() as client, nullcontext() if draws else self._patience():
                return await work(client)

        return asyncio.run(all_of_it())

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        if not self.aside.is_terminal:
            yield
            return
        task = asyncio.create_task(self._spin())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _spin(self) -> None:
        from rich.text import Text

        from lablet_client.cli.screen import visible

        await asyncio.sleep(1.0)
        with self.aside.status(Text(visible(self.notes[-1])) if self.notes else "waiting for the answer …") as status:
            while True:
                await asyncio.sleep(0.2)
                if self.notes:
                    status.update(Text(visible(self.notes[-1])))


def session(context: typer.Context) -> Session:
    """The session of a command."""
    found = context.find_root().obj
    assert isinstance(found, Session)
    return found
