"""`lablet pool optimise`: worker-hours saved by moving seats that have not started."""

from typing import TYPE_CHECKING, Annotated

import typer

from lablet_client.cli.output import Format, Output, pairs, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client, LabTime
    from lablet_common.intents import Optimisation

app = typer.Typer()


@app.command()
def optimise(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="POOL")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be moved, and the saving.")] = False,
    moves: Annotated[int | None, typer.Option("--max-moves", min=1, help="Seats moved at most.")] = None,
    budget: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds for which a plan is looked for.")] = 5.0,
    output: Output = Format.TABLE,
) -> None:
    """Move seats that have not started, for the same slots, so that workers can be off longer."""
    run = session(context)
    run.notes.append("looking for a plan …")

    async def work(client: "Client") -> "tuple[Optimisation, LabTime]":
        found = await client.pools.optimise(name, dry_run=dry_run, max_moves=moves, budget_seconds=budget)
        return found, await client.lab_time()

    found, now = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, found.to_dict(), output)
    else:
        _tell(run, found, now)


def _tell(run: Session, found: "Optimisation", now: "LabTime") -> None:
    from lablet_client.cli.times import show_slot

    if found.moves:
        table = plain_table("RESERVATION", "SEAT", "SLOT", "FROM", "TO")
        for move in found.moves:
            slot = show_slot(move.slot.start, move.slot.end, now.now)
            table.add_row(move.reservation, str(move.seat), slot, move.frm, move.to)
        run.show(table)
    left_out = found.moved - len(found.moves)
    seats = "1 seat" if found.moved == 1 else f"{found.moved} seats"
    verb = "moved" if found.committed else "would move" if found.moved else "nothing to move"
    saved = f"{found.worker_hours_saved:g} of {found.worker_hours_before:g} worker-hours"
    best = "; no plan saves more" if found.proven else ""
    run.console.print(
        pairs(
            [
                ("moves", f"{seats} {verb}" + (f", {left_out} not shown" if left_out else "") if found.moved else verb),
                ("saved" if found.committed else "saves", f"{saved}{best}"),
                ("cost", f"{found.cost_saved_usd:.2f} USD less" if found.cost_saved_usd else ""),
            ]
        )
    )
