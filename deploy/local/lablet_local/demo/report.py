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

_STYLE = """
:root{--ink:#1c2733;--soft:#5b6b7b;--line:#dde4ea;--paper:#f5f7f9;--card:#fff;--off:#eef1f4;--on:#d5e6d9;--hatch:#9cc2a5;
--good:#1d8a4e;--bad:#cc2f3c;--warn:#b7791f}
@media (prefers-color-scheme:dark){:root{--ink:#e6ecf2;--soft:#93a3b3;--line:#2b3642;--paper:#11171d;--card:#182028;
--off:#202a34;--on:#28483a;--hatch:#46735a;--good:#4cc38a;--bad:#ff6b74;--warn:#f0b429}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1260px;margin:0 auto;padding:36px 28px 60px}h1{font-size:30px;margin:0 0 4px;letter-spacing:-.02em}
h2{font-size:18px;margin:38px 0 12px}p.lead{color:var(--soft);margin:0 0 24px;max-width:62em}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(116px,1fr));gap:12px;margin:0 0 22px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 16px}
.tile b{display:block;font-size:25px;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.verdict{display:inline-block;padding:3px 12px;border-radius:99px;font-weight:600;font-size:14px;color:#fff;
background:var(--good);vertical-align:middle;margin-left:12px;letter-spacing:0}.verdict.bad{background:var(--bad)}
table{width:100%;border-collapse:collapse;font-size:14px}th{text-align:left;color:var(--soft);font-weight:500}
th,td{padding:7px 10px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}tr:last-child td{border-bottom:0}
td.t{white-space:nowrap}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}.dot{display:inline-block;width:11px;height:11px;border-radius:3px;
margin-right:8px;vertical-align:-1px}.ok{color:var(--good);font-weight:600}.no{color:var(--bad);font-weight:600}
.why{color:var(--soft)}
.chip{white-space:nowrap;border:1px solid var(--line);border-radius:99px;padding:1px 9px;font-size:13px}
.legend{color:var(--soft);font-size:13px;margin:10px 0 0}.legend i{display:inline-block;width:26px;height:11px;
border-radius:3px;margin:0 6px 0 16px;vertical-align:-1px}code{font:13px ui-monospace,Menlo,Consolas,monospace}
svg.calendar{width:100%;height:auto;display:block}svg text{font-family:inherit;fill:var(--ink)}
svg .time,svg .small{fill:var(--soft);font-size:11px}svg .worker{font-size:12.5px;font-weight:600}
svg .off{fill:var(--off)}svg .on{fill:var(--on)}svg .hatch{stroke:var(--hatch);stroke-width:2.4}
svg .hour{stroke:var(--line)}svg .half{stroke:var(--line);stroke-dasharray:2 4}svg .label{fill:#fff;font-weight:600;
paint-order:stroke;stroke-linejoin:round}
svg .mark{stroke-width:1.6}svg .mark.killed{stroke:var(--bad)}svg .mark.taken-over{stroke:var(--good)}
svg .mark.cancelled{stroke:var(--warn);stroke-dasharray:4 3}svg .marktext{font-size:11.5px;font-weight:600}
svg .marktext.killed{fill:var(--bad)}svg .marktext.taken-over{fill:var(--good)}svg .marktext.cancelled{fill:var(--warn)}
"""


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
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Lablet: a morning, checked</title><style>{_STYLE}</style></head><body><main>
<h1>A morning on Lablet<span class="verdict{"" if good else " bad"}">{verdict}</span></h1>
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
<h2>What was checked</h2><div class="card">{_checks(checks)}</div>
<h2>Workers</h2><div class="card">{_workers(evidence)}</div>
</main></body></html>
"""


def _tiles(found: Figures) -> str:
    tiles = (
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
    inner = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{inner}</div>'


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


def _checks(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td class="{"ok" if check.ok else "no"}">{"✓" if check.ok else "✗"}</td><td>{escape(check.source)}</td>'
        f'<td>{escape(check.claim)}</td><td class="why">{escape(check.detail)}</td></tr>'
        for check in checks
    )
    return f"<table><tr><th></th><th>source</th><th>claim</th><th>result</th></tr>{rows}</table>"


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
