"""`lablet demo` from the first line to the last: a fresh mesh, the morning, the verdict, the report."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lablet_client.errors import LabletError
from lablet_common.store.api import StoreError
from lablet_local.demo.checks import Check, judge
from lablet_local.demo.evidence import Evidence
from lablet_local.demo.figures import Figures, Moment, figures
from lablet_local.demo.fleet import NoPorts
from lablet_local.demo.live import LiveView
from lablet_local.demo.report import write_report
from lablet_local.demo.run import SPEED, Stage, live, new_mesh, prepare
from lablet_local.demo.scenario import LABS, OPENING, Morning, morning

DONE, FAILED, WRONG_USAGE = 0, 1, 2
DEFAULT_REPORT = Path("out/demo-report.html")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    report: Path = DEFAULT_REPORT
    data: Path | None = None
    """Folder of the mesh; None: one that is taken away again when all went well."""
    speed: float = SPEED
    seed: int = 1


class LabsMissing(Exception):
    """The sample labs are not where they were looked for."""


def sample_labs() -> Path:
    """`examples/labs` of this checkout. Raises `LabsMissing`."""
    folder = Path(__file__).resolve().parents[4] / "examples" / "labs"
    missing = [name for name in LABS if not (folder / f"{name}.yaml").is_file()]
    if missing:
        raise LabsMissing(f"no {missing[0]}.yaml in {folder}: the demo runs from a checkout")
    return folder


def run_demo(options: DemoOptions) -> int:
    """Runs it and returns the exit code: 0 only when every check held."""
    from lablet_local.binaries import BinaryMissing
    from lablet_local.folder import AlreadyRunning
    from lablet_local.mesh import TemplatesMissing
    from lablet_local.pace import TooFast
    from lablet_local.ports import PortsBusy
    from lablet_local.supervisor import NotReady

    console = Console(highlight=False)
    try:
        return asyncio.run(_tidy(options, console))
    except (TooFast, LabsMissing, AlreadyRunning) as error:
        console.print(f"demo: {error}", soft_wrap=True, markup=False)
        return WRONG_USAGE
    except (BinaryMissing, TemplatesMissing, PortsBusy, NotReady, NoPorts) as error:
        console.print(f"demo: failed: {error}", soft_wrap=True, markup=False)
        return FAILED
    except ExceptionGroup as broken:
        expected, rest = broken.split((LabletError, StoreError, TimeoutError, LookupError, OSError))
        if rest is not None:
            raise rest from None
        for leaf in _leaves(expected):
            console.print(f"demo: the morning broke off: {type(leaf).__name__}: {leaf}", soft_wrap=True, markup=False)
        console.print("demo: failed")
        return FAILED
    except KeyboardInterrupt:
        console.print("demo: failed: interrupted")
        return 130


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif error is not None:
        yield error


async def _tidy(options: DemoOptions, console: Console) -> int:
    """The demo on its folder; a temporary one is taken away unless something failed, so that the logs can be read."""
    if options.data is not None:
        return await _demo(options, options.data, console)
    data = Path(tempfile.mkdtemp(prefix="lablet-demo-"))
    try:
        outcome = await _demo(options, data, console)
    except asyncio.CancelledError:
        shutil.rmtree(data, ignore_errors=True)
        raise
    if outcome == DONE:
        shutil.rmtree(data, ignore_errors=True)
    return outcome


async def _demo(options: DemoOptions, data: Path, console: Console) -> int:
    began = time.monotonic()
    labs, plan = sample_labs(), morning(options.seed)
    console.print(
        f"Starting etcd, NATS, S3, a simulated cloud, two agents and four services (two schedulers); "
        f"then a morning of {len(plan.bookings)} bookings at {options.speed:g} times the speed of life.",
        soft_wrap=True,
    )
    view: LiveView | None = None

    def say(text: str) -> None:
        if view is not None:
            view.note(text)

    async with new_mesh(data, options.speed, say) as mesh:
        stage, store = await prepare(mesh, plan, say)
        following = asyncio.create_task(stage.recorder.follow(store))
        view = LiveView(console, stage)
        view.note(f"ready after {mesh.seconds_to_ready or 0:.1f} s")
        try:
            async with view.shown():
                evidence = await live(stage, labs)
        finally:
            following.cancel()
            await asyncio.wait({following})
            await store.close()
    checks = judge(evidence, plan)
    found = figures(evidence, checks, round(time.monotonic() - began, 1))
    report = write_report(options.report, evidence, checks, found, moments(stage), plan)
    good = all(check.ok for check in checks)
    _print(console, plan, evidence, checks)
    console.print(f"report: {report}", soft_wrap=True)
    if not good:
        console.print(f"data and logs: {data}", soft_wrap=True)
    for line in last_lines(checks, found):
        console.print(line, soft_wrap=True, markup=False)
    return DONE if good else FAILED


def moments(stage: Stage) -> list[Moment]:
    """The marks on the calendar."""
    seen = stage.take_over
    found = []
    if seen.killed_at:
        found.append(Moment(stage.lab_of(seen.killed_at), "scheduler killed", "killed"))
    if seen.decided_at:
        found.append(Moment(stage.lab_of(seen.decided_at), "taken over", "taken-over"))
    at = OPENING + timedelta(minutes=stage.morning.cancel_at)
    return [*found, Moment(at, f"{stage.morning.cancelled} cancelled", "cancelled")]


def last_lines(checks: Sequence[Check], found: Figures) -> list[str]:
    """What the demo ends with: one line when all is well, else each check that did not hold and one line."""
    broken = [check for check in checks if not check.ok]
    if not broken:
        return [f"demo: ok {found.line()}"]
    told = [f"demo: did not hold ({check.source}): {check.claim} – {check.detail}" for check in broken]
    return [*told, f"demo: failed checks={len(broken)} {found.line()}"]


def _print(console: Console, plan: Morning, evidence: Evidence, checks: Sequence[Check]) -> None:
    from lablet_local.demo.books import below, booking, moves

    stored = {booking(one): one for one in below(evidence, "/reservations/").values()}
    table = Table(box=None, pad_edge=False, header_style="bold", title="The morning", title_justify="left")
    for column in ("booking", "lab", "seats", "slot", "became", "workers"):
        table.add_column(column, justify="right" if column == "seats" else "left", no_wrap=column != "workers")
    for asked in plan.bookings:
        one = stored.get(asked.name)
        path = " → ".join(dict.fromkeys(str(move["to"]) for move in moves(one))) if one else "lost"
        places = (one["status"].get("placement") or ()) if one else ()
        workers = sorted({str(place["worker"]).rpartition("-")[2] for place in places})
        slot = f"{asked.begins:%H:%M}–{asked.ends:%H:%M}"
        table.add_row(asked.title, asked.definition, str(asked.seats), slot, path, " ".join(workers))
    console.print(table)
    verdict = Table(box=None, pad_edge=False, header_style="bold", title="Checked", title_justify="left")
    for column in ("", "source", "claim", "result"):
        verdict.add_column(column)
    for check in checks:
        sign = "[green]✓[/]" if check.ok else "[bold red]✗[/]"
        verdict.add_row(sign, check.source, check.claim, check.detail)
    console.print(verdict)
