"""The calendar as a picture: workers down, the morning across; every seat where it was placed, as high as the nodes that it
takes, on the span in which its worker was on. Inline SVG, no script, no font of its own; colours come from the page.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from html import escape

from lablet_local.demo.books import PowerSpan
from lablet_local.demo.figures import Block, Moment

_LEFT, _RIGHT, _TOP, _BOTTOM = 108, 24, 62, 34
_WIDTH = 1180
_NODE = 3.4
_GAP = 14
COLOURS = (
    "#4f7cff",
    "#e4572e",
    "#17a398",
    "#f2a541",
    "#9b5de5",
    "#d6487e",
    "#4caf50",
    "#00a6d6",
    "#b5651d",
    "#7a8b99",
    "#6b7a2e",
    "#8c4f9f",
    "#2f7f86",
    "#c0566b",
)


def palette(names: Sequence[str]) -> dict[str, str]:
    """A colour for each booking, in the order given."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(dict.fromkeys(names))}


class _Frame:
    """Where a time and a worker lie on the paper."""

    def __init__(self, workers: Mapping[str, int], begin: datetime, end: datetime) -> None:
        self.begin = begin.replace(minute=begin.minute // 30 * 30, second=0, microsecond=0)
        last = end.replace(minute=end.minute // 30 * 30, second=0, microsecond=0)
        self.end = last if last >= end else last + timedelta(minutes=30)
        self.tops: dict[str, float] = {}
        self.heights: dict[str, float] = {}
        y: float = _TOP
        for worker, nodes in workers.items():
            self.tops[worker], self.heights[worker] = y, nodes * _NODE
            y += nodes * _NODE + _GAP
        self.bottom = y - _GAP

    def x(self, at: datetime) -> float:
        part = (at - self.begin) / (self.end - self.begin)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)


def calendar(
    workers: Mapping[str, int],
    blocks: Sequence[Block],
    spans: Sequence[PowerSpan],
    moments: Sequence[Moment],
    colours: Mapping[str, str],
) -> str:
    """The picture. `workers` gives each one's licensed nodes. Empty when there is nothing to draw."""
    times = [time for span in spans for time in (span.start, span.end)] + [moment.at for moment in moments]
    times += [time for block in blocks for time in (block.start, block.end)]
    if not times:
        return ""
    frame = _Frame(workers, min(times), max(times))
    parts = [_defs(), *_grid(frame)]
    parts += [part for worker in workers for part in _row(frame, worker, workers[worker])]
    parts += [part for span in spans for part in _power(frame, span)]
    for worker in workers:
        parts += _seats(frame, [block for block in blocks if block.worker == worker], colours)
    parts += [part for index, moment in enumerate(moments) for part in _mark(frame, moment, index)]
    height = frame.bottom + _BOTTOM
    return (
        f'<svg class="calendar" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="Calendar: workers by time">{"".join(parts)}</svg>'
    )


def _defs() -> str:
    return (
        '<defs><pattern id="boot" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" class="on"/><line x1="0" y1="0" x2="0" y2="6" class="hatch"/></pattern></defs>'
    )


def _grid(frame: _Frame) -> list[str]:
    parts = []
    at = frame.begin
    while at <= frame.end:
        x, hour = frame.x(at), at.minute == 0
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{frame.bottom + 6:.1f}" class="{"hour" if hour else "half"}"/>'
        )
        parts.append(f'<text x="{x}" y="{frame.bottom + 24:.1f}" class="time" text-anchor="middle">{at:%H:%M}</text>')
        at += timedelta(minutes=30)
    return parts


def _row(frame: _Frame, worker: str, nodes: int) -> list[str]:
    y, height = frame.tops[worker], frame.heights[worker]
    return [
        f'<rect x="{_LEFT}" y="{y:.1f}" width="{_WIDTH - _LEFT - _RIGHT}" height="{height:.1f}" class="off" rx="4"/>',
        f'<text x="{_LEFT - 12}" y="{y + height / 2 - 1:.1f}" class="worker" text-anchor="end">{escape(worker)}</text>',
        f'<text x="{_LEFT - 12}" y="{y + height / 2 + 13:.1f}" class="small" text-anchor="end">{nodes} nodes</text>',
    ]


def _power(frame: _Frame, span: PowerSpan) -> list[str]:
    if span.worker not in frame.tops:
        return []
    y, height = frame.tops[span.worker], frame.heights[span.worker]
    x, end = frame.x(span.start), frame.x(span.end)
    tip = f"{span.worker} on {span.start:%H:%M} to {span.end:%H:%M}"
    parts = [
        (
            f'<rect x="{x}" y="{y:.1f}" width="{end - x:.1f}" height="{height:.1f}" class="on" rx="4">'
            f"<title>{escape(tip)}</title></rect>"
        )
    ]
    if span.ready is not None:
        width = frame.x(span.ready) - x
        parts.append(f'<rect x="{x}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="url(#boot)" rx="4"/>')
    return parts


def _seats(frame: _Frame, blocks: Sequence[Block], colours: Mapping[str, str]) -> list[str]:
    """Blocks of one worker, each at the lowest place that is free in its slot. What was cancelled gave its place away and
    is drawn as an outline over it."""
    laid: list[tuple[Block, int]] = []
    parts = []
    for block in sorted(blocks, key=lambda one: (one.cancelled, one.start, -one.height)):
        there = [] if block.cancelled else laid
        taken = sorted((low, low + b.height) for b, low in there if b.start < block.end and block.start < b.end)
        low = 0
        for begin, end in taken:
            if low + block.height <= begin:
                break
            low = max(low, end)
        if not block.cancelled:
            laid.append((block, low))
        parts += _block(frame, block, low, colours.get(block.booking, COLOURS[-1]))
    return parts


def _block(frame: _Frame, block: Block, low: int, colour: str) -> list[str]:
    floor = frame.tops[block.worker] + frame.heights[block.worker]
    x, end = frame.x(block.start), frame.x(block.end)
    height = block.height * _NODE
    top = floor - (low + block.height) * _NODE
    width = end - x
    count = len(block.seats)
    tip = f"{block.title}: {count} seat{'s' * (count > 1)} on {block.worker}, {block.start:%H:%M} to {block.end:%H:%M}"
    if block.cancelled:
        return [
            (
                f'<rect x="{x + 1}" y="{top + 1:.1f}" width="{width - 2:.1f}" height="{height - 2:.1f}" rx="3" fill="none" '
                f'stroke="{colour}" stroke-dasharray="4 3" stroke-width="1.6"><title>{escape(tip)} (cancelled)</title></rect>'
            )
        ]
    parts = [f"<g><title>{escape(tip)}</title>"]
    for index in range(count):
        y = top + index * block.nodes * _NODE
        parts.append(
            f'<rect x="{x + 0.6}" y="{y + 0.6:.1f}" width="{width - 1.2:.1f}" height="{block.nodes * _NODE - 1.2:.1f}" '
            f'rx="2" fill="{colour}"/>'
        )
    words = f"{block.title.partition(',')[0]} × {count}" if count > 1 else block.title
    if len(words) * 6.6 > width - 8:
        words = words[: max(0, int((width - 8) / 6.6))]
    if words and height >= 9:
        size = 11.5 if height >= 14 else 9
        parts.append(
            f'<text x="{x + width / 2:.1f}" y="{top + height / 2 + size * 0.36:.1f}" class="label" font-size="{size}" '
            f'text-anchor="middle" stroke="{colour}" stroke-width="{5 if size > 9 else 2}">{escape(words)}</text>'
        )
    return [*parts, "</g>"]


def _mark(frame: _Frame, moment: Moment, index: int) -> list[str]:
    x = frame.x(moment.at)
    y = 14 + (index % 3) * 16
    return [
        f'<line x1="{x}" x2="{x}" y1="{y + 4}" y2="{frame.bottom:.1f}" class="mark {moment.kind}"/>',
        f'<text x="{x + 5}" y="{y + 3}" class="marktext {moment.kind}">{escape(f"{moment.at:%H:%M} {moment.text}")}</text>',
    ]
