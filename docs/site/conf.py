"""The documentation as a site: Sphinx reads the Markdown under docs/, Furo draws it.

Nothing is loaded from elsewhere when a page is looked at: no fonts, no scripts; the search works from the disk. A link or
an anchor that leads nowhere ends the build (`make docs` turns warnings into errors).
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import navigation  # noqa: E402 - it lies beside this file, which Sphinx runs from elsewhere

from lablet_common.version import __version__  # noqa: E402

project = "Lablet"
author = copyright = "The authors of Lablet"  # noqa: A001 - Sphinx' own name
version = release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = navigation.HOME
exclude_patterns = ["site/**"]
nitpicky = True
show_warning_types = True
suppress_warnings = [
    "myst.xref_ambiguous",  # a page and a heading may have the same name
    "misc.highlighting_failure",  # examples of JSON are shortened with `…`
]

myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "Lablet"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["lablet.css"]
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "github-dark"


def setup(app: Sphinx) -> None:
    added = navigation.additions(HERE.parent)

    def complete(_: Sphinx, page: str, source: list[str]) -> None:
        if page in navigation.MIRRORS:
            source[0] = navigation.mirrored(HERE.parents[1], page)
        source[0] += added.get(page, "")

    def outdated(*_: object) -> list[str]:
        """What is made of more than its own file is read again each time: a new page is in no tree of an old reading."""
        return [*added, *navigation.MIRRORS]

    app.connect("source-read", complete)
    app.connect("env-get-outdated", outdated)
