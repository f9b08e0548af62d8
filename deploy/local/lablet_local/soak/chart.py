"""Small pictures side by side as SVG text: one panel for each question, the same time below all of them. Pure.

Each line carries its name at its end, names apart from each other; the warm-up is shaded. Colours follow the reader's
scheme (light or dark).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from lablet_local.soak.trend import Point, thinned

_WIDTH, _HEIGHT = 380, 214
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 272, 40, 182
_GAP = 14
_POINTS = 120
_LINE = 12.0
COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#9a6700", "#1b7c83", "#57606a")
_STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:13px}"
    ".a{fill:#57606a;font-size:10px}.p{fill:#fff;stroke:#d0d7de}.w{fill:#f0f2f4}.g{stroke:#d8dee4}path{fill:none;stroke-width:1.6;stroke-linejoin:round}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#8b949e}.p{fill:#0d1117;stroke:#30363d}.w{fill:#1c2128}"
    ".g{stroke:#30363d}}</style>"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """A question and the lines that answer it."""

    title: str
    unit: str
    lines: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    """Name → points: seconds, and the value in the panel's unit."""


def grid(panels: Sequence[Panel], seconds: float, warm_up: float, columns: int = 3) -> str:
    """All of them. `warm_up`: seconds that are shaded. Raises `ValueError` where there is nothing to draw."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn or seconds <= 0:
        raise ValueError("no panel has anything to draw")
    rows = math.ceil(len(drawn) / columns)
    width, height = columns * (_WIDTH + _GAP) - _GAP, rows * (_HEIGHT + _GAP) - _GAP
    parts = [
        f'<g transform="translate({at % columns * (_WIDTH + _GAP)} {at // columns * (_HEIGHT + _GAP)})">'
        f"{_panel(panel, seconds, warm_up)}</g>"
        for at, panel in enumerate(drawn)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, _STYLE, *parts, "</svg>"]) + "\n"


def _panel(panel: Panel, seconds: float, warm_up: float) -> str:
    most = _round_up(max(value for line in panel.lines.values() for _, value in line))

    def place(point: Point) -> tuple[float, float]:
        at, value = point
        return _LEFT + (_RIGHT - _LEFT) * at / seconds, _BOTTOM - (_BOTTOM - _TOP) * max(value, 0.0) / most

    parts = [
        f'<rect class="p" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="6"/>',
        f'<rect class="w" x="{_LEFT}" y="{_TOP}" width="{place((warm_up, 0))[0] - _LEFT:.1f}" height="{_BOTTOM - _TOP}"/>',
        f'<text class="t" x="12" y="22">{escape(panel.title)}</text>',
    ]
    for step in range(3):
        y = _BOTTOM - (_BOTTOM - _TOP) * step / 2
        parts.append(f'<line class="g" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:g}" y2="{y:g}"/>')
        unit = f" {panel.unit}" if step == 2 and panel.unit else ""
        parts.append(
            f'<text class="a" x="{_LEFT - 5}" y="{y + 3.5:g}" text-anchor="end">{_short(most * step / 2)}</text>'
        )
        if unit:
            parts.append(f'<text class="a" x="{_LEFT}" y="{y - 5:g}">{escape(panel.unit)}</text>')
    for step in range(5):
        x = _LEFT + (_RIGHT - _LEFT) * step / 4
        minutes = f"{_short(seconds / 60 * step / 4)}{' min' if step == 4 else ''}"
        parts.append(f'<text class="a" x="{x:g}" y="{_BOTTOM + 15}" text-anchor="middle">{minutes}</text>')
    drawn = {name: [place(point) for point in thinned(line, _POINTS)] for name, line in panel.lines.items() if line}
    labels = _apart({name: line[-1][1] for name, line in drawn.items()})
    for number, (name, line) in enumerate(drawn.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{'M' if at == 0 else 'L'}{x:.1f} {y:.1f}" for at, (x, y) in enumerate(line))
        parts.append(f'<path d="{path}" stroke="{colour}"/>')
        last = panel.lines[name][-1][1]
        parts.append(
            f'<text x="{_RIGHT + 6}" y="{labels[name] + 4:.1f}" style="fill:{colour}">{escape(name)} {_short(last)}</text>'
        )
    return "".join(parts)


def _apart(wanted: Mapping[str, float]) -> dict[str, float]:
    """Heights of labels near where they belong, none upon another, all within the panel."""
    found: dict[str, float] = {}
    low = -math.inf
    for name, y in sorted(wanted.items(), key=lambda one: one[1]):
        low = max(y, low + _LINE)
        found[name] = low
    high = _BOTTOM + 2.0
    for name in sorted(found, key=lambda one: -found[one]):
        found[name] = min(found[name], high)
        high = found[name] - _LINE
    return found


def _round_up(value: float) -> float:
    """To 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= power * step * 1.000001)


def _short(value: float) -> str:
    """Three figures, with thousands set apart."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
