"""The report: one HTML file with everything in it, to be kept, mailed or printed. No script, nothing is loaded."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lablet_local.demo.books import below, booking, moves, phase, title, was
from lablet_local.demo.chart import calendar, palette
from lablet_local.demo.checks import Check
from lablet_local.demo.evidence import Evidence
from lablet_local.demo.figures import Figures, Moment, blocks, spans
from lablet_local.demo.scenario import Morning
from lablet_local.pages import STYLE, checks_table, page, tiles

_STYLE = (
    STYLE
    + """
svg.calendar{width:100%;height:auto;display:block}svg text{font-family:inherit;fill:var(--ink)}
svg .time,svg .small{fill:var(--soft);font-size:11px}svg .worker{font-size:12.5px;font-weight:600}
svg .off{fill:var(--off)}svg .on{fill:var(--on)}svg .hatch{stroke:var(--hatch);stroke-width:2.4}
svg .hour{stroke:var(--line)}svg .half{stroke:var(--line);stroke-dasharray:2 4}svg .label{fill:#fff;font-weight:600;
paint-order:stroke;stroke-linejoin:round}
svg .mark{stroke-width:1.6}svg .mark.killed{stroke:var(--bad)}svg .mark.taken-over{stroke:var(--good)}
svg .mark.cancelled{stroke:var(--warn);stroke-dasharray:4 3}svg .marktext{font-size:11.5px;font-weight:600}
svg .marktext.killed{fill:var(--bad)}svg .marktext.taken-over{fill:var(--good)}svg .marktext.cancelled{fill:var(--warn)}
"""
)


def write_report(
    path: Path, evidence: Evidence, checks: Sequence[Check], found: Figures, moments: Sequence[Moment], morning: Morning
) -> Path:
    """Writes the file (its folder is made) and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(evidence, checks, found, moments, morning), encoding="utf-8")
    return path


def render(
    evidence: Evidence, checks: Sequence[Check], found: Figures, moments: Sequence[Moment], morning: Morning
) -> str:
    """The page."""
    good = all(check.ok for check in checks)
    colours = palette([one.name for one in morning.bookings])
    nodes = {name: int(one["spec"]["maxNodes"]) for name, one in below(evidence, "/workers/").items()}
    picture = calendar(nodes, blocks(evidence), spans(evidence), moments, colours)
    verdict = "every check held" if good else f"{sum(not check.ok for check in checks)} checks did not hold"
    inner = f"""<h1>A morning on Lablet<span class="verdict{"" if good else " bad"}">{verdict}</span></h1>
<p class="lead">A class, an exam and a handful of single bookings on {len(nodes)} workers, of which two are
agents that run processes, on real etcd, NATS and S3 servers and simulated machines. The active scheduler was killed while
requests were waiting. What follows was read afterwards from etcd, from the event stream, from the simulators' own logs and
from this machine's processes, and compared.</p>
{_tiles(found)}
<div class="card">{picture}<p class="legend"><i style="background:var(--off);margin-left:0"></i>off
<i style="background:repeating-linear-gradient(135deg,var(--hatch) 0 2px,var(--on) 2px 6px)"></i>starting
<i style="background:var(--on)"></i>on
<i style="border:1.6px dashed var(--warn)"></i>cancelled before it began
&nbsp;&nbsp; height: licensed nodes; each box a seat</p></div>
<h2>Bookings and what was decided</h2><div class="card">{_bookings(evidence, morning, colours)}</div>
<h2>The take-over</h2><div class="card">{_take_over(evidence, found)}</div>
<h2>What was checked</h2><div class="card">{checks_table(checks)}</div>
<h2>Workers</h2><div class="card">{_workers(evidence)}</div>"""
    return page("Lablet: a morning, checked", _STYLE, inner)


def _tiles(found: Figures) -> str:
    figures = (
        (str(found.reservations), "reservations"),
        (str(found.placed), "seats placed"),
        (str(found.waitlisted), "wait-listed"),
        (str(found.rejected), "rejected"),
        (f"{found.events:,}", "events"),
        (str(found.lost), "lost"),
        (str(found.double_booked), "booked twice"),
        (f"{found.failover_seconds:.1f} s", "failover"),
        (f"{found.worker_hours:.1f} h", "workers on"),
    )
    return tiles(figures)


def _bookings(evidence: Evidence, morning: Morning, colours: dict[str, str]) -> str:
    stored = {booking(one): one for one in below(evidence, "/reservations/").values()}
    rows = []
    for asked in morning.bookings:
        one = stored.get(asked.name)
        if one is None:
            rows.append(f'<tr><td>{escape(asked.title)}</td><td class="no" colspan="5">lost</td></tr>')
            continue
        path = " → ".join(dict.fromkeys(str(move["to"]) for move in moves(one)))
        summary = (one["status"].get("explanation") or {}).get("summary") or one["status"].get("message") or ""
        if was(one, "Waitlisted"):
            first = next(move.get("message") or "" for move in moves(one) if move["to"] == "Waitlisted")
            summary = f"First: {first}" + (f" Then: {summary}" if was(one, "Scheduled") else "")
        rows.append(
            f'<tr><td class="t"><span class="dot" style="background:{colours[asked.name]}"></span>{escape(title(one))}</td>'
            f'<td class="n">{escape(asked.definition)}</td><td class="n">{asked.seats}</td>'
            f'<td class="n">{asked.begins:%H:%M}–{asked.ends:%H:%M}</td><td><span class="chip">{escape(path)}</span></td>'
            f'<td class="why">{escape(summary)}</td></tr>'
        )
    head = "<tr><th>booking</th><th>lab</th><th>seats</th><th>slot</th><th>became</th><th>why</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _take_over(evidence: Evidence, found: Figures) -> str:
    seen = evidence.take_over
    after = f"{seen.owned_at - seen.killed_at:.1f} s" if seen.owned_at else "never"
    rows = (
        ("killed with SIGKILL", seen.killed or "nobody"),
        ("took over", f"{seen.successor or 'nobody'}, {after} after the kill"),
        ("requests waiting at the take-over", ", ".join(seen.pending) or "none"),
        (
            "first decision of the new owner",
            f"{found.failover_seconds:.1f} s after the kill (revision {seen.decided_revision})",
        ),
        ("typed into a console", f"{evidence.typed.line} – found again in {evidence.typed.found_in or 'nothing'}"),
    )
    inner = "".join(
        f'<tr><td style="width:17em">{escape(name)}</td><td>{escape(value)}</td></tr>' for name, value in rows
    )
    return f"<table>{inner}</table>"


def _workers(evidence: Evidence) -> str:
    starts: dict[str, int] = {}
    for machine in evidence.machines:
        labs = sum(fact["fact"] == "lab.started" for fact in machine["facts"])
        starts[machine["name"]] = starts.get(machine["name"], 0) + labs
    rows = []
    for name, one in below(evidence, "/workers/").items():
        on = [span for span in spans(evidence) if span.worker == name]
        words = ", ".join(f"{span.start:%H:%M}–{span.end:%H:%M}" for span in on) or "never"
        hours = sum(span.hours for span in on)
        rows.append(
            f'<tr><td>{escape(name)}</td><td>{escape(phase(one))}</td><td class="n">{words}</td>'
            f'<td class="n">{hours:.2f} h</td><td class="n">{starts.get(name, 0)}</td></tr>'
        )
    head = "<tr><th>worker</th><th>now</th><th>on</th><th>hours</th><th>labs run</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"
