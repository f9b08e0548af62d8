"""Runtime versions compared as versions: 2.10 is newer than 2.9, "2.9.0+build.6" is 2.9.0, "2.9" is 2.9.0.

Only the numbers before the first `-`, `+` or space count; a pre-release is taken for its release.
"""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of a version. Raises ValueError when it does not begin with one."""
    match = _NUMBERS.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a version")
    return tuple(int(part) for part in match[1].split("."))


def in_range(version: str, lowest: str | None, highest: str | None) -> bool:
    """True when a version lies in the range, both ends included; `highest` counts on as many parts as it has."""
    parts = parse_version(version)
    if lowest is not None:
        least = parse_version(lowest)
        width = max(len(parts), len(least))
        if _padded(parts, width) < _padded(least, width):
            return False
    if highest is not None:
        most = parse_version(highest)
        if _padded(parts, len(most))[: len(most)] > most:
            return False
    return True


def _padded(parts: tuple[int, ...], width: int) -> tuple[int, ...]:
    return parts + (0,) * (width - len(parts))
