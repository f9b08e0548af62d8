"""What is written for people: the text of others is shown and never obeyed by the terminal.

Reasons, titles and names come from lab files, sinks, hosts and other people. A terminal takes some characters in them for
orders: to clear the screen, to write over what stands there, to set its title. Here they are shown as signs of their own.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

_SIGNS = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)
"""Each character that a terminal might obey, by its sign, which is as long."""


def visible(text: str) -> str:
    """The same with a sign for each order."""
    return text.translate(_SIGNS)


def shown(value: Any) -> Any:
    """A text, plain or styled, as it may be shown; anything else as it is."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Text):
        copy = value.copy()
        copy.plain = visible(value.plain)
        return copy
    return value


class Screen(Console):
    """Shows what it is given."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(shown, objects), **options)
