"""`lablet apply -f FILE`: make it so. Shows what differs before it changes anything.

A file holds YAML documents: pools and templates (`kind`, `metadata.id` or `name`, `spec`), definitions (`topology`
names a lab file beside it) and reservations (the body of a booking; its `name` makes a second apply find the first). What is
as the file says already is left alone, so applying twice does nothing the second time.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lablet_client.cli.output import Format, Output, write_data
from lablet_client.cli.session import Session, session

if TYPE_CHECKING:
    from lablet_client.client import Client

app = typer.Typer()
_KINDS = {"workerpool": "pool", "workertemplate": "template"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One document: what shall be."""

    kind: str
    name: str
    body: Mapping[str, Any]
    file: Path


@dataclass(frozen=True, slots=True)
class Report:
    """What has become of each: told to a person at once, to a program at the end."""

    run: Session
    output: Format
    outcomes: list[dict[str, str]] = field(default_factory=list)

    @property
    def people(self) -> bool:
        return self.output not in (Format.JSON, Format.YAML)

    def say(self, item: Wanted, outcome: str, told: str, style: str, identity: str = "") -> None:
        """`outcome` is one word for programs: unchanged, created, changed, published or booked; `would-be-…` in a dry run."""
        self.outcomes.append({"kind": item.kind, "name": item.name, "outcome": outcome, "id": identity or item.name})
        if self.people:
            self.run.console.print(f"{item.kind} {item.name} ", end="", markup=False)
            self.run.console.print(told, style=style, markup=False)

    def end(self) -> None:
        if not self.people:
            write_data(self.run.console, {"items": self.outcomes}, self.output)


@app.command()
def apply(
    context: typer.Context,
    files: Annotated[list[Path], typer.Option("--file", "-f", exists=True, help="YAML; a folder means all in it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Create or change what the files describe."""
    run = session(context)
    found = _expanded(files)
    if not found:
        from lablet_client.cli.failures import WrongUsage

        raise WrongUsage(f"there is no .yaml or .yml file in {', '.join(map(str, files))}")
    wanted = [item for file in found for item in read(file)]

    report = Report(run, output)

    async def work(client: "Client") -> None:
        for item in wanted:
            run.notes.append(f"{item.kind} {item.name} …")
            await _APPLY[item.kind](report, client, item, dry_run)

    try:
        run.run(work)
    finally:  # what was applied before one was refused is told as well
        report.end()


def read(file: Path) -> Sequence[Wanted]:
    """The documents of a file. Raises `WrongUsage` naming the document at fault."""
    from lablet_client.cli.documents import read_documents
    from lablet_client.cli.failures import WrongUsage, nearest

    found = []
    for number, document in enumerate(read_documents(file), 1):
        place = f"{file}, document {number}"
        given = str(document.get("kind") or "")
        kind = _KINDS.get(given.lower(), given.lower())
        if kind not in _APPLY:
            raise WrongUsage(f"{place}: kind {given!r} cannot be applied: {nearest(kind, tuple(_APPLY))}")
        metadata = document.get("metadata") or {}
        name = metadata.get("id") or metadata.get("name") or document.get("name")
        if not name:
            raise WrongUsage(f"{place}: the {kind} has no name: add `metadata: {{name: …}}`")
        if not isinstance(document.get("spec", {}), Mapping):
            raise WrongUsage(f"{place}: spec must be a mapping")
        found.append(Wanted(kind, str(name), document, file))
    return found


async def _fleet(report: Report, client: "Client", item: Wanted, dry_run: bool) -> None:
    """A pool or template: the whole spec is compared and put."""
    from lablet_client.errors import NotFound
    from lablet_common.resources.worker import PoolSpec, TemplateSpec

    room = client.pools if item.kind == "pool" else client.templates
    model = PoolSpec if item.kind == "pool" else TemplateSpec
    spec = _checked(model, item.body.get("spec") or {}, item, "spec")
    labels = (item.body.get("metadata") or {}).get("labels") or {}
    try:
        present: Any = await room.get(item.name)
    except NotFound:
        present = None
    before = {"labels": dict(present.metadata.labels), "spec": present.spec.to_dict()} if present is not None else {}
    after = {"labels": dict(labels), "spec": spec.to_dict()}
    if before == after:
        report.say(item, "unchanged", "unchanged", "dim")
        return
    if report.people:
        _show_difference(report.run, before, after)
    word = "changed" if before else "created"
    if dry_run:
        report.say(item, f"would-be-{word}", f"would be {word}", "yellow")
        return
    revision = present.metadata.resource_version if present is not None else None
    apply_to: Any = room
    await apply_to.apply(item.name, spec, labels=labels, revision=revision)
    report.say(item, word, word, "green")


async def _definition(report: Report, client: "Client", item: Wanted, dry_run: bool) -> None:
    """A definition: published when its file is not the newest version's, or a version is named that is not there."""
    import hashlib

    from lablet_client.cli.failures import WrongUsage
    from lablet_client.errors import NotFound

    spec = dict(item.body.get("spec") or {})
    given = item.body.get("topology") or spec.pop("topology", None)
    if not isinstance(given, str):
        raise WrongUsage(f"{item.file}: definition {item.name}: `topology` must name the lab file")
    path = item.file.parent / given
    if not path.is_file():
        raise WrongUsage(f"{item.file}: definition {item.name}: there is no file {path}")
    content, version = path.read_bytes(), spec.pop("version", None)
    try:
        present = await client.definitions.get(f"{item.name}@{version}" if version else item.name)
    except NotFound:
        present = None
    if present is not None and present.spec.topology.digest == hashlib.sha256(content).hexdigest():
        report.say(item, "unchanged", f"unchanged ({present.id})", "dim", present.id)
        return
    if dry_run:
        report.say(item, "would-be-published", "would be published", "yellow")
        return
    found = await client.definitions.publish(content, name=item.name, version=version, overrides=spec)
    report.say(item, "published", f"published as {found.id}", "green", found.id)


async def _reservation(report: Report, client: "Client", item: Wanted, dry_run: bool) -> None:
    """A reservation: booked once; its name and content make the key under which a second apply finds it."""
    import json

    from lablet_common.intents import ReservationCreate

    body = _checked(ReservationCreate, item.body.get("spec") or {}, item, "spec")
    if dry_run:
        report.say(item, "would-be-booked", "would be booked, unless it is already", "yellow")
        return
    key = uuid.uuid5(uuid.NAMESPACE_URL, f"lablet-apply:{item.name}:{json.dumps(body.to_dict(), sort_keys=True)}")
    found = await client.reservations.create(body, key=str(key))
    report.say(item, "booked", f"{found.id} is {found.phase}", "green", found.id)


_APPLY = {"template": _fleet, "pool": _fleet, "definition": _definition, "reservation": _reservation}


def _checked(model: Any, spec: Any, item: Wanted, path: str) -> Any:
    """The body as its model. Raises `WrongUsage` naming the field, before anything is sent."""
    from pydantic import ValidationError

    from lablet_client.cli.failures import WrongUsage

    try:
        return model.model_validate(spec)
    except ValidationError as error:
        known = tuple(info.alias or name for name, info in model.model_fields.items())
        lines = [f"\n    {'.'.join([path, *_place(found)])}: {_fault(found, known)}" for found in error.errors()]
        raise WrongUsage(f"{item.file}: {item.kind} {item.name}:{''.join(lines)}") from error


def _place(found: Any) -> Sequence[str]:
    """Where pydantic found it; a fault of several fields names one in its context."""
    named = [found["ctx"]["field"]] if found["type"] == "fault" else []
    return [str(part) for part in found["loc"]] + named


def _fault(found: Any, known: tuple[str, ...]) -> str:
    from lablet_client.cli.failures import nearest

    if found["type"] == "extra_forbidden" and len(found["loc"]) == 1:
        return f"there is no such field: {nearest(str(found['loc'][0]), known)}"
    return str(found["msg"])


def _show_difference(run: Session, before: Any, after: Any) -> None:
    from rich.text import Text

    from lablet_client.cli.output import as_yaml

    old = as_yaml(before).splitlines() if before else []
    for line in unified_diff(old, as_yaml(after).splitlines(), lineterm="", n=2):
        if line.startswith(("---", "+++", "@@")):
            continue
        style = {"+": "green", "-": "red"}.get(line[:1], "dim")
        run.console.print(Text(f"  {line}", style=style))


def _expanded(files: Sequence[Path]) -> Sequence[Path]:
    found: list[Path] = []
    for file in files:
        found += sorted(file.glob("*.y*ml")) if file.is_dir() else [file]
    return found
