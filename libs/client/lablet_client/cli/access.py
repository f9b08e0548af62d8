"""The way into a seat: its ports with the command or address that opens each. Pure.

Consoles of network devices speak telnet without a negotiation; `vnc` and `http` open in their own programs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lablet_client.cli.tables import STYLES
from lablet_client.cli.times import show_age, show_span

if TYPE_CHECKING:
    from rich.text import Text

    from lablet_client.instances import Access, Port


_OVER = frozenset({"Stopping", "Stopped", "Exported", "Terminated", "Failed"})


def heading(access: "Access") -> "Text":
    """`seat 1  Running  ins-…-1, 43 min left`."""
    from rich.text import Text

    if access.usable:
        when = f", {show_span(access.end - access.now)} left" if access.end > access.now else ", its time is over"
    else:
        when = f", begins {show_age(access.start, access.now)}" if access.start > access.now else ""
    text = Text()
    text.append(f"seat {access.seat}", style="bold")
    text.append(f"  {access.phase}", style=STYLES.get(access.phase, ""))
    text.append(f"  {access.instance}{when}")
    return text


def endpoints(access: "Access") -> Sequence[tuple[str, str, str]]:
    """Name, address and how to open it, for each port; none for a lab that has ended."""
    if access.phase in _OVER:
        return []
    return [(port.name, f"{port.host}:{port.port}", opener(port) if access.usable else "") for port in access.ports]


def opener(port: "Port") -> str:
    """The command or address for a port, by its protocol; names of ports end with it (`r1_serial`)."""
    protocol = port.protocol or port.name.rpartition("_")[2]
    match protocol:
        case "serial" | "telnet" | "tcp":
            return f"telnet {port.host} {port.port}"
        case "ssh":
            return f"ssh -p {port.port} {port.host}"
        case "http" | "https" | "vnc":
            return f"{protocol}://{port.host}:{port.port}"
        case _:
            return ""
