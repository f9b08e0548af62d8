"""Pauses after failed steps, without a pool around them."""

from datetime import UTC, datetime, timedelta

from lablet_workers.instances.pauses import FIRST, LONGEST, Pauses

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
POLL = timedelta(seconds=2)
FAR = NOW + timedelta(hours=2)


def test_each_failure_in_a_row_doubles_the_pause_up_to_a_limit() -> None:
    pauses, now, waited = Pauses(), NOW, []
    for _ in range(5):
        until = pauses.failed("a", now, POLL, "asked", FAR)
        waited.append((until - now) / POLL)
        now = until
    assert waited == [FIRST, 8, LONGEST, LONGEST, LONGEST]


def test_a_pause_holds_for_what_was_asked_and_ends_when_something_else_is() -> None:
    pauses = Pauses()
    until = pauses.failed("a", NOW, POLL, "asked", FAR)
    assert pauses.until("a", NOW, "asked") == until
    assert pauses.until("a", until, "asked") is None
    assert pauses.until("a", NOW, "cancelled") is None
    assert pauses.failed("a", NOW, POLL, "cancelled", FAR) == NOW + POLL * FIRST, "and counts from the beginning"


def test_a_pause_does_not_reach_beyond_the_slots_end() -> None:
    assert Pauses().failed("a", NOW, POLL, "asked", NOW + POLL) == NOW + POLL
    assert Pauses().failed("a", NOW, POLL, "asked", NOW - POLL) == NOW + POLL * FIRST, "after it, it is a pause as any"


def test_what_has_led_on_is_forgotten() -> None:
    pauses = Pauses()
    pauses.failed("a", NOW, POLL, "asked", FAR)
    pauses.forget("a")
    assert pauses.until("a", NOW, "asked") is None
    assert pauses.failed("a", NOW, POLL, "asked", FAR) == NOW + POLL * FIRST
