"""Following a resource to a phase, drawn while it happens: a line for each move, a spinner on a terminal."""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from lablet_client.cli.tables import STYLES

if TYPE_CHECKING:
    from lablet_client.cli.session import Session
    from lablet_client.client import Client
    from lablet_common.resources.reservation import Reservation

_EVERY = 1.0
"""Real seconds between two looks at the seats."""


def follow(run: "Session", booking: "Reservation", phases: Collection[str], timeout: float) -> "Reservation":
    """The booking once it has reached one of the phases; each move is told on the way, and how far the labs are. Raises
    `OutOfReach`, `TimedOut`."""
    from rich.markup import escape

    told = {str(booking.phase)}

    async def work(client: "Client") -> "Reservation":
        with run.aside.status(f"{booking.id} is {booking.phase} …") as status:

            def tell(seen: "Reservation") -> None:
                phase = str(seen.phase)
                if phase not in told:
                    told.add(phase)
                    note = seen.status.message or seen.status.reason or ""
                    run.aside.print(f"[{STYLES.get(phase) or 'default'}]{phase:<10}[/] {escape(note)}", soft_wrap=True)
                status.update(f"{seen.id} is {phase} …")

            async def seats() -> None:
                while True:
                    labs = [lab async for lab in client.instances.list(fields=f"spec.reservation={booking.id}")]
                    counts: dict[str, int] = {}
                    for lab in labs:
                        counts[str(lab.phase)] = counts.get(str(lab.phase), 0) + 1
                    if counts:
                        status.update(", ".join(f"{count} {phase.lower()}" for phase, count in counts.items()))
                    await asyncio.sleep(_EVERY)

            watching = asyncio.create_task(seats()) if run.aside.is_terminal else None
            try:
                return await client.wait_for(booking, *phases, timeout=timeout, on_change=tell)
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)

    return run.run(work, draws=True)
