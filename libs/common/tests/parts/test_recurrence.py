"""Dates of a term, in local time."""

from datetime import UTC, datetime
from itertools import islice

import pytest
from dateutil.rrule import rrulestr  # type: ignore[import-untyped]  # it brings no types

from lablet_common.recurrence import InvalidRecurrence, Shift, dates_of, occurrences

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


def test_a_date_keeps_the_day_of_the_rule_where_the_end_of_that_day_is_skipped() -> None:
    first = datetime(2027, 3, 27, 1, 30, tzinfo=UTC)  # the 26th, 23:30 in Nuuk, where the 27th ends at 23:00
    found = dates_of("FREQ=DAILY;COUNT=4", "America/Nuuk", first, ["2027-03-29"])
    assert [(day, f"{start:%d %H:%M}") for day, start in found] == [
        ("2027-03-26", "27 01:30"),
        ("2027-03-27", "28 01:30"),
        ("2027-03-28", "29 00:30"),
    ]


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
        ("FREQ=DAILY;COUNT=2", "Asia/T" * 2_000, "timezone"),
        ("FREQ=DAILY;UNTIL=2027040112Z", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270401", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;INTERVAL=0;COUNT=2", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;COUNT=0", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;BYEASTER=1;COUNT=1", "Europe/Stockholm", "rule"),
        ("FREQ=YEARLY", "Europe/Stockholm", "rule"),
        ("FREQ=YEARLY;COUNT=30", "Europe/Stockholm", "rule"),
        ("FREQ=YEARLY;UNTIL=20990101", "Europe/Stockholm", "rule"),
        ("FREQ=DAILY;COUNT=2;BYDAY=" + "MO," * 300 + "MO", "Europe/Stockholm", "rule"),
    ],
)
def test_what_gives_no_dates_names_the_field_at_fault(rule: str, zone: str, field: str) -> None:
    with pytest.raises(InvalidRecurrence) as caught:
        shown(rule, zone=zone)
    assert caught.value.field == field


@pytest.mark.timeout(5)  # until the year 9999 it would take minutes
def test_a_day_that_never_comes_is_not_looked_for_for_ever() -> None:
    with pytest.raises(InvalidRecurrence, match="up to 10 years"):
        shown("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=2")


@pytest.mark.parametrize("year", [2026, 2027, 2028, 2095, 2396])
@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;INTERVAL=11",
        "FREQ=WEEKLY;BYDAY=TU,SA;INTERVAL=3",
        "FREQ=MONTHLY;BYDAY=-1FR",
        "FREQ=YEARLY;BYWEEKNO=1,53",
    ],
)
def test_the_dates_are_those_of_the_library_in_every_calendar(rule: str, year: int) -> None:
    first = datetime(year, 2, 1, 9, tzinfo=UTC)
    plain = list(islice(rrulestr(rule, dtstart=first.replace(tzinfo=None)), 15))
    wanted = [moment for moment in plain if moment.year < year + 10]
    assert [
        moment.replace(tzinfo=None) for moment in occurrences(f"{rule};COUNT={len(wanted)}", "UTC", first)
    ] == wanted


def test_the_day_that_leap_years_have_is_kept() -> None:
    first = datetime(2028, 2, 29, 9, tzinfo=UTC)
    assert [f"{moment:%Y-%m-%d}" for moment in occurrences("FREQ=YEARLY;COUNT=2", "UTC", first)] == [
        "2028-02-29",
        "2032-02-29",
    ]


def test_a_term_of_ten_years_is_the_longest() -> None:
    assert len(shown("FREQ=YEARLY;COUNT=10")) == 10


def test_what_is_not_moved_stays_also_in_the_second_of_an_hour_that_comes_twice() -> None:
    second = datetime(2027, 10, 31, 1, 30, tzinfo=UTC)  # 02:30 in Stockholm, for the second time
    assert Shift().of(second, "Europe/Stockholm") == second
    assert Shift(days=1).of(second, "Europe/Stockholm") == datetime(2027, 11, 1, 1, 30, tzinfo=UTC)
