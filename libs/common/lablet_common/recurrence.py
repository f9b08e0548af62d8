"""The dates of a term: an RRULE read in a zone's local time, so that a class at nine stays at nine across a clock change.

Pure. A local time that a clock change skips is moved on by the change (02:30 becomes 03:30); one that comes twice is the
first. Not taken: rules by the hour or finer, and rules that bring more dates than a series may have.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrulestr  # type: ignore[import-untyped]  # it brings no types

from lablet_common.resources.series import MAX_OCCURRENCES

_PARTS = re.compile(r"^(?:[A-Z]+=[A-Z0-9,+-]+)(?:;[A-Z]+=[A-Z0-9,+-]+)*$")
_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")


class InvalidRecurrence(ValueError):
    """A rule, zone or exception that gives no dates. `field` is the one at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def occurrences(rule: str, timezone: str, first: datetime, except_dates: Collection[str] = ()) -> tuple[datetime, ...]:
    """The starts in UTC, in order; `first` (aware) gives the local time of day and is the rule's DTSTART. `except_dates`
    are local dates (ISO) that are left out. Raises `InvalidRecurrence`, also for none and for more than 400."""
    zone = _zone(timezone)
    parts = _parts(rule)
    until = parts.get("UNTIL", "")
    if until.endswith("Z"):
        end = datetime.strptime(until, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        parts["UNTIL"] = end.astimezone(zone).strftime("%Y%m%dT%H%M%S")
    begin = first.astimezone(zone).replace(tzinfo=None)
    try:
        found = rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=begin)
    except ValueError as error:
        raise InvalidRecurrence("rule", f"{rule!r} is no RRULE: {error}") from error
    local = list(islice(found, MAX_OCCURRENCES + 1))
    if len(local) > MAX_OCCURRENCES:
        raise InvalidRecurrence("rule", f"more than {MAX_OCCURRENCES} dates: end the rule with COUNT or UNTIL")
    left_out = set(except_dates)
    unknown = left_out - {moment.date().isoformat() for moment in local}
    if unknown:
        raise InvalidRecurrence("exceptDates", f"{min(unknown)} is no date of the rule")
    kept = [moment for moment in local if moment.date().isoformat() not in left_out]
    if not kept:
        raise InvalidRecurrence("rule", f"{rule!r} gives no date")
    return tuple(moment.replace(tzinfo=zone).astimezone(UTC) for moment in kept)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidRecurrence("timezone", f"there is no zone {name!r}: write one like Europe/Stockholm") from error


def _parts(rule: str) -> dict[str, str]:
    text = rule.strip().upper().removeprefix("RRULE:")
    if not _PARTS.match(text):
        raise InvalidRecurrence("rule", f"{rule!r} is no RRULE: write for example FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10")
    parts = dict(part.split("=", 1) for part in text.split(";"))
    if parts.get("FREQ") not in _FREQUENCIES:
        raise InvalidRecurrence("rule", f"FREQ is one of {', '.join(_FREQUENCIES)}")
    finer = {"BYHOUR", "BYMINUTE", "BYSECOND"} & set(parts)
    if finer:
        raise InvalidRecurrence("rule", f"{min(finer)} is not taken: the first date gives the time of day")
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
        zone = _zone(timezone)
        local = start.astimezone(zone).replace(tzinfo=None) + timedelta(days=self.days, minutes=self.minutes)
        return local.replace(tzinfo=zone).astimezone(UTC)


def day_of(moment: datetime, timezone: str) -> str:
    """The local date, ISO."""
    return moment.astimezone(_zone(timezone)).date().isoformat()
