"""Server-Sent Events as the HTML standard writes them: lines in, messages out. Pure.

Not supported: `retry:`, since the waits between connections are ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One event of the stream. `id` is the last that was named, also by an earlier message."""

    data: str
    event: str
    id: str | None


@dataclass(slots=True)
class Parser:
    """Fed line by line, without line ends; gives a message at each blank line that ends one."""

    last_id: str | None = None
    _data: list[str] = field(default_factory=list)
    _event: str = ""

    def feed(self, line: str) -> Iterator[Message]:
        if not line:
            data, event = self._data, self._event
            self._data, self._event = [], ""
            if data:
                yield Message("\n".join(data), event or "message", self.last_id)
            return
        if line.startswith(":"):
            return  # a heartbeat
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
