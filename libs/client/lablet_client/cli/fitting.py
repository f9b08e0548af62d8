"""How a table fits a terminal: names, times and numbers are shown whole or not at all, words are shortened or wrapped.

What there is no room for goes column by column, the least needed first, and never what a row is known by. So no id is ever
cut in two, and whatever a person may want to type again stands there as it is. `fit` is pure; `fitted` applies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lablet_client.cli.output import plain_table

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod
    from rich.table import Column, Table

WHOLE = frozenset(
    {
        "ID",
        "NAME",
        "WHEN",
        "SLOT",
        "PHASE",
        "REQUEST",
        "DATE",
        "FITS",
        "STATE",
        "INSTANCE",
        "RESERVATION",
        "WORKER",
        "PORT",
    }
    | {"AGE", "ADDRESS", "OPEN WITH", "EVENT", "ACTION", "SEND THIS TO ITS USER"}
)
"""Titles of what is shown whole."""
WRAPPED = frozenset({"REASON", "WHY", "PORTS", "TYPES", "DESCRIPTION", "ASKED", "BEFORE", "AFTER", "ERROR", "SCOPES"})
"""Titles of what may take several lines."""
KEPT = frozenset({"PHASE", "FITS", "STATE", "WHEN", "EVENT", "ACTION", "AFTER"})
"""Titles of what is never left out, beside the first column."""
_ORDER = (("SLOT", "OUTCOME", "OPEN WITH"), ("DEFINITION", "INSTANCE", "WHY"), ("REASON", "SUBJECT", "WORKER"), (), (),
          ("REQUEST",), ("SOURCE", "SEQUENCE", "BY"), ("LABELS", "TITLE"))  # fmt: skip
RANKS = {title: rank for rank, titles in enumerate(_ORDER, 1) for title in titles}
"""The higher, the sooner it is left out; of equals the rightmost."""
_RANK = 5
_LEAST, _LEAST_WRAPPED = 10, 24
_GAP = 2


@dataclass(frozen=True, slots=True)
class Measure:
    """A column: the width that it would like, the least that it can do with, and how soon it is left out (0: never)."""

    natural: int
    least: int
    rank: int = 0


def fit(columns: Sequence[Measure], room: int) -> list[int]:
    """A width for each column, 0 for one that is left out. What must stay is kept even where it does not fit."""
    kept = list(range(len(columns)))

    def least() -> int:
        return sum(columns[at].least for at in kept) + _GAP * len(kept)

    while least() > room:
        spare = [at for at in kept if columns[at].rank]
        if not spare:
            break
        kept.remove(max(spare, key=lambda at: (columns[at].rank, at)))
    widths = [columns[at].natural if at in kept else 0 for at in range(len(columns))]
    over = sum(widths) + _GAP * len(kept) - room
    while over > 0:
        yielding = [at for at in kept if widths[at] > columns[at].least]
        if not yielding:
            break
        widths[max(yielding, key=lambda at: widths[at])] -= 1
        over -= 1
    return widths


def fitted(table: "Table", console: "Console", *, first_row_only: bool = False) -> "Table":
    """The table as it fits the console. Titles say how a column behaves; numbers stand whole, and what is empty in every
    row is left out. `first_row_only`: that row alone and without titles, its columns as wide as all rows need."""
    told = [column for at, column in enumerate(table.columns) if at == 0 or any(map(str, column.cells))]
    widths = fit([_measure(column, at, console) for at, column in enumerate(told)], console.width)
    kept = [(column, width) for column, width in zip(told, widths, strict=True) if width]
    made = plain_table()
    made.show_header = not first_row_only
    for column, width in kept:
        wraps = str(column.header) in WRAPPED
        overflow: OverflowMethod = "fold" if wraps else "ellipsis"
        made.add_column(column.header, justify=column.justify, width=width, no_wrap=not wraps, overflow=overflow)
    rows = list(zip(*(column.cells for column, _ in kept), strict=True))
    for row in rows[:1] if first_row_only else rows:
        made.add_row(*row)
    return made


def _measure(column: "Column", at: int, console: "Console") -> Measure:
    title = str(column.header)
    natural = max([console.measure(cell).maximum for cell in (column.header, *column.cells)], default=0)
    rank = 0 if at == 0 or title in KEPT else RANKS.get(title, _RANK)
    if at == 0 or title in WHOLE or column.justify == "right":
        return Measure(natural, natural, rank)
    return Measure(natural, min(natural, _LEAST_WRAPPED if title in WRAPPED else _LEAST), rank)
