"""The report of a soak: one HTML file with curves, limits and what the end was held to; and the figure alone. Pure."""

from html import escape

from lablet_local.pages import STYLE, checks_table, page, tiles
from lablet_local.soak.chart import grid
from lablet_local.soak.limits import MIB
from lablet_local.soak.panels import panels
from lablet_local.soak.record import Recorded
from lablet_local.soak.verdict import WARM_UP, Grown, Verdict, by_limit, summary

_STYLE = STYLE + "svg{width:100%;height:auto;display:block}"
_SHOWN = 4


def figure(recorded: Recorded) -> str:
    """The curves as SVG. Raises `ValueError` where there are none."""
    seconds = float(recorded.begin["seconds"])
    return grid(panels(recorded), seconds, seconds * WARM_UP)


def render(recorded: Recorded, verdict: Verdict) -> str:
    """The page."""
    begin, end = recorded.begin, recorded.end
    word = "nothing grew" if verdict.ok and verdict.judged else "held" if verdict.ok else "did not hold"
    settings = ", ".join(f"{name}={value}" for name, value in begin.get("settings", {}).items())
    figures = [
        (f"{verdict.seconds / 3600:.2f} h", "of load"),
        (f"{verdict.requests:,}", "requests"),
        (f"{verdict.lost:,}", "lost"),
        (f"{verdict.labs:,}", "labs run"),
        (f"{verdict.seconds * float(begin['speed']) / 86400:.1f}", "lab days"),
        (f"{int(end.get('webhooks', 0)):,}", "webhooks"),
        (f"{len(recorded.samples):,}", "samples"),
        (f"{sum(not one.ok for one in verdict.grown) if verdict.judged else '–'}", "series that grew"),
    ]
    inner = f"""<h1>The mesh under a steady load<span class="verdict{"" if verdict.ok else " bad"}">{word}</span></h1>
<p class="lead">{float(begin["rate"]):g} deeds a minute at {float(begin["speed"]):g} lab seconds a second, a sample every
{float(begin["every"]):g} s; Lablet {escape(str(begin.get("version", "")))}, Python {escape(str(begin.get("python", "")))}.
Kept for a shorter time than usual, so that a steady state is reached: {escape(settings)}; streams forget after
{float(begin.get("streamSeconds", 0)):g} s. The shaded part is the warm-up, which is not judged.</p>
{tiles(figures)}
<div class="card">{figure(recorded)}</div>
<h2>What was held to the end</h2><div class="card">{checks_table(verdict.checks)}</div>
<h2>What may grow, and what did</h2><div class="card">{_table(verdict)}</div>
<p class="lead"><code>{escape(summary(verdict))}</code></p>"""
    return page("Lablet: a soak, judged", _STYLE, inner)


def markdown(verdict: Verdict) -> str:
    """The table of docs/reliability.md: for each limit the series that took most of it."""
    lines = ["| what | series | median | growth | allowed | |", "|---|---|---:|---:|---:|---|"]
    for limit, found in by_limit(verdict):
        if limit.judged:
            one = found[0]
            state = "ok" if one.ok else "**grew**"
            lines.append(
                f"| {limit.words} | `{one.name}` | {amount(one.median, one)} | {amount(one.growth, one, sign=True)} "
                f"| {amount(one.allowed, one)} | {state}{f'; {limit.because}' if limit.because else ''} |"
            )
    return "\n".join(lines)


def amount(value: float, of: Grown, *, sign: bool = False) -> str:
    """With its unit; bytes in MiB."""
    scaled, unit = (
        (value / MIB, " MiB") if of.limit.unit == "bytes" else (value, f" {of.limit.unit}" * bool(of.limit.unit))
    )
    text = f"{scaled:{'+' if sign else ''},.{1 if abs(scaled) < 100 else 0}f}"
    return f"{text.removesuffix('.0')}{unit}"


def _table(verdict: Verdict) -> str:
    rows = []
    for limit, found in sorted(by_limit(verdict), key=lambda group: not group[0].judged):
        for at, one in enumerate(found):
            shown = at < _SHOWN or not one.ok
            if not shown or (not limit.judged and at):
                continue
            mark = ("ok", "✓") if one.ok else ("no", "✗")
            state = mark if limit.judged and verdict.judged else ("why", "–")
            rows.append(
                f'<tr><td class="{state[0]}">{state[1]}</td><td>{escape(limit.words) if not at else ""}</td>'
                f'<td><code>{escape(one.name)}</code></td><td class="n">{amount(one.median, one)}</td>'
                f'<td class="n">{amount(one.growth, one, sign=True)}</td>'
                f'<td class="n">{amount(one.allowed, one) if limit.judged else "not judged"}</td>'
                f'<td class="why">{escape(limit.because)}</td></tr>'
            )
        more = len(found) - _SHOWN
        if limit.judged and more > 0 and all(one.ok for one in found[_SHOWN:]):
            rows.append(
                f'<tr><td></td><td></td><td class="why" colspan="5">and {more} more that took less of it</td></tr>'
            )
    head = "<tr><th></th><th>what</th><th>series</th><th>median</th><th>growth</th><th>allowed</th><th>why</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"
