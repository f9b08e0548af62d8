"""Strict request bodies: a checker per shape, built from a few combinators.

The real controller refuses unknown fields and values out of range with 400, and an adapter that sends one must find out
here. Hand-made because a simulator is started by the dozen: these checks cost no import time. A checker names the first
fault that it meets, not all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import ApiError, invalid

Check = Callable[[Any, str], None]
"""Raises `ApiError` 400 when the value, found at the named place, does not fit."""

UUID4 = r"[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}"


def anything(_value: Any, _where: str) -> None:
    """Accepts every value."""


def nullable(inner: Check) -> Check:
    """`null`, or what `inner` accepts."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def either(*options: Check) -> Check:
    """What any of `options` accepts; reports the fault of the last."""

    def check(value: Any, where: str) -> None:
        for option in options[:-1]:
            try:
                return option(value, where)
            except ApiError:
                continue
        return options[-1](value, where)

    return check


def text(shortest: int = 0, longest: int | None = None, pattern: str | None = None) -> Check:
    """A string of `shortest`..`longest` characters that matches `pattern` as a whole."""
    compiled = re.compile(pattern) if pattern else None

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str):
            raise invalid(f"{where}: a string is expected.")
        if len(value) < shortest or (longest is not None and len(value) > longest):
            raise invalid(f"{where}: {len(value)} characters, allowed are {shortest} to {longest}.")
        if compiled and not compiled.fullmatch(value):
            raise invalid(f"{where}: {value[:80]!r} has the wrong form.")

    return check


def number(lowest: float | None = None, highest: float | None = None) -> Check:
    """A number in `lowest`..`highest`, whole or not."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(f"{where}: a number is expected.")
        if (lowest is not None and value < lowest) or (highest is not None and value > highest):
            raise invalid(f"{where}: {value} is out of range, allowed are {lowest} to {highest}.")

    return check


def integer(lowest: int | None = None, highest: int | None = None) -> Check:
    """A whole number in `lowest`..`highest`."""
    in_range = number(lowest, highest)

    def check(value: Any, where: str) -> None:
        in_range(value, where)
        if value != int(value):
            raise invalid(f"{where}: a whole number is expected, not {value}.")

    return check


def boolean(value: Any, where: str) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise invalid(f"{where}: true or false is expected.")


def choice(values: Iterable[str]) -> Check:
    """One of `values`."""
    allowed = tuple(values)

    def check(value: Any, where: str) -> None:
        if value not in allowed:
            raise invalid(f"{where}: {value!r} is none of {', '.join(allowed)}.")

    return check


def listing(inner: Check, shortest: int = 0, longest: int | None = None) -> Check:
    """A list whose items `inner` accepts."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise invalid(f"{where}: a list is expected.")
        if len(value) < shortest or (longest is not None and len(value) > longest):
            raise invalid(f"{where}: {len(value)} items, allowed are {shortest} to {longest}.")
        for index, item in enumerate(value):
            inner(item, f"{where}[{index}]")

    return check


def record(fields: Mapping[str, Check], required: Iterable[str] = (), *, strict: bool = True) -> Check:
    """An object with these fields; unless `strict` is off, no others."""
    needed = tuple(required)

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise invalid(f"{where}: an object is expected.")
        for name in needed:
            if name not in value:
                raise invalid(f"{where}.{name}: the field is required.")
        for name, item in value.items():
            inner = fields.get(name)
            if inner is not None:
                inner(item, f"{where}.{name}")
            elif strict:
                raise invalid(f"{where}.{name}: unknown field.")

    return check


uuid4: Check = text(pattern=UUID4)
definition_id: Check = text(1, 250, r"(?![.])[^!@#%^&*();$\n\r\t/\\]{1,250}")
