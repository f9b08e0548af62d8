"""Two kinds of picture as SVG text: bars, and lines over a number. Pure, and the same for the same input.

Colours follow the reader's scheme (light or dark). No legend, no grid beyond what a reader needs: each line carries its
name at its end, each bar its value.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 720
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:15px}.a{fill:#57606a}"
    "path,line{fill:none;stroke-width:2}.g{stroke:#d0d7de;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#8b949e}.g{stroke:#30363d}}</style>"
)
_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e")


def bars(title: str, rows: Sequence[tuple[str, float]], *, logarithmic: bool = False) -> str:
    """One bar for each row. On a logarithmic scale it begins at a tenth of the power of ten below the least value. Raises
    `ValueError` where there is nothing to draw."""
    positive = [value for _, value in rows if value > 0]
    if not positive:
        raise ValueError(f"{title}: nothing to draw")
    most = max(positive)
    floor = 10.0 ** (math.floor(math.log10(min(positive))) - 1)

    def length(value: float) -> float:
        if value <= 0:
            return 0.0
        if logarithmic:
            return math.log10(value / floor) / math.log10(most / floor)
        return value / most

    height = 44 + 26 * len(rows)
    parts = [_title(title + (" (logarithmic)" if logarithmic else ""))]
    for number, (label, value) in enumerate(rows):
        y = 40 + 26 * number
        long = round(length(value) * 330, 1)
        parts.append(f'<text class="a" x="250" y="{y + 13}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="260" y="{y}" width="{long}" height="18" fill="{_COLOURS[0]}"/>')
        parts.append(f'<text x="{round(266 + long, 1)}" y="{y + 13}">{short(value)}</text>')
    return _svg(height, parts)


def lines(title: str, over: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line for each series of (x, y), both from zero on. Raises `ValueError` where there is nothing to draw."""
    points = [point for line in series.values() for point in line]
    if not points or max(x for x, _ in points) <= 0 or max(y for _, y in points) <= 0:
        raise ValueError(f"{title}: nothing to draw")
    widest, most = max(x for x, _ in points), max(y for _, y in points)
    left, right, top, bottom = 60, 560, 44, 264
    parts = [_title(title)]
    for step in range(5):
        y = bottom - (bottom - top) * step / 4
        parts.append(f'<line class="g" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="a" x="{left - 8}" y="{y + 4}" text-anchor="end">{short(most * step / 4)}</text>')
    for x in sorted({x for x, _ in points}):
        at = round(left + (right - left) * x / widest, 1)
        parts.append(f'<text class="a" x="{at}" y="{bottom + 18}" text-anchor="middle">{short(x)}</text>')
    parts.append(
        f'<text class="a" x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">{escape(over)}</text>'
    )
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [(left + (right - left) * x / widest, bottom - (bottom - top) * y / most) for x, y in line]
        drawn = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(placed))
        parts.append(f'<path d="{drawn}" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = placed[-1]
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')
    return _svg(bottom + 52, parts)


def short(value: float) -> str:
    """Three figures, with thousands set apart."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _title(text: str) -> str:
    return f'<text class="t" x="12" y="22">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}">'
    )
    return "\n".join([head, _STYLE, *parts, "</svg>"]) + "\n"
