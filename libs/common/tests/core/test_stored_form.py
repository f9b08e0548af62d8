"""The stored form: a value is parsed once in a process, and not at all where it was written."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from lablet_common.requests import accept
from lablet_common.resources import WorkerTemplate, schema
from lablet_common.resources.kinds import REQUEST, TEMPLATE
from lablet_common.resources.model import Instant, Model, format_time
from lablet_common.resources.request import Request
from lablet_common.store import KeyValue, MemoryStore
from lablet_common.store.changes import committed, decode, encode

MakeTemplate = Callable[..., WorkerTemplate]
MakeRequest = Callable[..., Request]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The values that were parsed."""
    values: list[bytes] = []
    read = schema.read

    def counting(model: type, data: bytes) -> object:
        values.append(data)
        return read(model, data)

    monkeypatch.setattr(schema, "read", counting)
    return values


def stored(value: bytes, revision: int) -> KeyValue:
    return KeyValue(TEMPLATE.key("t"), value, revision, revision, 1, 0)


def test_a_value_is_parsed_once_however_many_read_it(make_template: MakeTemplate, parsed: list[bytes]) -> None:
    value = encode(make_template("once")).replace(b"once", b"read")
    first = decode(TEMPLATE, stored(value, 7))
    assert decode(TEMPLATE, stored(bytes(bytearray(value)), 7)) is first
    later = decode(TEMPLATE, stored(value, 8))
    assert (later.revision, later.at_revision(7)) == (8, first), (
        "the same value at another revision is another resource"
    )
    assert len(parsed) == 1


def test_what_is_remembered_has_a_bound_in_bytes_too(make_template: MakeTemplate, parsed: list[bytes]) -> None:
    """A thousand values of half a megabyte each would fill the memory with what they stand for."""
    first = encode(make_template("first"))
    large = [encode(make_template(f"t{n}").relabelled({f"k{i}": "x" * 250 for i in range(1800)})) for n in range(24)]
    assert sum(map(len, large)) > 9 * 1024 * 1024
    for value in (large[-1], large[-2]):
        decode(TEMPLATE, stored(value, 0))
    assert not parsed, "the latest are at hand"
    for value in (first, large[0]):
        decode(TEMPLATE, stored(value, 1))
    assert len(parsed) == 2, "what came before them is not"


def test_what_was_written_is_not_parsed_and_is_what_would_be_read(
    make_template: MakeTemplate, parsed: list[bytes]
) -> None:
    resource = make_template("written")
    value = encode(resource)
    known = committed(resource, value, 9)
    assert decode(TEMPLATE, stored(value, 9)) is known
    assert not parsed
    assert schema.read(WorkerTemplate, value).at_revision(9) == known


async def test_an_accepted_request_is_not_parsed_by_those_who_read_it_next(
    make_request: MakeRequest, parsed: list[bytes]
) -> None:
    store = MemoryStore()
    accepted = (await accept(store, make_request("a"))).request
    found = await store.get(REQUEST.key_of(accepted))
    assert found is not None
    assert decode(REQUEST, found) is accepted
    assert not parsed


def test_a_value_in_another_hand_has_its_revision_all_the_same(make_template: MakeTemplate) -> None:
    resource = make_template("foreign")
    document = json.loads(encode(resource))
    document["metadata"]["resourceVersion"] = "1"
    for shown in (document, dict(reversed(document.items()))):
        found = decode(TEMPLATE, stored(json.dumps(shown).encode(), 12))
        assert found == resource.at_revision(12)


def test_times_are_written_as_rfc_3339_in_utc() -> None:
    class Note(Model):
        at: Instant

    for at in (datetime(2027, 3, 1, 9, tzinfo=UTC), datetime(2027, 3, 1, 9, 0, 1, 20, tzinfo=UTC)):
        note = Note.model_validate({"at": at.isoformat()})
        assert json.loads(note.to_json())["at"] == note.to_dict()["at"] == format_time(at)
    assert Note.model_validate({"at": "2027-03-01T09:00:00+02:00"}).to_dict() == {"at": "2027-03-01T07:00:00Z"}
