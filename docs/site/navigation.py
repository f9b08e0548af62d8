"""Where each page stands: `navigation.toml`, as the tree that Sphinx wants.

Sphinx reads the tree from directives inside the pages. They would stand as code in every other reader of Markdown, so
they are put in when the site is built, and the pages stay plain.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = "index"
MIRRORS = {"changes": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages whose text lies beside docs/, where people look for it."""


@dataclass(frozen=True, slots=True)
class Section:
    page: str
    pages: Sequence[str]
    """Below it, in order; names without `.md`, relative to docs/."""
    listed: bool = False
    """Whether the site lists them on the page, which then need not name them."""


def sections(docs: Path) -> list[Section]:
    """The tree below the first page. Raises `KeyError` for a section without a page of its own."""
    document = tomllib.loads((docs / "site" / "navigation.toml").read_text(encoding="utf-8"))
    found = []
    for one in document["section"]:
        pages = list(one.get("pages", []))
        if pattern := one.get("glob"):
            names = (str(path.relative_to(docs).with_suffix("")) for path in docs.glob(f"{pattern}.md"))
            pages += sorted(name for name in names if name != one["page"])
        found.append(Section(one["page"], pages, bool(one.get("list"))))
    return found


def directive(pages: Sequence[str], *, listed: bool = False) -> str:
    """What is put at the end of a page that leads to others; the names count from docs/."""
    option = ":maxdepth: 1\n" if listed else ":hidden:\n"
    return f"\n\n```{{toctree}}\n{option}" + "".join(f"/{page}\n" for page in pages) + "```\n"


def mirrored(root: Path, page: str) -> str:
    """The text of such a page, its links counted from docs/."""
    text = (root / MIRRORS[page]).read_text(encoding="utf-8").replace("](docs/", "](")
    for other, file in MIRRORS.items():
        text = text.replace(f"]({file})", f"]({other}.md)")
    return text


def additions(docs: Path) -> dict[str, str]:
    """Page → what is added to it."""
    tree = sections(docs)
    added = {section.page: directive(section.pages, listed=section.listed) for section in tree if section.pages}
    return {HOME: directive([section.page for section in tree])} | added
