"""How the command ends when something is wrong: one message that says what to do, and the exit code.

0 done · 1 refused by the system · 2 wrong usage · 3 unreachable. Nothing here hides a defect: what is not foreseen keeps
its traceback.
"""

from difflib import get_close_matches
from typing import TYPE_CHECKING

from lablet_client import errors

if TYPE_CHECKING:
    from rich.console import Console

REFUSED, USAGE, UNREACHABLE = 1, 2, 3


class WrongUsage(errors.LabletError):
    """The command line makes no sense; said before anything is sent."""


def exit_code(error: errors.LabletError) -> int:
    match error:
        case WrongUsage():
            return USAGE
        case errors.NotConfigured() | errors.Unreachable() | errors.Unavailable():
            return UNREACHABLE
        case _:
            return REFUSED


def report(error: errors.LabletError, console: "Console") -> None:
    """Tells a person what happened and what may be done about it."""
    from rich.markup import escape

    console.print(f"[bold red]✗[/] {escape(_headline(error))}", soft_wrap=True)
    if isinstance(error, errors.Refused):
        shown = {entry.path: entry for entry in error.errors}
        for entry in shown.values():
            place = f"[bold]{escape(entry.path)}[/]: " if entry.path else ""
            console.print(f"    {place}{escape(entry.message)}", soft_wrap=True)
            if entry.remedy:
                console.print(f"      [green]→[/] {escape(entry.remedy)}", soft_wrap=True)
        for line in _reasons(error):
            console.print(f"    {escape(line)}", soft_wrap=True)
    for hint in _hints(error):
        console.print(f"  [green]→[/] {escape(hint)}", soft_wrap=True)


def _headline(error: errors.LabletError) -> str:
    match error:
        case errors.Unauthorized():
            return f"the system does not know this token ({error.sentence})"
        case errors.Forbidden():
            return f"not allowed: {error.sentence}"
        case errors.Unavailable(dependency=str(name)):
            return f"{name} is down: {error.sentence}"
        case errors.Invalid() if error.errors:
            return error.title
        case errors.ServerFault():
            return f"the system failed: {error.sentence}"
        case _:
            return str(error)


def _reasons(error: errors.Refused) -> list[str]:
    """The scheduler's explanation, where there is one, beyond what the headline says."""
    if error.explanation is None:
        return []
    from datetime import UTC, datetime

    from lablet_client.cli.explain import reasons
    from lablet_common.resources.reservation import Explanation

    why = Explanation.model_validate(error.explanation, extra="ignore")
    return [line for line in reasons(why, datetime.now(UTC)) if line.rstrip(".") not in error.sentence]


def _hints(error: errors.LabletError) -> list[str]:
    match error:
        case errors.Unreachable():
            return [
                "Is the mesh running? `lablet status` tells, `lablet up` starts one.",
                f"Another address: set {error.setting}.",
            ]
        case errors.Unauthorized():
            return [
                "Tokens come from LABLET_TOKEN, LABLET_TOKEN_FILE or the file that `lablet up` writes (perhaps an old one)."
            ]
        case errors.Forbidden():
            return ["`lablet version` shows the role that this token has."]
        case errors.Stale():
            return ["Somebody else changed it meanwhile: look at it again, then repeat."]
        case errors.Unavailable():
            return ["Nothing was changed. Try again in a moment; `lablet doctor` looks at each part."]
        case errors.ServerFault():
            identity = error.extension("requestId")
            return [f"The gateway's log has the reason, under request id {identity}."] if identity else []
        case errors.Refused() if error.extension("resource"):
            return [f"`lablet describe reservation {str(error.extension('resource')).rpartition('/')[2]}` shows more."]
        case _:
            return []


_BODIES = ("Create", "Change", "Cordon", "Drain", "Replace", "Optimise", "Hold", "RosterEntry")
"""How models are called that the command makes of what was typed; others are read from answers."""


def unfit(error: ValueError) -> WrongUsage | None:
    """What was typed and makes no body that could be sent, by its fields; None for any other error."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or not error.title.endswith(_BODIES):
        return None
    places = [".".join(str(part) for part in one["loc"]).replace("_", " ") for one in error.errors()]
    return WrongUsage("; ".join(f"{place}: {one['msg']}" for place, one in zip(places, error.errors(), strict=True)))


def nearest(word: str, known: "list[str] | tuple[str, ...]") -> str:
    """`did you mean …?`, or what there is."""
    close = get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(known)}"
