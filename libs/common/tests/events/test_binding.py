"""The NATS binding against the examples and rules of its specification, and round trips of anything."""

import base64
import json
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from lablet_common.events.binding import (
    InvalidEvent,
    decode,
    decode_value,
    encode,
    encode_structured,
    encode_value,
    event_of,
)

BINARY = {
    "ce-specversion": "1.0",
    "ce-type": "com.example.someevent",
    "ce-time": "2018-04-05T03:56:24Z",
    "ce-id": "1234-1234-1234",
    "ce-source": "/mycontext/subcontext",
    "ce-datacontenttype": "application/json",
}


def test_the_binary_example_of_the_specification_is_read() -> None:
    event = decode(BINARY, b'{"a": 1}')
    assert event.get_type() == "com.example.someevent"
    assert event.get_time() == datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC)
    assert event.get_source() == "/mycontext/subcontext"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == {"a": 1}


def test_the_binary_example_of_the_specification_is_written() -> None:
    headers, payload = encode(decode(BINARY, b'{"a":1}'))
    assert headers == BINARY
    assert payload == b'{"a":1}'


def test_the_structured_example_of_the_specification_is_read() -> None:
    document = {"specversion": "1.0", "type": "com.example.someevent", "id": "1", "source": "/s", "data": {"x": [1]}}
    event = decode({"Content-Type": "application/cloudevents+json"}, json.dumps(document).encode())
    assert event.get_type() == "com.example.someevent"
    assert event.get_data() == {"x": [1]}
    assert event.get_time() is None


@pytest.mark.parametrize(
    "content_type",
    ["application/cloudevents", "Application/CloudEvents+JSON", "APPLICATION/CLOUDEVENTS+json; charset=UTF-8"],
)
@pytest.mark.parametrize("header", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_structured_mode_is_known_in_any_case(header: str, content_type: str) -> None:
    assert decode({header: content_type}, b'{"specversion":"1.0","type":"t","id":"1","source":"/s"}').get_id() == "1"


def test_another_content_type_means_binary_mode() -> None:
    event = decode(BINARY | {"Content-Type": "application/json"}, b'{"type": "not.this"}')
    assert event.get_type() == "com.example.someevent"


def test_header_names_are_read_in_any_case() -> None:
    event = decode({name.upper(): value for name, value in BINARY.items()}, b"{}")
    assert event.get_id() == "1234-1234-1234"


def test_the_percent_encoding_example_of_the_specification() -> None:
    assert encode_value("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert decode_value("Euro%20%E2%82%AC%20%F0%9F%98%80") == "Euro € 😀"


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        (" ", "%20"),
        ('"', "%22"),
        ("%", "%25"),
        ("\x7f", "%7F"),
        ("\r\n", "%0D%0A"),
        ("/a:b?c=d&e#f~!", "/a:b?c=d&e#f~!"),
        ("ä", "%C3%A4"),
    ],
)
def test_exactly_the_named_characters_are_encoded(text: str, encoded: str) -> None:
    assert encode_value(text) == encoded


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("%e2%82%ac", "€"),
        ("%41%42", "AB"),
        ("%2520", "%20"),
        ('"quoted \\" and \\\\"', 'quoted " and \\'),
        ('"50%25 off"', "50% off"),
        ("100%", "100%"),
        ("  padded ", "padded"),
    ],
)
def test_what_other_senders_write_is_understood(header: str, text: str) -> None:
    assert decode_value(header) == text


@pytest.mark.parametrize("header", ["%C0%A0", "%FF", "%E2%82", "%ED%A0%80"])
def test_bytes_that_are_not_utf8_are_refused(header: str) -> None:
    with pytest.raises(InvalidEvent, match="UTF-8"):
        decode(BINARY | {"ce-subject": header}, b"")


@pytest.mark.parametrize("missing", ["id", "source", "type", "specversion"])
def test_a_missing_attribute_is_named(missing: str) -> None:
    headers = {name: value for name, value in BINARY.items() if name != f"ce-{missing}"}
    with pytest.raises(InvalidEvent, match=missing):
        decode(headers, b"{}")


@pytest.mark.parametrize(
    ("headers", "payload", "said"),
    [
        (None, b"{}", "no header begins with ce-"),
        ({}, b"{}", "no header begins with ce-"),
        (BINARY | {"CE-ID": "again"}, b"", "twice"),
        (BINARY | {"ce-specversion": "0.3"}, b"", "specversion"),
        (BINARY | {"ce-time": "yesterday"}, b"", "RFC 3339"),
        (BINARY | {"ce-time": "2018-04-05T03:56:24"}, b"", "RFC 3339"),
        (BINARY | {"ce-time": "2018-13-05T03:56:24Z"}, b"", "does not exist"),
        (BINARY | {"ce-not_allowed": "x"}, b"", "not_allowed"),
        (BINARY, b"{", "application/json"),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", "one event a message"),
        ({"content-type": "application/cloudevents+avro"}, b"", "avro"),
        ({"content-type": "application/cloudevents+json"}, b"[]", "not a JSON object"),
        ({"content-type": "application/cloudevents+json"}, b"\xff", "not JSON"),
        ({"content-type": "application/cloudevents+json"}, b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(headers: dict[str, str], payload: bytes, said: str) -> None:
    with pytest.raises(InvalidEvent, match=said):
        decode(headers, payload)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"data": 1, "data_base64": "AA=="}, "both"),
        ({"data_base64": "%%"}, "base64"),
        ({"data_base64": 5}, "base64"),
        ({"ext": 2**31}, "32-bit"),
        ({"ext": 1.5}, "32-bit"),
        ({"ext": {}}, "neither"),
        ({"time": 5}, "RFC 3339"),
        ({"id": 5}, "id"),
        ({"id": ""}, "id"),
    ],
)
def test_a_structured_event_with_a_fault_is_refused(extra: dict[str, Any], said: str) -> None:
    document = {"specversion": "1.0", "type": "t", "id": "1", "source": "/s"} | extra
    with pytest.raises(InvalidEvent, match=said):
        decode({"content-type": "application/cloudevents+json"}, json.dumps(document).encode())


def test_null_attributes_count_as_absent() -> None:
    document = b'{"specversion":"1.0","type":"t","id":"1","source":"/s","subject":null,"data":null}'
    event = decode({"content-type": "application/cloudevents+json"}, document)
    assert event.get_subject() is None
    assert event.get_data() is None


def test_binary_data_survives_both_modes() -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "datacontenttype": "application/octet-stream"}
    event = CloudEvent(attributes, b"\x00\xff")
    for headers, payload in (encode(event), encode_structured(event)):
        assert decode(headers, payload).get_data() == b"\x00\xff"


def test_json_bytes_become_plain_json_in_structured_mode() -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json"}
    _, payload = encode_structured(CloudEvent(attributes, b'{"a": 1}'))
    assert json.loads(payload)["data"] == {"a": 1}


def test_the_official_format_reads_what_we_write() -> None:
    event = decode(BINARY, b'{"a":1}')
    _, payload = encode_structured(event)
    theirs = JSONFormat().read(None, payload)
    assert theirs.get_attributes() == event.get_attributes()
    assert theirs.get_data() == {"a": 1}


def test_a_lone_surrogate_cannot_be_sent() -> None:
    with pytest.raises(InvalidEvent, match="Unicode"):
        encode(CloudEvent({"id": "\ud800", "source": "/s", "type": "t"}))


_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
_names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(
    lambda n: (
        n not in {"id", "source", "type", "specversion", "time", "subject", "data", "dataschema", "datacontenttype"}
    )
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)
_times = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-3))])
)


@given(_text, _text, _text, _text, _times, st.dictionaries(_names, _text, max_size=4), st.dictionaries(_text, _json))
def test_any_event_survives_both_modes(
    event_id: str, source: str, event_type: str, subject: str, time: datetime, extra: dict[str, str], data: Any
) -> None:
    attributes: dict[str, Any] = {"id": event_id, "source": source, "type": event_type, "subject": subject}
    attributes |= {"time": time, "datacontenttype": "application/json"} | extra
    event = CloudEvent(attributes, data)
    for headers, payload in (encode(event), encode_structured(event)):
        assert all(" " <= c <= "~" for value in headers.values() for c in value)
        again = decode(headers, payload)
        assert again.get_attributes() == event.get_attributes()
        assert again.get_data() == data


@given(_text)
def test_any_text_survives_a_header(text: str) -> None:
    assert decode_value(encode_value(text)) == text


@given(st.text(st.characters(codec="latin-1"), max_size=60), st.binary(max_size=60))
def test_no_header_or_payload_breaks_the_decoder(value: str, payload: bytes) -> None:
    for headers in (BINARY | {"ce-subject": value}, BINARY | {"ce-time": value}, {"content-type": value}):
        try:
            decode(headers, payload)
        except InvalidEvent:
            continue


@pytest.mark.parametrize("data", [b'{"a": "\xc3\xa9"}', b'{"a":\n 1}', b"[1]", b"2.50"])
def test_json_text_becomes_part_of_the_document_on_one_line(data: bytes) -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "datacontenttype": "application/json"}
    _, payload = encode_structured(CloudEvent(attributes, data))
    assert b"\n" not in payload
    assert json.loads(payload)["data"] == json.loads(data)


@pytest.mark.parametrize("data", [b"{", b"\xff", b'{"a": NaN}', '{"a": 1}'.encode("utf-16")])
def test_what_is_no_json_text_never_stands_in_the_document_as_if_it_were(data: bytes) -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "datacontenttype": "application/json"}
    try:
        _, payload = encode_structured(CloudEvent(attributes, data))
    except InvalidEvent:
        return
    told = json.loads(payload.decode(), parse_constant=pytest.fail)
    assert told.get("data") == {"a": 1} or base64.b64decode(told["data_base64"]) == data


def test_raw_data_are_not_read() -> None:
    headers = {"ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-specversion": "1.0"}
    assert decode(headers, b'{"a": ', raw=True).get_data() == b'{"a": '
    with pytest.raises(InvalidEvent):
        decode(headers, b'{"a": ')


_right: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/s",
    "type": "t",
    "time": datetime(2027, 3, 1, tzinfo=UTC),
    "subject": "reservation/rsv-1",
    "sequence": "00012",
}
_values = st.one_of(
    st.sampled_from(["", "1.0", "x", "a b"]), st.booleans(), st.integers(-2, 2), st.none(), st.datetimes()
)


@given(
    st.dictionaries(st.sampled_from([*_right, "tenant", "dataref", "data", "Mixed", "", "a-b", "x" * 21]), _values),
    st.sets(st.sampled_from(["source", "type", "subject", "sequence"]), max_size=2),
)
def test_what_the_short_check_lets_through_the_official_one_does_too(other: dict[str, Any], left_out: set[str]) -> None:
    attributes = {name: value for name, value in (_right | other).items() if name not in left_out}
    try:
        expected = CloudEvent(dict(attributes), b"{}")
    except CloudEventValidationError:
        with pytest.raises(InvalidEvent):
            event_of(dict(attributes), b"{}")
    else:
        event = event_of(dict(attributes), b"{}")
        assert (event.get_attributes(), event.get_data()) == (expected.get_attributes(), expected.get_data())
