"""What reports have in common: one HTML file with everything in it, to keep, mail or print. No script, nothing is loaded."""

from collections.abc import Sequence
from html import escape

from lablet_local.demo.checks.check import Check

STYLE = """
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
"""


def page(title: str, style: str, inner: str) -> str:
    """The whole file."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(title)}</title><style>{style}</style></head><body><main>
{inner}
</main></body></html>
"""


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Large figures: value and name."""
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in figures
    )
    return f'<div class="tiles">{inner}</div>'


def checks_table(checks: Sequence[Check]) -> str:
    """Every check with what it compared, or what broke it."""
    rows = "".join(
        f'<tr><td class="{"ok" if check.ok else "no"}">{"✓" if check.ok else "✗"}</td><td>{escape(check.source)}</td>'
        f'<td>{escape(check.claim)}</td><td class="why">{escape(check.detail)}</td></tr>'
        for check in checks
    )
    return f"<table><tr><th></th><th>source</th><th>claim</th><th>result</th></tr>{rows}</table>"
