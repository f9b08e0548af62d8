"""The documentation: every link leads somewhere, every page can be found, and what the code can tell it tells itself.

That the site builds from it is tried in `test_site.py`; that the commands it shows do what it shows, in
`tests/e2e/test_guides.py`.
"""

import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def site(name: str) -> ModuleType:
    """A module of docs/site, which is no package of the workspace."""
    folder = str(DOCS / "site")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def documents() -> list[Path]:
    return sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])


def prose(path: Path) -> str:
    """The text without its code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda found: re.sub(r"[\[\]()]", "", found[0]), text)


@cache
def anchors(path: Path) -> frozenset[str]:
    """Of its headings, as GitHub and the site make them."""
    found: Counter[str] = Counter()
    names = []
    for heading in re.findall(r"^#{1,6} (.+)$", prose(path), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        names.append(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return frozenset(names)


def links() -> Iterator[tuple[Path, str]]:
    for path in documents():
        for target in LINK.findall(prose(path)):
            if not re.match(r"[a-z]+:", target):
                yield path, target


def test_every_link_and_anchor_leads_somewhere() -> None:
    broken = []
    for page, target in links():
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.is_relative_to(ROOT) or not path.is_file():
            broken.append(f"{page.relative_to(ROOT)}: {target} is no file of this repository")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            broken.append(f"{page.relative_to(ROOT)}: {target}: no such heading")
    assert not broken, "\n".join(broken)


def test_every_page_stands_in_the_navigation_once() -> None:
    sections = site("navigation").sections(DOCS)
    named = ["index", *(page for section in sections for page in (section.page, *section.pages))]
    present = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    assert sorted(name for name, times in Counter(named).items() if times > 1) == []
    assert set(named) == present


def test_whatever_is_in_the_navigation_is_two_clicks_from_the_first_page() -> None:
    """A section's own page names all pages below it, so that nobody depends on the side bar."""
    unnamed = []
    for section in site("navigation").sections(DOCS):
        page = DOCS / f"{section.page}.md"
        led = {(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(page))}
        pages = () if section.listed else section.pages
        unnamed += [f"{section.page} → {one}" for one in pages if (DOCS / f"{one}.md").resolve() not in led]
    assert not unnamed, "\n".join(unnamed)


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "http.md", "events.md", "metrics.md"])
def test_pages_of_the_reference_are_those_of_the_code(name: str) -> None:
    wanted = site("write_reference").documents()[name]
    stored = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert stored == wanted, "if it was meant to change, run `make reference` and commit"


def test_the_reference_names_every_command_and_every_metric() -> None:
    commands = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    for name in ("lablet reserve", "lablet admin etcd defragment", "lablet up", "lablet trace", "lablet local cml"):
        assert f"## {name}\n" in commands, name
    metrics = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert "| `lablet_inbox_depth` | gauge | `service`, `shard` |" in metrics
    assert "| `lablet_worker_hours_total` | counter | `pool` |" in metrics
