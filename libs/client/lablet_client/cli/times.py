"""Times as people write and read them. Pure: the present moment and the zone are given.

Understood: `now`, `in 2h`, `+90m`, `09:00`, `9am`, `tomorrow 09:00`, `monday 9:30`, `next fri 14:00`,
`2027-03-01 09:00` and ISO 8601 with or without a zone. Without a zone, the local one is meant; an hour that the change
of clocks leaves out is refused. "Now" is the mesh's own lab time.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NEAR = {"yesterday": -1, "today": 0, "tomorrow": 1}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = timedelta(days=3660)
_SPAN = re.compile(
    r"(\d+(?:\.\d+)?)\s*(weeks?|w|days?|d|hours?|hrs?|hr|h|minutes?|mins?|min|m|seconds?|secs?|sec|s)(?![a-z])",
    re.ASCII,
)
_HOUR = re.compile(r"^(\d{1,2})(?::(\d{2}))?\s*(am|pm)?$", re.ASCII)
_MOST_CHARACTERS = 100
_EXAMPLES = 'write it like "tomorrow 09:00", "in 2h", "monday 14:30" or "2027-03-01T09:00"'
_LENGTHS = 'write it like "90m", "2h", "1h30m" or "3 days"'


class WrongTime(ValueError):
    """Text that is no time, or no span."""


def parse_span(text: str) -> timedelta:
    """`90m`, `1h30m`, `2 hours`, `90` (minutes). Raises `WrongTime`."""
    word = _short(text).strip().lower()
    if re.fullmatch(r"\d{1,6}", word, re.ASCII):
        return timedelta(minutes=int(word))
    found = list(_SPAN.finditer(word))
    rest = _SPAN.sub("", word)
    if not found or rest.strip(" ,") not in ("", "and"):
        raise WrongTime(f"{text!r} is no length of time: {_LENGTHS}")
    seconds = sum(float(part[1]) * _UNITS[part[2][0]] for part in found)
    if seconds > _LONGEST.total_seconds():
        raise WrongTime(f"{text!r} is longer than {_LONGEST.days} days")
    return timedelta(seconds=seconds)


def parse_time(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The moment meant, in UTC. Relative ones are rounded up to the minute, since slots begin on whole ones. Raises
    `WrongTime`. `zone` None: the machine's."""
    word = " ".join(_short(text).strip().lower().replace(",", " ").split())
    if word == "now":
        return _up_to_minute(now)
    for prefix in ("in ", "+"):
        if word.startswith(prefix):
            return _up_to_minute(now + parse_span(word.removeprefix(prefix)))
    stamp = _iso(text.strip())
    if stamp is not None:
        return (stamp if stamp.tzinfo else _placed(stamp, zone, text)).astimezone(UTC)
    return _spoken(word, text, now, zone).astimezone(UTC)


def _short(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise WrongTime(f"{text[:20]!r}… has {len(text):,} characters: {_EXAMPLES}")
    return text


def parse_past(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """A moment to look back to: `2h` or `2h ago` before now, a day (`yesterday`), else as `parse_time`. Raises
    `WrongTime`."""
    word = text.strip().lower()
    try:
        return now - parse_span(word.removesuffix("ago").strip())
    except WrongTime:
        if word in _NEAR or word in _DAYS:
            return parse_time(f"{word} 00:00", now, zone)
        return parse_time(text, now, zone)


def show_time(moment: datetime, now: datetime, zone: tzinfo | None = None) -> str:
    """`today 09:00`, `tomorrow 09:00`, `Mon 01 Mar 09:00`, with the year where it is another one."""
    local, today = moment.astimezone(zone), now.astimezone(zone)
    days = (local.date() - today.date()).days
    clock = f"{local:%H:%M}"
    if days in (-1, 0, 1):
        return f"{('yesterday', 'today', 'tomorrow')[days + 1]} {clock}"
    return f"{local:%a %d %b} {clock}" if local.year == today.year else f"{local:%a %d %b %Y} {clock}"


def show_slot(start: datetime, end: datetime, now: datetime, zone: tzinfo | None = None) -> str:
    """`today 09:00–11:00`; the day of the end only where it is another one."""
    same = start.astimezone(zone).date() == end.astimezone(zone).date()
    until = f"{end.astimezone(zone):%H:%M}" if same else f" {show_time(end, now, zone)}"
    return f"{show_time(start, now, zone)}–{until}"


def show_span(span: timedelta) -> str:
    """`45 s`, `12 min`, `2 h 05 min`, `3 d 4 h`: the two largest units."""
    seconds = round(abs(span).total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def show_age(moment: datetime, now: datetime) -> str:
    """`12 min ago`, `in 3 h`."""
    if abs((now - moment).total_seconds()) < 1:
        return "now"
    return f"{show_span(now - moment)} ago" if moment <= now else f"in {show_span(moment - now)}"


def _iso(text: str) -> datetime | None:
    if not re.match(r"\d{4}-?\d{2}-?\d{2}", text):
        return None
    try:
        return datetime.fromisoformat(text.replace(" ", "T", 1))
    except ValueError as error:
        raise WrongTime(f"{text!r} is no date and time ({error}): {_EXAMPLES}") from error


def _spoken(word: str, text: str, now: datetime, zone: tzinfo | None) -> datetime:
    """A day's name, an hour, or both."""
    today = now.astimezone(zone).replace(tzinfo=None)
    day, hour = _split(word)
    clock = _HOUR.match(hour) if hour else None
    if clock is None:
        if day and not hour:
            raise WrongTime(f"{text!r} names a day without an hour: {_EXAMPLES}")
        raise WrongTime(f"{text!r} is no time: {_EXAMPLES}")
    hours, minutes = int(clock[1]), int(clock[2] or 0)
    if clock[3]:
        if not 1 <= hours <= 12:
            raise WrongTime(f"{text!r}: with am or pm, hours go from 1 to 12")
        hours = hours % 12 + (12 if clock[3] == "pm" else 0)
    elif clock[2] is None:
        raise WrongTime(f"{text!r} is no time: {_EXAMPLES}")
    if hours > 23 or minutes > 59:
        raise WrongTime(f"{text!r}: there is no {hours:02}:{minutes:02}")
    naive = today.replace(hour=hours, minute=minutes, second=0, microsecond=0)
    if not day:
        naive += timedelta(days=0 if naive > today else 1)
    elif day in _NEAR:
        naive += timedelta(days=_NEAR[day])
    else:
        ahead = (_weekday(day, text) - today.weekday()) % 7
        naive += timedelta(days=ahead or (0 if naive > today else 7))
    return _placed(naive, zone, text)


def _split(word: str) -> tuple[str, str]:
    """`next monday at 9 am` → (`monday`, `9 am`)."""
    words = [part for part in word.split() if part not in ("at", "on", "next", "this")]
    if words and words[0][0].isalpha():
        return words[0], " ".join(words[1:])
    return "", " ".join(words)


def _weekday(day: str, text: str) -> int:
    found = [number for number, name in enumerate(_DAYS) if len(day) >= 3 and name.startswith(day)]
    if not found:
        close = get_close_matches(day, (*_DAYS, *_NEAR), n=1)
        hint = f"did you mean {close[0]}?" if close else _EXAMPLES
        raise WrongTime(f"{text!r}: {day!r} is no day: {hint}")
    return found[0]


def _placed(naive: datetime, zone: tzinfo | None, text: str) -> datetime:
    """A wall clock's reading in the zone. Raises `WrongTime` for one that the change of clocks leaves out."""
    aware = naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()
    back = aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if back != naive:
        raise WrongTime(f"{text!r}: clocks are put forward then, {naive:%H:%M} does not exist on that day")
    return aware


def _up_to_minute(moment: datetime) -> datetime:
    whole = moment.replace(second=0, microsecond=0)
    return (whole if whole == moment else whole + timedelta(minutes=1)).astimezone(UTC)
