"""`python docs/site/write_reference.py FOLDER`: writes the pages of the reference that have changed and names them."""

import sys
from pathlib import Path

from pages import cli, events, http, metrics, settings

ROOT = Path(__file__).resolve().parents[2]


def documents() -> dict[str, str]:
    """File name → Markdown."""
    reference = ROOT / "docs" / "reference"
    return {
        "cli.md": cli.page(),
        "settings.md": settings.page((ROOT / ".env.example").read_text(encoding="utf-8")),
        "http.md": http.page((reference / "openapi.json").read_text(encoding="utf-8")),
        "events.md": events.page((reference / "asyncapi.json").read_text(encoding="utf-8")),
        "metrics.md": metrics.page(),
    }


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python docs/site/write_reference.py FOLDER", file=sys.stderr)
        return 2
    for name, text in documents().items():
        target = Path(arguments[0]) / name
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
