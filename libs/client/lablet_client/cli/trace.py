"""`lablet trace`: what every service did for a reservation, as a waterfall.

A reservation is not one trace: each phase has its own, linked to the span of the request. So it is told in chapters, one for
each trace, in the order in which they began; within a chapter bars share one scale.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, write_data
from lablet_client.cli.session import session

if TYPE_CHECKING:
    from lablet_client.client import Client

app = typer.Typer()
Span = Mapping[str, Any]
_WIDTH = 32
_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """A span, and how deep it lies below the chapter's first."""

    span: Span
    depth: int


@dataclass(frozen=True, slots=True)
class Chapter:
    """One trace; real time in unix nanoseconds."""

    start: int
    end: int
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        return str(self.rows[0].span["name"])


@app.command()
def trace(context: typer.Context, reservation: Annotated[str, typer.Argument()], output: Output = Format.TABLE) -> None:
    """Show what each service did for a reservation, and how long it took."""
    run = session(context)

    async def work(client: "Client") -> Sequence[Span]:
        return await client.reservations.trace(reservation)

    spans = run.run(work)
    if output in (Format.JSON, Format.YAML):
        write_data(run.console, list(spans), output)
        return
    if not spans:
        run.console.print("No spans are kept of it: it was not sampled, or lies too far back.")
        return
    for chapter in chapters(spans):
        for line in told(chapter):
            run.console.print(line, markup=False, highlight=False, soft_wrap=True)


def told(chapter: Chapter) -> Iterable[str]:
    """A chapter with its title and time; one of a single span is that line alone."""
    began = f"{datetime.fromtimestamp(chapter.start / 1e9, UTC).astimezone():%H:%M:%S.%f}"[:-3]
    if len(chapter.rows) == 1:
        (row,) = chapter.rows
        yield f"{began}  {row.span['service']}: {chapter.title}, {(chapter.end - chapter.start) / _MS:.1f} ms"
        return
    yield f"{began}  {chapter.title}"
    yield from (f"  {line}" for line in lines(chapter))


def chapters(spans: Iterable[Span]) -> list[Chapter]:
    """The traces in the order in which they began, each as a tree in the order of its spans' begin."""
    by_trace: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda one: int(one["start"])):
        by_trace.setdefault(str(span["traceId"]), []).append(span)
    return [
        Chapter(int(found[0]["start"]), max(int(one["end"]) for one in found), tuple(_tree(found)))
        for found in by_trace.values()
    ]


def _tree(spans: Sequence[Span]) -> Iterable[Row]:
    known = {span["spanId"] for span in spans}
    below: dict[str | None, list[Span]] = {}
    for span in spans:
        parent = span.get("parentId")
        below.setdefault(parent if parent in known else None, []).append(span)

    def walk(parent: str | None, depth: int) -> Iterable[Row]:
        for span in below.get(parent, ()):
            yield Row(span, depth)
            yield from walk(str(span["spanId"]), depth + 1)

    return walk(None, 0)


def lines(chapter: Chapter, width: int = _WIDTH) -> Iterable[str]:
    """A line for each span: service, name, bar, milliseconds; `!` marks one that failed."""
    whole = max(1, chapter.end - chapter.start)
    for row in chapter.rows:
        begin, end = int(row.span["start"]), int(row.span["end"])
        left = min(width - 1, (begin - chapter.start) * width // whole)
        long = max(1, min(width - left, round((end - begin) * width / whole)))
        bar = " " * left + "█" * long
        name = "  " * row.depth + str(row.span["name"])
        mark = "!" if row.span.get("error") else " "
        yield f"{row.span['service']:<18}{name[:44]:<45}{mark}{bar:<{width}} {(end - begin) / _MS:9.1f} ms"
