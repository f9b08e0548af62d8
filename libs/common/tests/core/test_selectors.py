"""Selectors choose what they say, and refuse what they do not understand."""

from collections.abc import Callable

import pytest

from lablet_common.resources import Reservation, WorkerTemplate
from lablet_common.store.selectors import FieldSelector, LabelSelector, SelectorError

LABELS = {"course": "ccna-1", "room": "b", "exam": ""}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("course=ccna-1", True),
        ("course==ccna-1", True),
        ("course=ccna-2", False),
        ("course!=ccna-2", True),
        ("missing!=x", True),
        ("missing=x", False),
        ("exam=", True),
        ("room in (a,b)", True),
        ("room in (a, c)", False),
        ("room notin (a,c)", True),
        ("missing notin (a)", True),
        ("room notin (b)", False),
        ("room", True),
        ("!room", False),
        ("!missing", True),
        ("course=ccna-1, room in (a,b), !missing", True),
        ("course=ccna-1,room in (x,y)", False),
    ],
)
def test_a_label_selector_holds_exactly_where_it_says(text: str, holds: bool) -> None:
    assert LabelSelector.parse(text).matches_labels(LABELS) is holds


@pytest.mark.parametrize("text", ["a=b,", ",", "a=(b)", "a in b", "a in (b", "=b", "a b", "a>b", "!a=b", "-a"])
def test_a_label_selector_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        LabelSelector.parse(text)


@pytest.mark.parametrize("parse", [LabelSelector.parse, FieldSelector.parse])
def test_a_selector_longer_than_any_list_needs_is_refused_unread(parse: Callable[[str], object]) -> None:
    with pytest.raises(SelectorError, match="more than 4,096"):
        parse("," * 4_097)


@pytest.fixture
def template(make_template: Callable[..., WorkerTemplate]) -> WorkerTemplate:
    return make_template("lab-a", labels={"app.kubernetes.io/name": "x", "course": "one"})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("metadata.id=lab-a", True),
        ("metadata.id!=lab-a", False),
        ("status.phase=Active", True),
        ("spec.instanceType=m5", True),
        ("spec.capacity.cpuCores=8.0", True),
        ("spec.nodeDefinitions=csr", True),
        ("spec.nodeDefinitions=asa", False),
        ("metadata.labels.course=one", True),
        ("metadata.labels.app.kubernetes.io/name=x", True),
        ("metadata.labels.missing=x", False),
        ("metadata.labels.missing!=x", True),
        ("metadata.createdAt=2027-03-01T07:00:00Z", True),
        ("status.phase=Active,spec.instanceType=m4", False),
    ],
)
def test_a_field_selector_reads_fields_by_their_names_in_the_json(
    template: WorkerTemplate, text: str, holds: bool
) -> None:
    assert FieldSelector.parse(text, WorkerTemplate).matches(template) is holds


@pytest.mark.parametrize(
    ("text", "named"),
    [("spec.phase=x", "spec.phase"), ("status.fase=x", "status.fase"), ("spec.seats.x=1", "goes on below spec.seats")],
)
def test_a_field_that_the_kind_does_not_have_is_named(text: str, named: str) -> None:
    with pytest.raises(SelectorError, match=named):
        FieldSelector.parse(text, Reservation)


@pytest.mark.parametrize("text", ["status.phase", "=x", "status.phase=a,,b=c", "status phase=x"])
def test_a_field_selector_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        FieldSelector.parse(text)


def test_nested_lists_match_when_one_element_does() -> None:
    reservation = Reservation.model_validate(
        {
            "kind": "Reservation",
            "metadata": {"id": "rsv-1", "uid": "u", "createdAt": "2027-03-01T07:00:00Z"},
            "spec": {"definition": "a@1.0.0", "durationMinutes": 60, "pools": ["east", "west"]},
            "status": {
                "phase": "Pending",
                "placement": [
                    {"seat": 1, "worker": "w1", "instance": "i1"},
                    {"seat": 2, "worker": "w2", "instance": "i2"},
                ],
            },
        }
    )
    assert FieldSelector.parse("status.placement.worker=w2,spec.pools=west", Reservation).matches(reservation)
    assert not FieldSelector.parse("status.placement.worker=w3", Reservation).matches(reservation)
