"""How answers are written: a table for people, JSON and YAML for programs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lablet_client.cli.tables import Document


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to write the answer.", show_default=True)]


def write_data(console: "Console", value: Any, form: Format) -> None:
    """JSON or YAML, unwrapped and uncoloured, so that another program can read it."""
    text = as_yaml(value) if form is Format.YAML else json.dumps(value, indent=2, ensure_ascii=False)
    console.out(text.rstrip("\n"), highlight=False)


def answer(console: "Console", value: Any, form: Format, say: Callable[[], None]) -> None:
    """`value` for a program; for a person what `say` tells."""
    if form in (Format.JSON, Format.YAML):
        write_data(console, value, form)
    else:
        say()


def as_yaml(value: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    target = StringIO()
    yaml.dump(value, target)
    return target.getvalue()


def table_of(kind: str, documents: Sequence["Document"], now: datetime, *, wide: bool = False) -> "Table":
    """The documents of one kind as a table. Columns that are empty in every row are left out."""
    from lablet_client.cli.tables import COLUMNS

    columns = [column for column in COLUMNS[kind] if wide or not column.wide]
    rows = [[_cell(column.value(document, now)) for column in columns] for document in documents]
    kept = [index for index in range(len(columns)) if index == 0 or any(row[index].text for row in rows)]
    table = plain_table()
    for index in kept:
        column = columns[index]
        table.add_column(column.title, justify="right" if column.right else "left")
    for row in rows:
        table.add_row(*(_styled(row[index]) for index in kept))
    return table


def plain_table(*titles: str) -> "Table":
    """A table without lines: columns two spaces apart, titles in bold. What stands in its cells is shown as it is."""
    from rich.table import Table
    from rich.text import Text

    from lablet_client.cli.screen import shown

    class Plain(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(Text(one) if isinstance(one, str) else one for one in map(shown, cells)), **options)

    table = Plain(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _cell(value: Any) -> Any:
    from lablet_client.cli.tables import Cell

    return value if isinstance(value, Cell) else Cell(str(value))


def _styled(cell: Any) -> Any:
    from rich.text import Text

    return Text(cell.text, style=cell.style)


def pairs(rows: Iterable[tuple[str, Any]]) -> "Table":
    """Names and values under each other; rows without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    from lablet_client.cli.screen import shown

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", (), [], {}):
            table.add_row(name, Text(shown(value)) if isinstance(value, str) else shown(value))
    return table


def labels_of(values: Sequence[str], option: str) -> Mapping[str, str]:
    """`a=b` pairs from an option that may be given several times."""
    found = {}
    for pair in (part for value in values for part in value.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not of the form key=value", param_hint=option)
        found[key] = value
    return found
