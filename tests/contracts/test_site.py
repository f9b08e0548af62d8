"""`make docs`: the site builds without a warning, and asks nobody for anything when it is read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long]
REMOTE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]+\"[^>]*>")


def test_the_site_builds_and_loads_nothing_from_elsewhere(root: Path, tmp_path: Path) -> None:
    built = subprocess.run(
        [
            sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going",
            "-c", "docs/site", "-d", str(tmp_path / "cache"), "docs", str(tmp_path / "site"),
        ],
        cwd=root, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 60
    asked = {f"{page.name}: {found}" for page in pages for found in REMOTE.findall(page.read_text(encoding="utf-8"))}
    assert not asked
    styles = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*['\"]?https?:", styles)
    assert (tmp_path / "site" / "searchindex.js").stat().st_size > 10_000
