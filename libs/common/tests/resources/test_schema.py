"""Values of older and newer releases: brought to the present shape, kept whole, or refused."""

import gzip
import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from pydantic import Field

from lablet_common.archive import pack
from lablet_common.resources import Reservation, WorkerPool, schema
from lablet_common.resources.kinds import KINDS, POOL, SUBSCRIPTION
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import PoolSpec, PoolStatus
from lablet_common.store.api import KeyValue
from lablet_common.store.changes import Unreadable, decode, encode

T = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)


def pool() -> WorkerPool:
    metadata = Metadata(id="default", uid="u", created_at=T)
    return WorkerPool(metadata=metadata, spec=PoolSpec(template="sim", max=3), status=PoolStatus())


def stored(**changes: Any) -> bytes:
    return json.dumps(json.loads(pool().to_json()) | changes).encode()


def at(value: bytes, revision: int = 7) -> KeyValue:
    return KeyValue("/pools/default", value, revision, revision, 1, 0)


class PoolOf2(WorkerPool):
    """As if the next release had given `max` another name, in schema version 2."""

    class Spec(PoolSpec):
        size: int = Field(ge=1)

    schema_version: Literal[2] = 2
    spec: Spec  # type: ignore[assignment]


def named_anew(document: schema.Document) -> schema.Document:
    document["spec"]["size"] = document["spec"]["max"]
    return document


@pytest.fixture
def _second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", {"WorkerPool": (named_anew,)})


@pytest.mark.parametrize("kind", [*KINDS.values(), SUBSCRIPTION], ids=lambda kind: kind.name)
def test_every_kind_writes_its_newest_version(kind: Any) -> None:
    assert kind.model.model_fields["schema_version"].default == schema.newest(kind.model)


def test_what_is_written_says_its_version_and_what_says_none_has_the_first() -> None:
    assert json.loads(encode(pool()))["schemaVersion"] == 1
    document = json.loads(stored())
    del document["schemaVersion"]
    assert schema.read(WorkerPool, json.dumps(document).encode()) == pool()


def test_a_newer_version_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(Unreadable, match=r"schema version 2, and this release reads up to 1.*bring this service"):
        decode(POOL, at(stored(schemaVersion=2)))


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, True, None])
def test_nonsense_is_no_version(version: Any) -> None:
    with pytest.raises(Unreadable, match=r"schemaVersion|schema_version"):
        decode(POOL, at(stored(schemaVersion=version)))


@pytest.mark.usefixtures("_second_version")
@pytest.mark.parametrize("said", [True, False], ids=["says version 1", "says none"])
def test_an_older_version_is_migrated_on_read_and_written_as_the_newest(said: bool) -> None:
    document = json.loads(stored())
    if not said:
        del document["schemaVersion"]
    found = schema.read(PoolOf2, json.dumps(document).encode())
    assert (found.spec.size, found.schema_version) == (3, 2)
    written = json.loads(encode(found))
    assert (written["schemaVersion"], written["spec"]["size"]) == (2, 3)
    assert schema.read(PoolOf2, encode(found)) == found


@pytest.mark.usefixtures("_second_version")
def test_an_older_value_that_would_fit_by_chance_is_migrated_all_the_same() -> None:
    document = json.loads(stored())
    del document["schemaVersion"]
    document["spec"]["size"] = 99
    assert schema.read(PoolOf2, json.dumps(document).encode()).spec.size == 3


def test_fields_of_a_later_release_are_kept_through_changes_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    schema._told.clear()
    document = json.loads(stored(colour="blue"))
    document["spec"]["zones"] = ["a", "b"]
    document["metadata"]["team"] = {"name": "x"}
    document["status"]["conditions"] = [{"type": "Odd", "since": "2027-03-01T09:00:00Z", "weight": 3}]
    with caplog.at_level(logging.WARNING, "lablet_common.resources.schema"):
        found: Any = decode(POOL, at(json.dumps(document).encode()))
        decode(POOL, at(json.dumps(document).encode(), revision=8))
    assert {record.__dict__["field"] for record in caplog.records} == {"colour", "zones", "team", "weight"}
    assert len(caplog.records) == 4
    changed = found.respecified(max=5).relabelled({"a": "b"})
    written = json.loads(encode(changed))
    assert written["colour"] == "blue"
    assert written["spec"]["zones"] == ["a", "b"]
    assert written["metadata"]["team"] == {"name": "x"}
    assert written["status"]["conditions"][0]["weight"] == 3
    assert (written["spec"]["max"], written["metadata"]["labels"]) == (5, {"a": "b"})
    assert "resourceVersion" not in written["metadata"]
    assert schema.read(WorkerPool, encode(changed)).spec.max == 5


def test_fields_of_a_later_release_leave_the_store_with_their_resource() -> None:
    found: Any = decode(POOL, at(stored(colour="blue")))
    (line,) = gzip.decompress(pack([found])).splitlines()
    assert line == schema.to_json(found)
    assert json.loads(line)["colour"] == "blue"
    assert json.loads(line)["metadata"]["resourceVersion"] == "7"


def test_what_is_wrong_beside_an_unknown_field_is_still_refused() -> None:
    document = json.loads(stored(colour="blue"))
    document["spec"]["max"] = "many"
    with pytest.raises(Unreadable, match=r"spec\.max"):
        decode(POOL, at(json.dumps(document).encode()))
    for broken in (b"", b"[]", b"{}", b"null", b"\xff"):
        with pytest.raises(Unreadable, match="/pools/default"):
            decode(POOL, at(broken))


def test_bodies_refuse_unknown_fields_as_before() -> None:
    with pytest.raises(ValueError, match="colour"):
        Reservation.model_validate_json(stored(colour="blue", kind="Reservation"))
