"""What-if: what would become of a file of bookings, perhaps with another fleet. Nothing is booked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lablet_client.cli.output import Format, Output, pairs, plain_table, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client, LabTime
    from lablet_common.intents import Simulation

app = typer.Typer()
_STYLES = {"placed": "green", "waitlisted": "yellow", "rejected": "red"}


@app.command()
def simulate(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="Bookings and series, one or a list (YAML, JSON)."),
    ],
    workers: Annotated[int, typer.Option(help="So many more workers; with a minus: fewer.")] = 0,
    template: Annotated[str | None, typer.Option(help="The shape that all workers would have.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Tell what would become of the bookings and terms in a file, decided in their order."""
    from pydantic import ValidationError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from lablet_client.cli.documents import text_of
    from lablet_client.cli.failures import WrongUsage
    from lablet_common.intents import SimulationCreate

    run = session(context)
    try:
        found = YAML(typ="safe").load(text_of(file))
        wishes = SimulationCreate.model_validate(found)
    except YAMLError as error:
        raise WrongUsage(f"{file} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WrongUsage(f"{file}: {where}: {first['msg']}") from error
    fleet = {"workers": workers or wishes.workers, "template": template or wishes.template}
    body = wishes.model_copy(update=fleet)

    async def work(client: "Client") -> "tuple[Simulation, LabTime]":
        return await client.reservations.simulate(body), await client.lab_time()

    tell(run, *run.run(work), output)


def tell(run: Session, answer: "Simulation", now: "LabTime", output: Format) -> None:
    """The answer as a table with its sums, or as data."""
    from rich.text import Text

    from lablet_client.cli.times import show_slot

    if output in (Format.JSON, Format.YAML):
        write_data(run.console, answer.to_dict(), output)
        return
    table = plain_table("LAB", "SEATS", "WOULD BE", "SLOT", "HOURS", "WHY")
    for found in answer.reservations:
        slot = show_slot(found.slot.start, found.slot.end, now.now) if found.slot else ""
        why = found.explanation.summary
        if found.outcome == "waitlisted" and found.explanation.earliest is not None:
            first = found.explanation.earliest
            why += f" First fit: {show_slot(first.start, first.end, now.now)}."
        table.add_row(
            found.definition, str(found.seats), Text(found.outcome, _STYLES[found.outcome]), slot,
            f"+{found.added_worker_hours:g}", Text(why),
        )  # fmt: skip
    run.show(table)
    lost = f"{answer.displaced} booked reservations would lose their place" if answer.displaced else ""
    hours = f"{answer.worker_hours_before:g} h booked, {answer.worker_hours_added:+g} h by these"
    cost = f"{answer.cost_added_usd:+.2f} USD" if answer.cost_added_usd else ""
    run.console.print(pairs([("pool", f"{answer.pool}, {answer.workers} workers"), ("power", hours), ("cost", cost),
                             ("displaced", lost)]))  # fmt: skip
