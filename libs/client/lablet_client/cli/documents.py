"""Reading YAML files that people wrote: plain values, or a complaint with the line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_documents(path: Path) -> Sequence[dict[str, Any]]:
    """The YAML (or JSON) documents of a file, empty ones left out. Raises `WrongUsage` naming line and column."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    from lablet_client.cli.failures import WrongUsage

    text = path.read_text()
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
