"""Subjects: the names of the contract, with nothing in them that could widen them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablet_common.events import subjects


def test_subjects_have_the_shape_of_the_contract() -> None:
    assert subjects.intent_subject("scheduler", "east", "reservation", "rsv-1") == (
        "lablet.intent.scheduler.east.reservation.rsv-1"
    )
    assert subjects.event_subject("acme", "definition", "-", "ospf@1.0.0") == (
        "lablet.event.acme.definition.-.ospf@1%2E0%2E0"
    )
    assert subjects.ingress_subject("acme", "reservation") == "lablet.ingress.acme.reservation"
    assert subjects.ingress_result_subject("acme") == "lablet.ingress-result.acme"
    assert subjects.dlq_subject("scheduler", "scheduler-east") == "lablet.dlq.scheduler.scheduler-east"
    assert subjects.intent_filter("scheduler") == "lablet.intent.scheduler.*.>"
    assert subjects.event_filter("worker", pool="east") == "lablet.event.*.worker.east.*"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_token_stays_one_token_and_comes_back(token: str) -> None:
    escaped = subjects.escape(token)
    assert not set(escaped) & set(".*> \t\r\n")
    assert escaped.isascii()
    assert subjects.unescape(escaped) == token


def test_a_template_names_what_differs_and_keeps_what_does_not() -> None:
    told = {
        subjects.event_subject("acme", "reservation", "east", "rsv-1"): "lablet.event.{tenant}.reservation.{pool}.{id}",
        subjects.intent_subject("scheduler", "-", "series", "s.1"): "lablet.intent.scheduler.{pool}.series.{id}",
        subjects.ingress_subject("acme", "reservation"): "lablet.ingress.{tenant}.reservation",
        "lablet.other": "lablet.other",
    }
    assert {subject: subjects.template_of(subject) for subject in told} == told


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        subjects.event_subject("acme", "worker", "east", "")
