"""Dates of a term, in local time."""

from datetime import UTC, datetime

import pytest

from lablet_common.recurrence import InvalidRecurrence, occurrences

FIRST = datetime(2027, 3, 22, 8, 0, tzinfo=UTC)  # a Monday, 09:00 in Stockholm; summer time begins on the 28th


def shown(rule: str, first: datetime = FIRST, *left_out: str, zone: str = "Europe/Stockholm") -> list[str]:
    return [moment.strftime("%m-%d %H:%M") for moment in occurrences(rule, zone, first, left_out)]


def test_a_class_at_nine_stays_at_nine_across_the_clock_change() -> None:
    assert shown("FREQ=WEEKLY;COUNT=3") == ["03-22 08:00", "03-29 07:00", "04-05 07:00"]


def test_exceptions_are_local_dates_and_must_be_dates_of_the_rule() -> None:
    assert shown("FREQ=WEEKLY;COUNT=3", FIRST, "2027-03-29") == ["03-22 08:00", "04-05 07:00"]
    with pytest.raises(InvalidRecurrence, match="2027-03-30"):
        shown("FREQ=WEEKLY;COUNT=3", FIRST, "2027-03-30")


def test_a_time_that_is_skipped_moves_on_and_one_that_comes_twice_is_the_first() -> None:
    skipped = shown("FREQ=DAILY;COUNT=3", datetime(2027, 3, 27, 1, 30, tzinfo=UTC))
    assert skipped == ["03-27 01:30", "03-28 01:30", "03-29 00:30"]
    twice = shown("FREQ=DAILY;COUNT=2", datetime(2027, 10, 30, 0, 30, tzinfo=UTC))
    assert twice == ["10-30 00:30", "10-31 00:30"]


def test_an_end_in_utc_is_kept() -> None:
    assert shown("RRULE:FREQ=DAILY;UNTIL=20270324T080000Z") == ["03-22 08:00", "03-23 08:00", "03-24 08:00"]


@pytest.mark.parametrize(
    ("rule", "zone", "field"),
    [
        ("FREQ=DAILY", "Europe/Stockholm", "rule"),
        ("FREQ=HOURLY;COUNT=2", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;COUNT=2;BYHOUR=9", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;COUNT=two", "Europe/Stockholm", "rule"),
        ("every monday", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;COUNT=2", "Mars/Base", "timezone"),
    ],
)
def test_what_gives_no_dates_names_the_field_at_fault(rule: str, zone: str, field: str) -> None:
    with pytest.raises(InvalidRecurrence) as caught:
        shown(rule, zone=zone)
    assert caught.value.field == field
