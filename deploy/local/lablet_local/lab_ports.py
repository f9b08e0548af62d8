"""Ports that labs may be given: which of a range can be listened on. A simulated machine has an address of its own, but a
program that listens on every address takes the port from all of them.

Not guaranteed: that a port which is free now stays so.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lablet_local.ports import port_is_free

PROBED = "127.63.255.254"
"""A loopback address that no mesh uses: what is taken here is taken everywhere."""
_START, _END = 2000, 9999


def is_free(port: int) -> bool:
    """The port can be listened on."""
    return port_is_free(port, PROBED)


def taken_ports(templates: Path) -> Iterator[tuple[str, list[int]]]:
    """Template → the ports of its range that cannot be listened on, of the simulated templates in the file."""
    document: Mapping[str, Any] = yaml.safe_load(templates.read_text(encoding="utf-8")) or {}
    for template in document.get("templates") or ():
        if template.get("provider") != "simulated":
            continue
        span = template.get("port_range") or {}
        numbers = range(int(span.get("start", _START)), int(span.get("end", _END)) + 1)
        yield str(template.get("name")), [port for port in numbers if not is_free(port)]
