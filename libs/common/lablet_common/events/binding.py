"""The NATS protocol binding of CloudEvents 1.0: events as NATS messages and back, to the letter of the specification.

Self-contained (needs the `cloudevents` SDK's event class and nothing of Lablet or of a NATS client), because the SDK has
no NATS binding. Binary mode: every attribute in a header `ce-<name>`, `datacontenttype` among them; structured mode: the
JSON format under `Content-Type: application/cloudevents+json`. The binding knows no batches.

Source: cloudevents/spec, `cloudevents/bindings/nats-protocol-binding.md` (1.0.3) and `formats/json-format.md`.
Not guaranteed: that extension attributes keep a type other than string over binary mode; headers carry none.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent

CONTENT_TYPE = "Content-Type"
STRUCTURED_JSON = "application/cloudevents+json"
PREFIX = "ce-"

_MEDIA_TYPE = "application/cloudevents"
_JSON = re.compile(r"^[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;.*)?$", re.IGNORECASE)
_MUST_ENCODE = re.compile(r'[^!-~]|["%]')
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ESCAPED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$")
_INTEGERS = range(-(2**31), 2**31)
_NEEDED = frozenset({"id", "source", "type", "specversion", "time"})
_FAMILIAR = _NEEDED | {"subject", "datacontenttype", "dataschema", "dataref", "sequence", "partitionkey", "traceparent"}
_FAMILIAR |= {"tenant", "replayed", "correlationid", "causationid"}
"""Names of attributes that are known to be right: the specification's, those of extensions documented there, and others that
come often."""


class InvalidEvent(ValueError):
    """A message is not a valid CloudEvent; it never will be, however often it is delivered."""


def encode(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """The event in binary mode: headers and payload. Raises `InvalidEvent` for data that cannot be written as its
    `datacontenttype` says, or text that is not Unicode."""
    headers = {f"{PREFIX}{name}": _canonical(value) for name, value in event.get_attributes().items()}
    if not _is_plain("".join(headers.values())):
        headers = {name: encode_value(text) for name, text in headers.items()}
    return headers, _payload(event)


def encode_structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """The event in structured mode, in the JSON format."""
    document: dict[str, Any] = {
        name: value if isinstance(value, bool | int) else _canonical(value)
        for name, value in event.get_attributes().items()
    }
    data = event.get_data()
    written = b""
    if isinstance(data, bytes | bytearray):
        if _is_json(event.get_datacontenttype()) and _is_one_line_of_json(data):
            written = b', "data": %b' % data
        else:
            parsed = _json_or_none(data) if _is_json(event.get_datacontenttype()) else None
            if parsed is None:
                document["data_base64"] = base64.b64encode(data).decode()
            else:
                document["data"] = parsed[0]
    elif data is not None:
        document["data"] = data
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the event cannot be written as JSON: {error}") from error
    return {CONTENT_TYPE: STRUCTURED_JSON}, b"%b%b}" % (text[:-1], written) if written else text


def decode(headers: Mapping[str, str] | None, payload: bytes, *, raw: bool = False) -> CloudEvent:
    """The event in a message of either mode. JSON data is parsed, other text is str, the rest bytes; `raw` leaves the data
    of a binary message as it came. Raises `InvalidEvent`, which says what is wrong."""
    attributes: dict[str, Any] = {}
    content_type = ""
    for name, value in (headers or {}).items():
        attribute = _attribute_in(name)
        if attribute is None:
            if name.lower() == "content-type":
                content_type = content_type or value.strip().lower()
        elif attribute in attributes:
            raise InvalidEvent(f"the header {PREFIX}{attribute} is there twice")
        else:
            attributes[attribute] = value
    if content_type.startswith(_MEDIA_TYPE):
        return _decode_structured(content_type, payload)
    return _decode_binary(attributes, payload, raw)


@lru_cache(maxsize=500)
def _attribute_in(header: str) -> str | None:
    """The attribute that a header of this name holds; None: it holds none. The same few names come again and again."""
    name = header.lower()
    return name[len(PREFIX) :] if name.startswith(PREFIX) else None


def from_document(document: dict[str, Any]) -> CloudEvent:
    """The event that an object in the JSON format stands for; the object is used up. Raises `InvalidEvent`."""
    if "data" in document and "data_base64" in document:
        raise InvalidEvent("the event has both data and data_base64")
    data = document.pop("data", None)
    encoded = document.pop("data_base64", None)
    if encoded is not None:
        try:
            data = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise InvalidEvent("data_base64 is not base64") from error
    attributes: dict[str, Any] = {}
    for name, value in document.items():
        if value is None:
            continue
        if not _is_unicode(name):
            raise InvalidEvent(f"the attribute {name!a} has a name that is not valid Unicode")
        if not isinstance(value, str | bool | int) or (type(value) is int and value not in _INTEGERS):
            raise InvalidEvent(f"the attribute {name} is neither text nor Boolean nor a 32-bit integer")
        if isinstance(value, str) and not _is_unicode(value):
            raise InvalidEvent(f"the attribute {name} is not valid Unicode")
        attributes[name] = value
    return _build(attributes, data)


def event_of(attributes: dict[str, Any], data: Any) -> CloudEvent:
    """The event with these attributes, time included. The SDK's checks cost more than reading or writing an event does; where
    all names are familiar and all values text, they could find nothing. Raises `InvalidEvent`."""
    names, values = attributes.keys(), attributes.values()
    moment = attributes.get("time")
    if (
        _NEEDED <= names <= _FAMILIAR
        and attributes["specversion"] == "1.0"
        and isinstance(moment, datetime)
        and moment.tzinfo is not None
        and "" not in values
        and list(map(type, values)).count(str) == len(values) - 1  # all but the time
    ):
        event = CloudEvent.__new__(CloudEvent)
        event._attributes, event._data = attributes, data
        return event
    try:
        return CloudEvent(attributes, data)
    except CloudEventValidationError as error:
        raise InvalidEvent(str(error)) from error


def encode_value(value: Any) -> str:
    """An attribute's header value: its canonical text, percent-encoded."""
    text = _canonical(value)
    if _MUST_ENCODE.search(text) is None:
        return text
    try:
        return _MUST_ENCODE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match.group().encode()), text)
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"an attribute is not valid Unicode: {error.reason}") from error


def decode_value(value: str) -> str:
    """A header value's text: quotes undone, then one round of percent-decoding. A `%` that begins no escape stays."""
    text = value.strip()
    if text[:1] == '"' and text[-1] == '"' and len(text) > 1:
        text = _ESCAPED_PAIR.sub(r"\1", text[1:-1])
    if "%" not in text:
        return text
    try:
        return _ENCODED.sub(lambda match: bytes.fromhex(match.group().replace("%", "")).decode(), text)
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"a header value is not valid UTF-8: {value!r}") from error


def _decode_binary(attributes: dict[str, Any], payload: bytes, raw: bool) -> CloudEvent:
    if not attributes:
        raise InvalidEvent("not a CloudEvent: no header begins with ce-")
    if not _is_plain("".join(attributes.values())):
        attributes = {name: decode_value(value) for name, value in attributes.items()}
    data: Any = None
    if payload:
        data = payload if raw else _read(payload, attributes.get("datacontenttype"))
    return _build(attributes, data)


def _decode_structured(content_type: str, payload: bytes) -> CloudEvent:
    media_type = content_type.partition(";")[0].strip()
    if media_type not in (_MEDIA_TYPE, STRUCTURED_JSON):
        raise InvalidEvent(f"cannot read {media_type}: only {STRUCTURED_JSON}, one event a message")
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"the payload is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidEvent("the payload is not a JSON object")
    return from_document(document)


def _build(attributes: dict[str, Any], data: Any) -> CloudEvent:
    for name in ("id", "source", "type", "specversion"):  # the SDK would invent an id and a version
        if name not in attributes:
            raise InvalidEvent(f"the event has no {name}")
    timed = "time" in attributes
    if timed:
        attributes["time"] = _parse_time(attributes["time"])
    else:
        attributes["time"] = datetime.min.replace(tzinfo=UTC)  # the SDK would put the moment of reading
    event = event_of(attributes, data)
    if not timed:
        del attributes["time"]
    return event


def _parse_time(value: Any) -> datetime:
    if not isinstance(value, str) or _TIME.match(value) is None:
        raise InvalidEvent(f"the time {value!r} is not RFC 3339 with a zone")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise InvalidEvent(f"the time {value!r} does not exist: {error}") from error


def _canonical(value: Any) -> str:
    """The canonical text of a CloudEvents type."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        text = value.isoformat()
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _is_plain(text: str) -> bool:
    """Visible ASCII without quotes and percent signs: as a header's value it stands for itself."""
    return text.isascii() and text.isprintable() and " " not in text and '"' not in text and "%" not in text


def _is_unicode(text: str) -> bool:
    """JSON can hold half of a surrogate pair, which nothing else can."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _payload(event: CloudEvent) -> bytes:
    data: Any = event.get_data()
    if data is None:
        return b""
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    try:
        if isinstance(data, str) and not _is_json(event.get_datacontenttype()):
            return data.encode()
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the data cannot be written as {event.get_datacontenttype() or 'JSON'}: {error}") from error


def _read(payload: bytes, content_type: str | None) -> Any:
    if _is_json(content_type):
        try:
            return json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise InvalidEvent(f"the data is said to be {content_type or 'JSON'}, but: {error}") from error
    if content_type is not None and content_type.lower().startswith("text/"):
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return payload
    return payload


def _is_json(content_type: str | None) -> bool:
    """Data without a content type is JSON, as the JSON format has it."""
    return content_type is None or content_type == "application/json" or _JSON.match(content_type) is not None


def _is_one_line_of_json(data: bytes | bytearray) -> bool:
    """Then it can stand in another document as it is."""
    if b"\n" in data or b"\r" in data:
        return False
    try:
        json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _json_or_none(data: bytes | bytearray) -> tuple[Any] | None:
    try:
        return (json.loads(data),)
    except (ValueError, RecursionError):
        return None
