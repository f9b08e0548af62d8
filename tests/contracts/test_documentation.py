"""The documentation: every link leads somewhere, every page can be found, and what the code can tell it tells itself.

That the site builds from it is tried in `test_site.py`; that the commands it shows do what it shows, in
`tests/e2e/test_guides.py`.
"""

import importlib
import re
import shlex
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
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\s*(?:\$ )?(?:\w+=\S+ )*(?:\S+/)?(lablet [a-z-].*)$", re.MULTILINE)
HIDDEN = ("lablet chaos",)
"""Commands that the reference leaves out on purpose."""
EVERYWHERE = "options of every command"
FEWEST_SHOWN = 60
"""Commands in code, so that a lost pattern is noticed."""


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


def test_every_option_says_what_it_means() -> None:
    text = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(-[^`]*)` \|\s*\|$", text, flags=re.MULTILINE) == []


@cache
def known() -> dict[str, frozenset[str]]:
    """Each command of the reference with its options; a group of commands is none."""
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        name, _, told = section.partition("\n")
        if f"```\n{name}" in told or name.lower() == EVERYWHERE:
            cells = re.findall(r"^\| `(-[^`]*)`", told, flags=re.MULTILINE)
            found[name.lower()] = frozenset(
                one for cell in cells for one in re.findall(r"(?<![\w-])--?[a-z][\w-]*", cell)
            )
    return found


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every `lablet …` in a block of code, outside what the code writes and what is history."""
    for path in documents():
        name = str(path.relative_to(ROOT))
        if name.startswith(("docs/reference/", "docs/adr/", "docs/performance", "CHANGELOG")):
            continue
        for block in BLOCK.findall(path.read_text(encoding="utf-8")):
            for command in COMMAND.findall(re.sub(r"\\\n\s*", " ", block)):
                yield name, shlex.split(command, comments=True)


def unknown_in(words: list[str]) -> str | None:
    """What of a command line the reference does not know."""
    name = next(
        (one for end in range(len(words), 1, -1) if (one := " ".join(words[:end])) in {*known(), *HIDDEN}), None
    )
    if name is None:
        return " ".join(words[:3])
    if name in HIDDEN:
        return None
    allowed = known()[name] | known()[EVERYWHERE] | {"--help"}
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((f"{name} {one}" for one in given if one not in allowed), None)


def test_every_command_that_is_shown_is_one_of_the_reference() -> None:
    every = list(shown_commands())
    wrong = [f"{page}: {' '.join(words)}: {unknown}" for page, words in every if (unknown := unknown_in(words))]
    assert not wrong, "\n".join(wrong)
    assert len(every) >= FEWEST_SHOWN


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("lablet up --detach --speed 60", None),
        ("lablet reserve ospf-basics -n 2 --start +2h --as instructor", None),
        ("lablet reserve ospf-basics --speed 60", "lablet reserve --speed"),
        ("lablet admin etcd shrink", "lablet admin etcd"),
        ("lablet book ospf-basics", "lablet book ospf-basics"),
        ("lablet chaos --seeds 3", None),
    ],
)
def test_a_command_that_the_reference_does_not_know_is_found(line: str, unknown: str | None) -> None:
    assert unknown_in(line.split()) == unknown


def test_the_reference_names_every_command_and_every_metric() -> None:
    commands = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    for name in ("lablet reserve", "lablet admin etcd defragment", "lablet up", "lablet trace", "lablet local cml"):
        assert f"## {name}\n" in commands, name
    metrics = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert "| `lablet_inbox_depth` | gauge | `service`, `shard` |" in metrics
    assert "| `lablet_worker_hours_total` | counter | `pool` |" in metrics


def named_tests(text: str) -> set[str]:
    """Files and folders of tests, and tests, that a page names."""
    return set(re.findall(r"`((?:[\w.-]+/)*(?:test_\w+(?:\.py)?|tests/[\w/-]+))`", text))


@pytest.fixture(scope="module")
def tests_there() -> tuple[set[str], set[str]]:
    """Paths of all tests and their folders, and names of all tests."""
    tops = ("libs", "services", "deploy", "tests")
    files = [path for top in tops for path in (ROOT / top).rglob("test_*.py") if ".venv" not in path.parts]
    names = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))}
    folders = {parent for path in files for parent in path.parents}
    return {str(path.relative_to(ROOT)) for path in (*files, *folders) if path.is_relative_to(ROOT)}, names


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_is_there(page: Path, tests_there: tuple[set[str], set[str]]) -> None:
    paths, names = tests_there
    missing = [
        name
        for name in named_tests(page.read_text(encoding="utf-8"))
        if name not in names and not any(f"/{path}".endswith(f"/{name}") for path in paths)
    ]
    assert missing == []


def test_each_answer_to_a_threat_names_a_test_or_the_page_that_does() -> None:
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (.+?) \| (.+) \| (.+?) \|$", text.partition("## Threats")[2].partition("\n## ")[0], re.MULTILINE
    )
    answers = rows[1:]
    assert len(answers) > 15
    assert [threat for threat, _, held in answers if not named_tests(held) and "reliability.md" not in held] == []


STORIES = ("docs/adr/", "CHANGELOG")
"""Pages about what once was."""
NOT_OURS = {
    "LABLET_CI_DOCKER", "LABLET_CI_LONG",
    "LABLET_SEAT", "LABLET_USER", "LABLET_WORKER", "PORT_R1", "PORT_WEB",
}  # fmt: skip
"""Variables that are no settings of a service: of CI, and what labs find or stand for."""
MISSPELT = {"io.lablet.reservation.requsted.v1"}
"""On purpose: an event that is refused."""
FEWEST_NAMES = 150


def facts() -> set[str]:
    """`reservation.scheduled`, of every type that has a schema."""
    names = [path.name for path in (DOCS / "reference/schemas").glob("io.lablet.*.json")]
    return {re.sub(r"\.v\d+\.json$", "", name).removeprefix("io.lablet.") for name in names}


def unknown_names(text: str, settings: set[str], told: set[str], metrics: set[str]) -> tuple[int, list[str]]:
    """How many settings, types of events and metrics a page names, and which of them there are not."""
    kinds = "|".join(sorted({fact.partition(".")[0] for fact in told}))
    given = re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", text)
    types = [one for one in re.findall(r"io\.lablet\.[a-z.-]+\.v\d+", text) if one not in MISSPELT]
    short = [one for one in re.findall(rf"`((?:{kinds})\.[a-z.-]+)`", text) if not one.endswith((".", ".py"))]
    counted = re.findall(r"\blablet_[a-z_]+[a-z](?![a-z_./])", text)
    counted = [one for one in counted if not (ROOT / one).exists() and one not in PACKAGES]
    wrong = [one for one in given if one not in settings]
    wrong += [one for one in types if re.sub(r"\.v\d+$", "", one).removeprefix("io.lablet.") not in told]
    wrong += [one for one in short if one not in told]
    wrong += [one for one in counted if re.sub(r"_(bucket|sum|count)$", "", one) not in metrics]
    return len(given) + len(types) + len(short) + len(counted), wrong


PACKAGES = {path.name for path in ROOT.glob("*/*/lablet_*")}


def test_every_setting_event_and_metric_that_a_page_names_is_there() -> None:
    settings = NOT_OURS | set(
        re.findall(r"^#([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    listed = (DOCS / "reference/metrics.md").read_text(encoding="utf-8")
    metrics = set(re.findall(r"^\| `(lablet_\w+)`", listed, flags=re.MULTILINE))
    names, wrong = 0, []
    for path in documents():
        page = str(path.relative_to(ROOT))
        if not page.startswith(("docs/reference/", *STORIES)):
            count, unknown = unknown_names(path.read_text(encoding="utf-8"), settings, facts(), metrics)
            names += count
            wrong += [f"{page}: {one}" for one in unknown]
    assert not wrong, "\n".join(wrong)
    assert names >= FEWEST_NAMES


@pytest.mark.parametrize(
    "text",
    ["set `GATEWAY_MAX_WORDS`", "`io.lablet.reservation.placed.v1`", "the event `scaling.up`", "`lablet_inbox_length`"],
)
def test_a_name_that_is_not_there_is_found(text: str) -> None:
    assert len(unknown_names(text, {"GATEWAY_PORT"}, facts(), {"lablet_inbox_depth"})[1]) == 1
