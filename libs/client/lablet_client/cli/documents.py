"""Reading YAML files that people wrote: plain values, or a complaint with the line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def text_of(path: Path) -> str:
    """What somebody wrote: UTF-8, also with the mark that spreadsheets put before it. Raises `WrongUsage`."""
    from lablet_client.cli.failures import WrongUsage

    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise WrongUsage(f"{path}:{line}: this is no UTF-8: save the file as UTF-8") from error


def read_documents(path: Path) -> Sequence[dict[str, Any]]:
    """The YAML (or JSON) documents of a file, empty ones left out. Raises `WrongUsage` naming line and column."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    from lablet_client.cli.failures import WrongUsage

    text = text_of(path)
    try:
        found = [document for document in YAML(typ="safe", pure=True).load_all(text) if document is not None]
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        line = _line(text, mark.line) if mark is not None else ""
        raise WrongUsage(f"{path}{place}: {error.problem or error.context}{line}") from error
    except YAMLError as error:
        raise WrongUsage(f"{path}: {error}") from error
    wrong = next((document for document in found if not isinstance(document, dict)), None)
    if wrong is not None:
        raise WrongUsage(f"{path} holds a {type(wrong).__name__} where a mapping is wanted")
    return found


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return f"\n    {number + 1} | {lines[number]}" if number < len(lines) else ""
