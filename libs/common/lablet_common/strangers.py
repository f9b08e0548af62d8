"""JSON that strangers wrote, and the cursors that they bring back: text that may be anything, with one error for all that
can be wrong with it.

`json.loads` tells with a `RecursionError`, which is no `ValueError`, that a text is nested deeper than its stack. What it
does read may be too deep for whoever writes or reads it next (pydantic's parser ends at 200 levels, its writer at 255), and
may hold halves of surrogate pairs or numbers without end, which nothing else takes: whoever lets that in hears of it later,
and somewhere else. Here all of it ends in `NotJson`, at once.

Not guaranteed: that a value has a shape, or is small; the limits of requests and messages see to its size.
"""

import base64
import json
from typing import Annotated, Any

from pydantic import AfterValidator

MOST_DEPTH = 100
"""Objects and lists in each other: half of what a stored value may have, as what a stranger sent is kept inside of others."""
_TOO_DEEP = f"it is nested deeper than {MOST_DEPTH} levels"


class NotJson(ValueError):
    """The text is not JSON that can be kept and passed on; the message says why."""


def read_json(text: str | bytes) -> Any:
    """The value that the text (UTF-8) stands for. Raises `NotJson`."""
    try:
        value = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError:
        raise NotJson(_TOO_DEEP) from None
    except ValueError as error:
        raise NotJson(str(error)) from error
    if why := _unfit(value):
        raise NotJson(why)
    return value


def is_deep(value: Any) -> bool:
    """Whether more than `MOST_DEPTH` objects and lists stand in each other."""
    wholes = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        wholes = [part for whole in wholes for part in _parts(whole) if isinstance(part, dict | list)]
    return bool(wholes)


def write_cursor(*place: str | int) -> str:
    """A place in a list, as text for a web address."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Any:
    """What `write_cursor` was given, as a list, or whatever somebody made up. Raises `NotJson`."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError as error:
        raise NotJson(str(error)) from error
    return read_json(text)


def _fit(value: dict[str, Any]) -> dict[str, Any]:
    if why := _unfit(value):
        raise ValueError(why)
    return value


Free = Annotated[dict[str, Any], AfterValidator(_fit)]
"""An object of a stranger's own making, as a field of a model."""


def _unfit(value: Any) -> str:
    """Why the value cannot be kept; empty: it can."""
    if is_deep(value):
        return _TOO_DEEP
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is not valid Unicode"
    except ValueError:
        return "it holds a number that JSON cannot write"
    return ""


def _parts(whole: dict[str, Any] | list[Any]) -> Any:
    return whole.values() if isinstance(whole, dict) else whole
