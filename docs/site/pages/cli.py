"""The command line, from the commands themselves."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer

from lablet_client.cli.main import app
from pages.table import code, table

HEAD = """# The command line

`lablet COMMAND …`. Every command has `--help`. Tables are for people; `-o json` is for programs. What is wrong is said
on standard error, in words; on standard output stands the answer alone. Address and token come from `LABLET_URL` and
`LABLET_TOKEN` (or `LABLET_TOKEN_FILE`), else from the file that `lablet up` writes.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | refused by the system, or not as it should be (`status`, `doctor`, `admin etcd alarms`) |
| 2 | wrong usage, or a file that cannot be used; nothing was changed |
| 3 | the mesh, or a part that is needed, cannot be reached; where no answer came it may have been done all the same |
| 130 | ended with Ctrl-C |

`lablet run` ends with its job's exit code.
"""

_WORDS: dict[type, str] = {int: "N", float: "N", Path: "FILE"}


def page() -> str:
    root: Any = typer.main.get_command(app)
    parts = [HEAD, "## Options of every command\n", options(root)]
    for name, command in _commands(root, "lablet"):
        below = getattr(command, "commands", None)
        depth = "##" if name.count(" ") == 1 else "###"
        parts.append(f"{depth} {name}\n")
        parts.append(told(command) + "\n")
        if below:
            parts.append("".join(f"- [{one}](#{one.replace(' ', '-')})\n" for one, _ in _direct(command, name)))
        else:
            parts.append(f"```\n{usage(name, command)}\n```\n")
            parts.append(options(command))
    return "\n".join(part for part in parts if part)


def _direct(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            yield f"{path} {name}", command


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in _direct(group, path):
        yield name, command
        if hasattr(command, "commands"):
            yield from _commands(command, name)


def told(command: Any) -> str:
    return " ".join((command.help or "").split())


def usage(name: str, command: Any) -> str:
    given = [_metavar(one) for one in command.params if one.param_type_name == "argument"]
    named = [f"{one.opts[0]} {_value(one)}".strip() for one in _options(command) if one.required]
    rest = ["[options]"] if any(not one.required for one in _options(command)) else []
    return " ".join([name, *given, *named, *rest])


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = f"{name}…" if argument.nargs == -1 and "…" not in name else name
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option" and not one.hidden and one.name != "help"]


def _value(option: Any) -> str:
    """What an option takes: its own word, the choices, or the kind of thing."""
    if option.is_flag:
        return ""
    if option.metavar:
        return str(option.metavar)
    kind = option.type_descriptor.annotation
    kinds = [one for one in (*get_args(kind), kind) if isinstance(one, type) and one is not type(None)]
    kind = kinds[0]
    if issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return next((word for known, word in _WORDS.items() if issubclass(kind, known)), "TEXT")


def options(command: Any) -> str:
    rows = []
    for one in _options(command):
        names = ", ".join([*one.opts, *one.secondary_opts])
        default = one.default if isinstance(one.default, (str, int, float)) and not one.is_flag else None
        help_text = " ".join((one.help or "").split())
        if default not in (None, "") and one.show_default and "default" not in help_text:
            help_text = f"{help_text} (default: {default})".strip()
        rows.append((code(f"{names} {_value(one)}".strip()), help_text))
    for one in command.params:
        if one.param_type_name == "argument" and one.help:
            rows.insert(0, (code(_metavar(one)), " ".join(one.help.split())))
    return table(("option", "meaning"), rows) if rows else ""
