"""`lablet run MANIFEST`: a job from a file to its exit code. Published, booked as soon as possible, followed, and done.

What the job writes goes to standard output as it comes; everything else to standard error. The exit code is the job's own;
where there is none (it was refused, cancelled, or its host was lost for good) it is 1, as for every refusal.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import labels_of
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client
    from lablet_common.resources.instance import Instance
    from lablet_common.resources.reservation import Reservation

app = typer.Typer()
_PATIENCE = 31 * 86_400.0
"""Real seconds: the queue and the job may take their time; Ctrl-C ends it."""
_PAUSE = 0.1
_WAIT = 10
"""Seconds that the mesh waits for output before it answers that there is none."""


@app.command()
def run(
    context: typer.Context,
    manifest: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A process lab that ends by itself.")],
    name: Annotated[str | None, typer.Option(help="Of the definition [default: the file's name]")] = None,
    pool: Annotated[str, typer.Option("--pool", "-p", help="Of agents.")] = "agents",
    duration: Annotated[str, typer.Option("--duration", "-d", help='The longest that it may take: "90m".')] = "30m",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher ones leave the queue first.")] = 0,
    labels: Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value, repeatable.")] = None,
) -> None:
    """Run a job at once, or as soon as a host has room: its output here, its exit code yours."""
    from lablet_client.cli.definition import name_of
    from lablet_client.cli.documents import read_documents
    from lablet_client.cli.failures import WrongUsage
    from lablet_client.cli.times import parse_span

    documents = read_documents(manifest)
    if len(documents) != 1 or documents[0].get("kind") != "ProcessLab":
        raise WrongUsage(f"{manifest} is no manifest of kind ProcessLab")
    if documents[0].get("until") != "completed":
        raise WrongUsage(f"{manifest} runs until its slot ends: say `until: completed`, or book it with lablet reserve")
    try:
        minutes = max(1, round(parse_span(duration).total_seconds() / 60))
    except ValueError as error:
        raise WrongUsage(f"--duration: {error}") from error
    nodes = [str(node["name"]) for node in documents[0].get("nodes") or () if isinstance(node, dict) and "name" in node]
    wish = {
        "pool": pool,
        "asap": True,
        "duration_minutes": minutes,
        "priority": priority,
        "labels": labels_of(labels or (), "--label"),
    }
    started = session(context)

    async def work(client: "Client") -> int:
        return await _Job(started, client, nodes).run(name or name_of(manifest), manifest.read_bytes(), wish)

    raise typer.Exit(started.run(work, draws=True))


class _Job:
    """One run of a job."""

    def __init__(self, run: Session, client: "Client", nodes: list[str]) -> None:
        self._run = run
        self._client = client
        self._nodes = nodes
        self._at_line_start = True

    def _tell(self, text: str) -> None:
        self._run.aside.print(text, style="dim", markup=False, soft_wrap=True)

    async def run(self, name: str, content: bytes, wish: dict[str, Any]) -> int:
        from lablet_common.intents import ReservationCreate

        definition = await self._client.definitions.publish(content, name=name)
        booking = await self._client.reservations.create(ReservationCreate(definition=definition.id, **wish))
        try:
            return await self._follow(booking)
        except asyncio.CancelledError:
            await self._client.reservations.cancel(booking.id, reason="interrupted")
            self._tell(f"{booking.id} cancelled")
            raise

    async def _follow(self, booking: "Reservation") -> int:
        self._tell(f"{booking.id} is {str(booking.phase).lower()}" + (f": {why}" if (why := _why(booking)) else ""))
        lab = await self._lab_of(booking)
        reading = [asyncio.create_task(self._read(lab.id, node)) for node in self._nodes]
        try:
            lab = await self._client.wait_for(lab, "Terminated", timeout=_PATIENCE)
            await asyncio.gather(*reading)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        if not self._at_line_start:
            sys.stdout.write("\n")
        code = lab.status.exit_code
        if code is None:
            self._tell(f"{lab.id} brought no result: {lab.status.message or lab.status.reason}")
            return 1
        self._tell(f"{lab.id} on {lab.spec.worker} ended with {code}")
        return code

    async def _lab_of(self, booking: "Reservation") -> "Instance":
        """Its lab, once there is one. Raises `OutOfReach` when there will be none."""
        from lablet_client.errors import NotFound

        booking = await self._client.wait_for(booking, "Scheduled", "Active", timeout=_PATIENCE)
        seat = booking.status.placement[0]
        self._tell(f"{booking.id} goes to {seat.worker}")
        while True:
            try:
                return await self._client.instances.get(seat.instance)
            except NotFound:
                await asyncio.sleep(_PAUSE)

    async def _read(self, lab: str, node: str) -> None:
        """Until its end. While its agent does not answer there is nothing to read."""
        from lablet_client.errors import Unavailable

        position = 0
        while True:
            try:
                part = await self._client.instances.output(lab, node, position=position, wait=_WAIT)
            except Unavailable:
                await asyncio.sleep(1.0)
                continue
            self._write(node, part.content)
            position = part.next
            if part.over:
                return
            if not part.content:
                await asyncio.sleep(_PAUSE)

    def _write(self, node: str, content: bytes) -> None:
        if not content:
            return
        text = content.decode(errors="replace")
        if len(self._nodes) > 1:
            text = "".join(f"{node} | {line}" for line in text.splitlines(keepends=True))
        sys.stdout.write(text)
        sys.stdout.flush()
        self._at_line_start = text.endswith("\n")


def _why(booking: "Reservation") -> str:
    return booking.status.message or booking.status.reason or ""
