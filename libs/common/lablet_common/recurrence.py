"""The dates of a term: an RRULE read in a zone's local time, so that a class at nine stays at nine across a clock change.

Pure. A local time that a clock change skips is moved on by the change (02:30 becomes 03:30); one that comes twice is the
first. Not taken: rules by the hour or finer, and rules that bring more dates than a series may have.
"""

import re
from calendar import isleap
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrulestr  # type: ignore[import-untyped]  # it brings no types

from lablet_common.resources.series import MAX_OCCURRENCES

_PARTS = re.compile(r"^(?:[A-Z]+=[A-Z0-9,+-]+)(?:;[A-Z]+=[A-Z0-9,+-]+)*$")
_MOST_CHARACTERS = 512
_LONGEST_ZONE = 64
MOST_YEARS = 10
"""From the first date of a rule to the last."""
_NUMBERS = {"COUNT": 1_000_000, "INTERVAL": 10_000}
"""Parts that are a whole number from 1 up to this."""
_KNOWN = {
    "FREQ",
    "INTERVAL",
    "COUNT",
    "UNTIL",
    "BYMONTH",
    "BYMONTHDAY",
    "BYYEARDAY",
    "BYWEEKNO",
    "BYDAY",
    "BYSETPOS",
    "WKST",
}
_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")


class InvalidRecurrence(ValueError):
    """A rule, zone or exception that gives no dates. `field` is the one at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def occurrences(rule: str, timezone: str, first: datetime, except_dates: Collection[str] = ()) -> tuple[datetime, ...]:
    """The starts of `dates_of`."""
    return tuple(start for _, start in dates_of(rule, timezone, first, except_dates))


def dates_of(
    rule: str, timezone: str, first: datetime, except_dates: Collection[str] = ()
) -> tuple[tuple[str, datetime], ...]:
    """The local dates (ISO) that the rule gives, each once, with their starts in UTC, in order; `first` (aware) gives the
    local time of day and is the rule's DTSTART. `except_dates` are local dates that are left out. A start may come to lie on
    the next local date, where a clock change skips the end of the day. Raises `InvalidRecurrence`, also for none, for more
    than 400, and for dates more than ten years after the first."""
    zone = _zone(timezone)
    local = _local_dates(rule, first.astimezone(zone).replace(tzinfo=None), zone)
    left_out = set(except_dates)
    unknown = left_out - {moment.date().isoformat() for moment in local}
    if unknown:
        raise InvalidRecurrence("exceptDates", f"{min(unknown)} is no date of the rule")
    kept = [moment for moment in local if moment.date().isoformat() not in left_out]
    if not kept:
        raise InvalidRecurrence("rule", f"{rule!r} gives no date")
    return tuple((moment.date().isoformat(), moment.replace(tzinfo=zone).astimezone(UTC)) for moment in kept)


def _local_dates(rule: str, begin: datetime, zone: ZoneInfo) -> list[datetime]:
    """The dates on the wall's calendar, up to the horizon."""
    parts = _parts(rule)
    until, count = parts.pop("UNTIL", ""), parts.pop("COUNT", "")
    if until and count:
        raise InvalidRecurrence("rule", "a rule ends with COUNT or with UNTIL, not with both")
    horizon = begin.replace(year=begin.year + MOST_YEARS, day=min(begin.day, 28))
    end = _end(until, zone) if until else horizon
    wanted = int(count) if count else MAX_OCCURRENCES + 1
    later = _twin(begin.year) - begin.year
    parts["UNTIL"] = _moved(min(end, horizon), later).strftime("%Y%m%dT%H%M%S")
    try:
        dates = rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=_moved(begin, later))
        local = [_moved(date, -later) for date in islice(dates, min(wanted, MAX_OCCURRENCES + 1))]
    except (ValueError, TypeError, OverflowError, LookupError) as error:  # the last: the billionth Friday of a month
        raise InvalidRecurrence("rule", f"{rule!r} is no RRULE: {error}") from error
    if len(local) > MAX_OCCURRENCES:
        raise InvalidRecurrence("rule", f"more than {MAX_OCCURRENCES} dates: end the rule with COUNT or UNTIL")
    if end > horizon or (count and len(local) < wanted) or not (until or count):
        raise InvalidRecurrence(
            "rule", f"dates are taken up to {MOST_YEARS} years after the first: end the rule sooner"
        )
    return local


@lru_cache(maxsize=64)
def _twin(year: int) -> int:
    """The last year that begins a run of years with the same calendar as this one's. dateutil looks for the next date until
    the year 9999, whatever UNTIL says; a rule that never comes true (every day, if it is 30 February) would keep it at that
    for minutes. So it looks there, where the end is near."""

    def shapes(first: int) -> list[tuple[int, bool]]:
        return [(date(one, 1, 1).weekday(), isleap(one)) for one in range(first - 1, first + MOST_YEARS + 1)]

    if not MINYEAR < year <= MAXYEAR - MOST_YEARS:
        raise InvalidRecurrence("start", f"no term begins in the year {year}")
    return next(one for one in range(MAXYEAR - MOST_YEARS, 0, -1) if shapes(one) == shapes(year))


def _moved(moment: datetime, years: int) -> datetime:
    return moment.replace(year=moment.year + years)


def _end(until: str, zone: ZoneInfo) -> datetime:
    """UNTIL by the zone's clocks; a day alone means its beginning, as the rules of dates have it."""
    for form in ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%d"):
        with suppress(ValueError, OverflowError):
            end = datetime.strptime(until, form)  # noqa: DTZ007 - its zone is told by the form
            return end.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None) if form.endswith("Z") else end
    raise InvalidRecurrence("rule", f"UNTIL={until[:40]} is no date: write it like 20270401T120000Z or 20270401")


def _zone(name: str) -> ZoneInfo:
    no_zone = InvalidRecurrence(
        "timezone", f"there is no zone {name[:_LONGEST_ZONE]!r}: write one like Europe/Stockholm"
    )
    if len(name) > _LONGEST_ZONE:  # its parts would be looked up one below the other
        raise no_zone
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise no_zone from error


def _parts(rule: str) -> dict[str, str]:
    text = rule.strip().upper().removeprefix("RRULE:")
    if len(text) > _MOST_CHARACTERS:
        raise InvalidRecurrence("rule", f"the rule has {len(text):,} characters, more than {_MOST_CHARACTERS}")
    if not _PARTS.match(text):
        raise InvalidRecurrence("rule", f"{rule!r} is no RRULE: write for example FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10")
    parts = dict(part.split("=", 1) for part in text.split(";"))
    if parts.get("FREQ") not in _FREQUENCIES:
        raise InvalidRecurrence("rule", f"FREQ is one of {', '.join(_FREQUENCIES)}")
    for name, most in _NUMBERS.items():
        value = parts.get(name, "1")
        if not (value.isdecimal() and len(value) < 10 and 1 <= int(value) <= most):
            raise InvalidRecurrence("rule", f"{name}={value[:40]} is not a number from 1 to {most:,}")
    finer = {"BYHOUR", "BYMINUTE", "BYSECOND"} & set(parts)
    if finer:
        raise InvalidRecurrence("rule", f"{min(finer)} is not taken: the first date gives the time of day")
    if unknown := parts.keys() - _KNOWN:
        raise InvalidRecurrence(
            "rule", f"{min(unknown)[:40]} is no part of a rule; known are {', '.join(sorted(_KNOWN))}"
        )
    return parts


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a date moves on the calendar on the wall: whole days, and minutes of the day."""

    days: int = 0
    minutes: int = 0

    @classmethod
    def between(cls, old: datetime, new: datetime, timezone: str) -> "Shift":
        """From one instant to another, by the zone's clocks."""
        zone = _zone(timezone)
        before, after = (moment.astimezone(zone).replace(tzinfo=None) for moment in (old, new))
        moved = after - datetime.combine(after.date(), before.time())
        return cls((after.date() - before.date()).days, int(moved / timedelta(minutes=1)))

    def of(self, start: datetime, timezone: str) -> datetime:
        """Where a start comes to stand, in UTC: at nine it stays nine, whatever the clocks did in between."""
        if self == Shift():
            return start  # an hour that comes twice is told apart by nothing on the wall
        zone = _zone(timezone)
        local = start.astimezone(zone).replace(tzinfo=None) + timedelta(days=self.days, minutes=self.minutes)
        return local.replace(tzinfo=zone).astimezone(UTC)
