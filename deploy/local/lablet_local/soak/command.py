"""`lablet soak`: runs one, keeps its record, judges it and draws it; or judges and draws a record again."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lablet_local.demo.command import LabsMissing, sample_labs
from lablet_local.soak.record import BadRecord, read
from lablet_local.soak.report import figure, markdown, render
from lablet_local.soak.run import Plan, run_soak
from lablet_local.soak.verdict import broken, judge, summary

_LAB = "ospf-basics"
DONE, FAILED, WRONG_USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class SoakOptions:
    plan: Plan
    record: Path
    report: Path
    data: Path | None = None
    """Folder of the mesh, kept; None: one that is taken away again when all went well."""


def run(options: SoakOptions) -> int:
    """0 when everything held."""
    from lablet_local.binaries import BinaryMissing
    from lablet_local.folder import AlreadyRunning
    from lablet_local.mesh import TemplatesMissing
    from lablet_local.pace import TooFast
    from lablet_local.ports import PortsBusy
    from lablet_local.supervisor import NotReady

    console = Console(highlight=False, soft_wrap=True)
    folder = options.data or Path(tempfile.mkdtemp(prefix="lablet-soak-"))
    console.print(f"soak: {options.plan.seconds:g} s, record {options.record}, mesh in {folder}", markup=False)

    def say(words: str) -> None:
        console.print(f"  {words}", markup=False)

    try:
        lab_file = (sample_labs() / f"{_LAB}.yaml").read_bytes()
        asyncio.run(run_soak(options.plan, folder / "mesh", lab_file, options.record, say))
    except (LabsMissing, BinaryMissing, AlreadyRunning, TemplatesMissing, TooFast, PortsBusy, NotReady) as error:
        console.print(f"soak: {error}", markup=False)
        return WRONG_USAGE
    code = show(options.record, options.report, None, console)
    if code == DONE and options.data is None:
        shutil.rmtree(folder)
    return code


def show(record: Path, report: Path, picture: Path | None, console: Console | None = None) -> int:
    """Judges a record and writes its report and, if asked for, the figure alone. 0 when everything held."""
    console = console or Console(highlight=False, soft_wrap=True)
    try:
        recorded = read(record)
        verdict = judge(recorded)
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(render(recorded, verdict), encoding="utf-8")
        if picture is not None:
            picture.write_text(figure(recorded), encoding="utf-8")
            console.print(markdown(verdict), markup=False)
    except (BadRecord, OSError, ValueError) as error:
        console.print(f"soak: {error}", markup=False)
        return WRONG_USAGE
    console.print(f"  report {report}", markup=False)
    for words in broken(verdict):
        console.print(f"  BROKEN {words}", markup=False)
    console.print(summary(verdict), markup=False)
    return DONE if verdict.ok else FAILED
