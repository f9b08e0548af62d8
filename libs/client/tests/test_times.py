"""Times as people write them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablet_client.cli.times import (
    WrongTime,
    parse_past,
    parse_span,
    parse_time,
    show_age,
    show_slot,
    show_span,
    show_time,
)

ZURICH = ZoneInfo("Europe/Zurich")
NOW = datetime(2027, 3, 3, 13, 30, 20, tzinfo=UTC)  # a Wednesday, 14:30:20 in Zurich


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZURICH).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2027-03-03T14:31"),
        ("in 2h", "2027-03-03T16:31"),
        ("+90m", "2027-03-03T16:01"),
        ("in 1h30m", "2027-03-03T16:01"),
        ("in 2 days", "2027-03-05T14:31"),
        ("16:00", "2027-03-03T16:00"),
        ("9:05", "2027-03-04T09:05"),
        ("9am", "2027-03-04T09:00"),
        ("12 pm", "2027-03-04T12:00"),
        ("today 20:00", "2027-03-03T20:00"),
        ("tomorrow 09:00", "2027-03-04T09:00"),
        ("Tomorrow at 9am", "2027-03-04T09:00"),
        ("monday 14:30", "2027-03-08T14:30"),
        ("next fri 8:00", "2027-03-05T08:00"),
        ("wed 15:00", "2027-03-03T15:00"),
        ("wed 14:00", "2027-03-10T14:00"),
        ("2027-03-09 09:00", "2027-03-09T09:00"),
        ("2027-03-09T09:00", "2027-03-09T09:00"),
        ("2027-03-09T08:00:00Z", "2027-03-09T09:00"),
        ("2027-03-09T09:00+01:00", "2027-03-09T09:00"),
        ("2027-06-09 09:00", "2027-06-09T09:00"),
    ],
)
def test_what_people_write_is_understood(text, meant):
    assert parse_time(text, NOW, ZURICH) == at(meant)


@pytest.mark.parametrize(
    "text", ["", "soon", "tomorrow", "25:00", "13pm", "9", "someday 09:00", "2027-13-01 09:00", "in", "in a while"]
)
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(WrongTime):
        parse_time(text, NOW, ZURICH)


def test_an_hour_that_the_clock_change_leaves_out_is_refused():
    with pytest.raises(WrongTime, match="02:30 does not exist"):
        parse_time("2027-03-28 02:30", NOW, ZURICH)


def test_tomorrow_stays_at_its_hour_across_the_clock_change():
    saturday = datetime(2027, 3, 27, 20, 0, tzinfo=UTC)
    assert parse_time("tomorrow 09:00", saturday, ZURICH) == datetime(2027, 3, 28, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "minutes"), [("90m", 90), ("2h", 120), ("1h30m", 90), ("1.5 hours", 90), ("45", 45), ("1 day", 1440)]
)
def test_spans(text, minutes):
    assert parse_span(text) == timedelta(minutes=minutes)


@pytest.mark.parametrize("text", ["", "long", "2 fortnights", "h", "-5", "99999999999h"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(WrongTime):
        parse_span(text)


@given(st.text(max_size=30))
def test_no_text_brings_anything_but_a_time_or_a_refusal(text):
    try:
        moment = parse_time(text, NOW, ZURICH)
    except WrongTime:
        return
    assert moment.tzinfo is not None


def test_times_are_shown_as_people_say_them():
    assert show_time(at("2027-03-04T09:00"), NOW, ZURICH) == "tomorrow 09:00"
    assert show_time(at("2027-03-09T09:00"), NOW, ZURICH) == "Tue 09 Mar 09:00"
    assert show_time(at("2028-03-09T09:00"), NOW, ZURICH) == "Thu 09 Mar 2028 09:00"
    assert show_slot(at("2027-03-04T09:00"), at("2027-03-04T11:00"), NOW, ZURICH) == "tomorrow 09:00–11:00"
    assert show_span(timedelta(hours=2, minutes=5)) == "2 h 05 min"
    assert show_age(NOW - timedelta(minutes=12), NOW) == "12 min ago"
    assert show_age(NOW + timedelta(days=2), NOW) == "in 2 d"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2h", "2027-03-03T12:30:20"),
        ("90m ago", "2027-03-03T13:00:20"),
        ("yesterday", "2027-03-02T00:00"),
        ("today 08:00", "2027-03-03T08:00"),
        ("2027-02-01T10:00", "2027-02-01T10:00"),
    ],
)
def test_moments_to_look_back_to(text: str, meant: str) -> None:
    assert parse_past(text, NOW, ZURICH) == at(meant)
