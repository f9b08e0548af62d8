"""JSON of strangers: what is taken can be kept and read again, and the rest is refused with one error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lablet_common.resources.model import Model
from lablet_common.strangers import MOST_DEPTH, Free, NotJson, is_deep, read_cursor, read_json, write_cursor
from lablet_common.telemetry import traces

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


@given(VALUES)
def test_whatever_json_can_say_is_read_as_it_was(value: object) -> None:
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "[", b"\xff", "[1,]", "NaN", "[Infinity]", "1e999", '"\\ud800"', '{"\\udfff": 1}', "9" * 5000,
        nested(MOST_DEPTH + 1), nested(1500), "[" * 1500, '{"a":' * 1500, nested(MOST_DEPTH + 1, '[{"a":[', "]}]"),
        b"\xff\xfe[\x00]\x00",
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_words(text: str | bytes) -> None:
    with pytest.raises(NotJson) as refused:
        read_json(text)
    assert str(refused.value).strip()
    str(refused.value).encode()


def test_the_depth_that_is_taken_is_a_hundred_levels_and_fits_twice_into_what_pydantic_reads() -> None:
    assert MOST_DEPTH == 100
    assert read_json(nested(MOST_DEPTH))
    assert not is_deep(json.loads('{"a":' * MOST_DEPTH + "1" + "}" * MOST_DEPTH))
    TypeAdapter(object).validate_json(nested(2 * MOST_DEPTH - 1))


@given(st.integers(), st.text())
def test_a_cursor_comes_back_as_it_went(number: int, name: str) -> None:
    assert read_cursor(write_cursor(number, name)) == [number, name]


@pytest.mark.parametrize("cursor", ["%%%", "=", "é", "W", "WzEs"])
def test_a_cursor_that_nobody_wrote_is_refused(cursor: str) -> None:
    with pytest.raises(NotJson):
        read_cursor(cursor)


@pytest.mark.parametrize(
    ("text", "told"),
    [(nested(101, '{"a":[', "]}"), "deeper"), ('{"a": "\\ud800"}', "surrogate"), ('{"a": NaN}', "number")],
)
def test_an_object_of_their_own_making_in_a_model_is_held_to_the_same(text: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TypeAdapter(Free).validate_python(json.loads(text))


class Words(Model):
    text: str = ""
    more: dict[str, str] = {}


@pytest.mark.parametrize("given", [{"text": "\ud800"}, {"more": {"\ud800": ""}}, {"more": {"a": "\udfff"}}])
def test_a_model_takes_no_text_that_it_could_not_write(given: object) -> None:
    with pytest.raises(ValidationError):
        Words.model_validate(given)


def test_a_trace_parent_of_any_length_is_not_remembered() -> None:
    before = traces._context_of.cache_info()
    assert traces.context_of("0" * 100_000) is None
    assert traces._context_of.cache_info() == before
