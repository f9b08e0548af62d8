"""What a plain (unquoted) YAML scalar means, to readers of YAML 1.1 and of YAML 1.2.

The two versions disagree (`on`, `08`, `12:30`, `1e5`), and lab files come from writers of both. Reading is therefore
generous: a string is what either version calls a string. Writing is strict: `is_string_everywhere` is asked before a
string is left without quotes. The rules are those of the type repository of YAML 1.1 and of the core schema of
YAML 1.2 (section 10.3.2). Sexagesimal numbers, dates and binary values stay text: no field of a lab holds one.
"""

from __future__ import annotations

import math
import re
import unicodedata

Plain = str | int | float | bool | None

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL_12 = re.compile(r"true|True|TRUE|false|False|FALSE")
_BOOL_11 = re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF")
_INT_12 = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_INT_11 = re.compile(
    r"[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+"
)
_FLOAT_12 = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_FLOAT_11 = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_OTHER_11 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?"
    r"|<<|="
)

_SIMILAR_12 = (_NULL, _BOOL_12, _INT_12, _FLOAT_12)
_SIMILAR_11 = (_NULL, _BOOL_12, _BOOL_11, _INT_11, _FLOAT_11, _OTHER_11)


def is_string_somewhere(text: str) -> bool:
    """True when the plain scalar is a string to readers of YAML 1.1 or to those of YAML 1.2."""
    return not any(p.fullmatch(text) for p in _SIMILAR_12) or not any(p.fullmatch(text) for p in _SIMILAR_11)


def is_string_everywhere(text: str) -> bool:
    """True when no reader of YAML takes the plain scalar for anything but a string."""
    return not any(p.fullmatch(text) for p in (*_SIMILAR_12, *_SIMILAR_11))


def whole(text: str) -> int | None:
    """The whole number a plain scalar stands for (decimal, hexadecimal or `0o` octal), else None."""
    if not _INT_12.fullmatch(text) or len(text) > 40:
        return None
    return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


def number(text: str) -> float | None:
    """The finite number a plain scalar stands for, else None."""
    as_whole = whole(text)
    if as_whole is None and (not _FLOAT_12.fullmatch(text) or "n" in text.lower()):
        return None
    value = float(text if as_whole is None else as_whole)
    return value if math.isfinite(value) else None


def truth(text: str) -> bool | None:
    """The truth value a plain scalar stands for, by either version; else None."""
    if _BOOL_12.fullmatch(text) or _BOOL_11.fullmatch(text):
        return text.lower() in ("true", "yes", "on")
    return None


def is_null(text: str) -> bool:
    return _NULL.fullmatch(text) is not None


def plain(text: str) -> Plain:
    """The value of a plain scalar outside the known fields: null, truth value, number, else the text itself."""
    if is_null(text):
        return None
    if _BOOL_12.fullmatch(text):
        return truth(text)
    as_whole = whole(text)
    if as_whole is not None:
        return as_whole
    as_number = number(text)
    return text if as_number is None else as_number


def is_printable(character: str) -> bool:
    """True when a character may stand unescaped on one line of a YAML file."""
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") and character not in "\ufeff\ufffe\uffff"
